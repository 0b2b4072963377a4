//! Which card, driver and toolkit: as the program, `nvidia-smi`, `nvcc` and git say.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::run::{Fault, run};
use super::{Check, answers};

const LIMIT: Duration = Duration::from_secs(30);
/// The program may have to compile its kernels first.
const FIRST_LIMIT: Duration = Duration::from_secs(180);
/// How often the memory in use is asked for.
const INTERVAL: Duration = Duration::from_millis(100);

/// What the record begins with.
///
/// # Errors
/// If the program cannot use the device.
pub fn facts(check: &Check<'_>) -> Result<Value, Fault> {
    let shown = check.json(true, &["show", answers::QUANTISED[0], "--json"], FIRST_LIMIT)?;
    let said = |program: &str, args: &[&str]| {
        let said = run(Command::new(program).args(args).current_dir(check.root), LIMIT);
        said.ok().map(|text| text.trim().to_string())
    };
    let number = check.options.device.to_string();
    let asked = "--query-gpu=driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit";
    let compiler = said("nvcc", &["--version"]);
    Ok(json!({
        "device": shown["device"]["name"],
        "capability": shown["device"]["capability"],
        "memory_bytes": shown["device"]["total_bytes"],
        "driver": said("nvidia-smi", &["-i", &number, asked, "--format=csv"]),
        "toolkit": compiler.and_then(|text| Some(text.lines().find(|line| line.contains("release"))?.to_string())),
        "commit": said("git", &["rev-parse", "--short", "HEAD"]),
        "is_quick": check.options.quick,
    }))
}

/// Bytes in use on the device by whoever; `None` where nobody says.
fn used_bytes(device: usize) -> Option<u64> {
    let number = device.to_string();
    let args = ["-i", &number, "--query-gpu=memory.used", "--format=csv,noheader,nounits"];
    let mib: u64 = run(Command::new("nvidia-smi").args(args), LIMIT).ok()?.trim().parse().ok()?;
    Some(mib << 20)
}

/// Runs `work`, and how many more bytes of the device were in use meanwhile than before.
pub fn with_memory<T>(device: usize, work: impl FnOnce() -> T) -> (T, Option<u64>) {
    let before = used_bytes(device);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let most = scope.spawn(|| {
            let mut most = before;
            while most.is_some() && !is_done.load(Ordering::Relaxed) {
                most = most.max(used_bytes(device));
                thread::sleep(INTERVAL);
            }
            most
        });
        let result = work();
        is_done.store(true, Ordering::Relaxed);
        let most = most.join().unwrap_or_default();
        (result, most.zip(before).map(|(most, before)| most - before))
    })
}
