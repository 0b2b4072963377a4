//! What NVIDIA's assembler says of a kernel, and the table of it that is kept in the repository.

use std::collections::BTreeMap;

/// Most bytes of static shared memory of a kernel, on any device.
pub const SHARED_MAX: u32 = 48 << 10;
/// Most bytes that a kernel may spill, stores and loads together: what assemblers for some targets keep aside of their own
/// accord, well below the registers that there are. More is a kernel that does not fit.
const SPILLS_MAX: u32 = 64;

/// What a kernel takes, or the most that it takes on any of several targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Registers per thread.
    pub registers: u32,
    /// Bytes of static shared memory per block.
    pub shared: u32,
    /// Bytes of stack per thread: arrays that are indexed by a variable.
    pub stack: u32,
    /// Bytes stored and loaded per thread because registers did not suffice.
    pub spills: u32,
}

impl Usage {
    /// The larger of each.
    pub fn max(self, other: Usage) -> Usage {
        Usage {
            registers: self.registers.max(other.registers),
            shared: self.shared.max(other.shared),
            stack: self.stack.max(other.stack),
            spills: self.spills.max(other.spills),
        }
    }

    /// What is wrong with it, if anything.
    pub fn fault(self) -> Option<String> {
        if self.spills > SPILLS_MAX {
            Some(format!("spills {} bytes of registers", self.spills))
        } else if self.shared > SHARED_MAX {
            Some(format!("has {} bytes of static shared memory, {SHARED_MAX} are allowed", self.shared))
        } else {
            None
        }
    }
}

/// Usage by kernel, from the messages of `ptxas -v`. Those about a function that is not part of its kernel count for the
/// kernel that they follow.
pub fn parse(log: &str) -> BTreeMap<String, Usage> {
    let mut usages: BTreeMap<String, Usage> = BTreeMap::new();
    let mut kernel = String::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split('\'').next().unwrap_or_default().to_string();
            usages.insert(kernel.clone(), Usage::default());
        }
        let Some(usage) = usages.get_mut(&kernel) else { continue };
        let found = Usage {
            registers: number_before(line, " registers"),
            shared: number_before(line, " bytes smem"),
            stack: number_before(line, " bytes stack frame"),
            spills: number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads"),
        };
        *usage = usage.max(found);
    }
    usages
}

/// The number that stands before `unit`, 0 if it does not occur.
fn number_before(line: &str, unit: &str) -> u32 {
    let before = line.find(unit).map_or("", |at| &line[..at]);
    before.rsplit([' ', ',']).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Rows of a table in Markdown.
pub fn table(usages: &BTreeMap<String, Usage>) -> String {
    let mut table = String::from(
        "| kernel | registers | shared bytes | stack bytes | spilled bytes |\n| --- | ---: | ---: | ---: | ---: |\n",
    );
    for (kernel, Usage { registers, shared, stack, spills }) in usages {
        table += &format!("| `{kernel}` | {registers} | {shared} | {stack} | {spills} |\n");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'gemm' for 'sm_87'
ptxas info    : Function properties for gemm
ptxas         .     16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 49156 bytes smem, 384 bytes cmem[0]
ptxas info    : Compiling entry function 'norm' for 'sm_87'
ptxas info    : Function properties for norm
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 17 registers, used 0 barriers
";

    #[test]
    fn messages_are_read_per_kernel() {
        let usages = parse(LOG);
        assert_eq!(usages["gemm"], Usage { registers: 128, shared: 49156, stack: 16, spills: 12 });
        assert_eq!(usages["norm"], Usage { registers: 17, ..Usage::default() });
        assert_eq!(usages.len(), 2);
        assert!(table(&usages).contains("| `gemm` | 128 | 49156 | 16 | 12 |\n"));
    }

    #[test]
    fn spills_and_too_much_shared_memory_are_faults() {
        let fine = Usage { registers: 255, shared: SHARED_MAX, stack: 64, spills: 0 };
        assert_eq!(fine.fault(), None);
        assert!(Usage { spills: 68, ..fine }.fault().is_some_and(|f| f.contains("spills 68 bytes")));
        assert!(Usage { shared: SHARED_MAX + 1, ..fine }.fault().is_some_and(|f| f.contains("49153 bytes")));
    }
}
