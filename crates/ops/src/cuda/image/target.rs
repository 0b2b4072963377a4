//! What kernels are compiled for.

use std::fmt;
use std::str::FromStr;

/// Machine code for one compute capability, or PTX that a driver compiles for any from there on. The number is
/// 10 · major + minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// `compute_80`: PTX.
    Compute(i32),
    /// `sm_86`: machine code.
    Sm(i32),
}

/// Jetson's capabilities. Machine code neither comes to them from another one nor goes from them to another (CUDA C++
/// Programming Guide, "Binary Compatibility": not supported between desktop and Tegra).
const TEGRA: [i32; 3] = [87, 101, 110];

impl Target {
    /// How well a device runs an image of this target, more is better; `None` if it does not. Machine code serves later
    /// minor versions of the same major one, PTX everything later.
    pub(super) fn fitness(self, capability: (i32, i32)) -> Option<i32> {
        let device = number(capability);
        match self {
            Target::Sm(code) if code == device => Some(2000),
            Target::Sm(code) if TEGRA.contains(&code) || TEGRA.contains(&device) => None,
            Target::Sm(code) => (code / 10 == device / 10 && code < device).then_some(1000 + code),
            Target::Compute(ptx) => (ptx <= device).then_some(ptx),
        }
    }

    /// Whether a driver that serves CUDA `driver` loads what a compiler of version `cuda` made: PTX is a language that grows
    /// with every version, machine code has a form that changes with major ones.
    pub(super) fn is_loaded_by(self, driver: i32, cuda: i32) -> bool {
        match self {
            Target::Sm(_) => cuda / 1000 <= driver / 1000,
            Target::Compute(_) => cuda <= driver,
        }
    }
}

/// 10 · major + minor.
pub(super) fn number((major, minor): (i32, i32)) -> i32 {
    10 * major + minor
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Compute(number) => write!(f, "compute_{number}"),
            Target::Sm(number) => write!(f, "sm_{number}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let parsed = match text.split_once('_') {
            Some(("compute", number)) => number.parse().ok().map(Target::Compute),
            Some(("sm", number)) => number.parse().ok().map(Target::Sm),
            _ => None,
        };
        parsed
            .ok_or_else(|| format!("`{text}` is no target; write sm_86 for machine code, compute_80 for PTX"))
    }
}
