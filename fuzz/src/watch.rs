//! The input under test, kept where it can be saved from anywhere: from the allocator, from the thread that
//! watches the time, after a panic.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// An input being parsed.
struct Current {
    target: &'static str,
    data: Arc<Vec<u8>>,
    since: Instant,
}

static CURRENT: Mutex<Option<Current>> = Mutex::new(None);

fn current() -> MutexGuard<'static, Option<Current>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Declares `data` to be under test by `target`.
pub fn begin(target: &'static str, data: Arc<Vec<u8>>) {
    *current() = Some(Current { target, data, since: Instant::now() });
}

/// Declares that nothing is under test.
pub fn end() {
    *current() = None;
}

/// Where failing inputs go: the build folder, which is not tracked.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz")
}

/// Saves an input under the name of its target and contents.
///
/// # Panics
/// If it cannot be written: a fuzzer that loses its findings is of no use.
pub fn save(target: &str, data: &[u8]) -> PathBuf {
    // FNV-1a: the name must be short and the same for the same input, nothing more.
    let hash =
        data.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let path = folder().join(format!("{target}-{hash:016x}.bin"));
    std::fs::create_dir_all(folder()).expect("the build folder can be written");
    std::fs::write(&path, data).expect("the build folder can be written");
    path
}

/// Prints what a target did wrong, where its input is and how to see it again.
pub fn report(target: &str, data: &[u8], what: &str) {
    let path = save(target, data);
    let path = path.canonicalize().unwrap_or(path);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let shown = path.strip_prefix(root).unwrap_or(&path).display();
    eprintln!("error: {target} failed on {} bytes: {what}", data.len());
    eprintln!("  to reproduce: cargo run -p fuzz -- {target} --input {shown}");
    eprintln!("  when it is fixed: move the file to fuzz/regressions/{target}/");
}

/// Reports the input under test and ends the process with status 1.
pub fn fail(what: &str) -> ! {
    let current = current().take();
    if let Some(Current { target, data, .. }) = current {
        report(target, &data, what);
    } else {
        eprintln!("error: outside any target: {what}");
    }
    std::process::exit(1)
}

/// Starts the thread that fails an input which takes longer than `limit`.
pub fn start_clock(limit: Duration) {
    thread::spawn(move || {
        loop {
            thread::sleep(limit / 8);
            let is_late = current().as_ref().is_some_and(|c| c.since.elapsed() > limit);
            if is_late {
                fail(&format!("it took longer than {limit:?}"));
            }
        }
    });
}
