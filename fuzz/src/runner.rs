//! Runs one target over regressions, seeds and mutated seeds until its budget is spent or it fails.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mutate::{self, Rng};
use crate::targets::Target;
use crate::{alloc, watch};

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Most mutated inputs.
    pub iterations: u64,
    /// Longest time.
    pub time: Duration,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Inputs tried.
    pub tried: u64,
    /// Inputs that the parser accepted. Some must be, or the mutations never get past its first check.
    pub accepted: u64,
}

thread_local! {
    /// Message and place of the last panic of this thread.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Makes panics keep their message for the report instead of printing it.
pub fn quiet_panics() {
    panic::set_hook(Box::new(|info| {
        let text = info.to_string().replace('\n', " ");
        LAST_PANIC.with(|last| *last.borrow_mut() = text);
    }));
}

/// Inputs of a target that once failed.
pub fn regressions(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target.name);
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    paths.iter().filter_map(|p| std::fs::read(p).ok()).collect()
}

/// Gives one input to a target. `None` if the target panicked, after printing a report.
pub fn one(target: &'static Target, data: Vec<u8>) -> Option<bool> {
    let data = Arc::new(data);
    watch::begin(target.name, data.clone());
    let result = alloc::limited(|| panic::catch_unwind(AssertUnwindSafe(|| (target.run)(&data))));
    watch::end();
    result.map_err(|_| watch::report(target.name, &data, &LAST_PANIC.with(|last| last.borrow().clone()))).ok()
}

/// Runs a target. With `trace` every input is saved before it is tried, so that it survives the process.
///
/// `None` if the target failed, after printing a report.
pub fn run(target: &'static Target, budget: Budget, seed: u64, trace: Option<&Path>) -> Option<Summary> {
    let start = Instant::now();
    let mut summary = Summary::default();
    let mut attempt = |data: Vec<u8>| {
        if let Some(path) = trace {
            std::fs::write(path, &data).expect("the build folder can be written");
        }
        summary.tried += 1;
        summary.accepted += u64::from(one(target, data)?);
        Some(())
    };
    let mut seeds = regressions(target);
    seeds.extend((target.seeds)());
    seeds.iter().cloned().try_for_each(&mut attempt)?;
    let mut rng = Rng::new(seed);
    for _ in 0..budget.iterations {
        if start.elapsed() >= budget.time {
            break;
        }
        attempt(mutate::input(&mut rng, &seeds, target.dictionary))?;
    }
    Some(summary)
}
