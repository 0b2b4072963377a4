//! What the system says of itself and of this process, where it does (Linux).

/// Name of the processor; `None` where the system does not say.
pub fn cpu() -> Option<String> {
    parse_cpu(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
}

/// Most memory this process has had resident so far, mapped files included; `None` where the system does not say.
pub fn peak_rss_bytes() -> Option<u64> {
    parse_peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_cpu(text: &str) -> Option<String> {
    let name = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    let name = name.trim_start().strip_prefix(':')?.trim();
    (!name.is_empty()).then(|| name.to_string())
}

fn parse_peak(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_if_it_has_a_name() {
        let text = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: Example CPU @ 3 GHz\nstepping\t: 1\n";
        assert_eq!(parse_cpu(text).as_deref(), Some("Example CPU @ 3 GHz"));
        assert_eq!(parse_cpu("processor\t: 0\nBogoMIPS\t: 50.00\n"), None);
        assert_eq!(parse_cpu("model name\t:\n"), None);
    }

    #[test]
    fn the_peak_is_read_in_kibibytes() {
        assert_eq!(parse_peak("VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2 << 20));
        for broken in ["", "VmHWM: x kB", "VmHWM: 5", "VmHWM: 99999999999999999999 kB"] {
            assert_eq!(parse_peak(broken), None, "{broken}");
        }
    }
}
