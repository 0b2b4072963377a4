//! A stand-in for the driver of an NVIDIA card, so that tests run the kernels and everything around them on machines
//! without one. Only tests depend on it.
//!
//! The library (`emulator/`, C++, compiled by `build.rs` with all kernels of `ops`) has the name and the functions of the
//! driver's. It runs each thread of a block as a fibre, one block after the other, and is stricter than a card: memory
//! starts as NaN, asynchronous copies arrive no sooner than they are waited for, a barrier that not all threads reach, a
//! write beside an allocation and a copy beyond one are errors with a sentence on stderr. It says nothing about speed.
//!
//! ```no_run
//! if let Err(reason) = tangelo_emulator::load() {
//!     eprintln!("skipped: {reason}");
//!     return;
//! }
//! // From here on this process has a device 0.
//! ```
//!
//! The environment chooses what kind of device, for processes that a test starts too ([`folder`]):
//! `TANGELO_EMULATED_MEMORY` (bytes), `_CAPABILITY` (`8.6`), `_INTEGRATED` (0 or 1), `_SEED` (shuffles the order of
//! threads), `_CHECK` (0: writes beside allocations are not looked for), `_FAULT` (the launch at which the device is
//! lost). [`set`] changes them while the process runs.

#![deny(unsafe_code)]

use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// What kind of device is emulated. Holds for the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Bytes of memory; an allocation beyond them fails. 2 GiB unless set.
    Memory(u64),
    /// Compute capability, 86 for 8.6.
    Capability(u64),
    /// Whether the device shares its memory with the host.
    Integrated(bool),
    /// The order of threads is drawn from this number; 0 is increasing order.
    Seed(u64),
    /// Whether writes beside allocations are looked for after each launch.
    Check(bool),
    /// The launch, counted from now, at which the device is lost, as with an error on a card: it and every later call
    /// fail. 0 is never, and brings a lost device back.
    Fault(u64),
}

/// The emulator has its kernels in itself: what the program loads as their image is an empty file.
pub const KERNELS: (&str, &str) = ("TANGELO_KERNELS", "/dev/null");

static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();

/// Makes the emulator this process's driver: a library of the name `libcuda.so` that is loaded already is the one that
/// is found by that name. Call it before anything looks for a device.
///
/// # Errors
/// Why there is no emulator: no C++ compiler when this was built, or another kind of machine.
pub fn load() -> Result<(), String> {
    library().map(|_| ())
}

/// The folder that holds `libcuda.so`, for `LD_LIBRARY_PATH` of other processes; `None` if there is no emulator. They also
/// need [`KERNELS`] in their environment, unless they inherit it from a process that has called [`load`].
pub fn folder() -> Option<&'static Path> {
    option_env!("TANGELO_EMULATOR_FOLDER").map(Path::new)
}

/// Changes the device.
///
/// # Panics
/// If the emulator could not be loaded.
pub fn set(setting: Setting) {
    let (name, value) = match setting {
        Setting::Memory(bytes) => ("memory", bytes),
        Setting::Capability(capability) => ("capability", capability),
        Setting::Integrated(is) => ("integrated", is.into()),
        Setting::Seed(seed) => ("seed", seed),
        Setting::Check(does) => ("check", does.into()),
        Setting::Fault(launch) => ("fault", launch),
    };
    let name = CString::new(name).expect("names have no zeros");
    assert!(call("tangelo_emulator_set", name.as_ptr(), value) == 1, "the emulator has no such setting");
}

/// Kernels launched since the process began or [`Setting::Fault`] was set last, those of graphs included.
///
/// # Panics
/// If the emulator could not be loaded.
pub fn launches() -> u64 {
    call("tangelo_emulator_launches", std::ptr::null(), 0)
}

/// Bytes of device memory that are allocated.
///
/// # Panics
/// If the emulator could not be loaded.
pub fn allocated() -> u64 {
    call("tangelo_emulator_allocated", std::ptr::null(), 0)
}

#[allow(unsafe_code)]
fn library() -> Result<&'static Library, String> {
    let load = || {
        let missing = option_env!("TANGELO_EMULATOR_MISSING").unwrap_or("the emulator was not built");
        let path = folder().ok_or(missing)?.join("libcuda.so");
        // SAFETY: the library is ours; its initialisers only fill a table of kernels. The variable is set once, before
        // anything looks for a device, and read by Rust code only.
        unsafe {
            std::env::set_var(KERNELS.0, KERNELS.1);
            Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL)
        }
        .map_err(|e| format!("{}: {e}", path.display()))
    };
    LIBRARY.get_or_init(load).as_ref().map_err(String::clone)
}

/// Calls one of the three functions above, which all have this type.
#[allow(unsafe_code)]
fn call(function: &str, name: *const c_char, value: u64) -> u64 {
    type Function = unsafe extern "C" fn(*const c_char, u64) -> u64;
    let library = library().expect("the emulator is loaded");
    // SAFETY: `driver.cpp` defines the functions with this type; the name is null or ends with a zero.
    unsafe {
        let symbol = library.get::<Function>(function.as_bytes()).expect("the library is the emulator's");
        symbol(name, value)
    }
}
