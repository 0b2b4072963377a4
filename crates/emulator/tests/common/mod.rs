//! The driver as the tests call it: one device, one stream, buffers of words.

#![allow(dead_code)] // Each test uses a part.

use std::ffi::{CString, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::result::{self as driver, DriverError};
use cudarc::driver::sys;

/// A device made ready; tests of one process share it, one at a time.
pub struct Device {
    pub stream: sys::CUstream,
    module: sys::CUmodule,
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// Opens the emulated device, or says why this test is skipped.
pub fn open() -> Option<Device> {
    if let Err(reason) = tangelo_emulator::load() {
        eprintln!("skipped: {reason}");
        return None;
    }
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    driver::init().expect("the driver starts");
    // SAFETY: the calls are in the order the driver wants; nothing is destroyed before the process ends.
    unsafe {
        let context =
            driver::primary_ctx::retain(driver::device::get(0).expect("device 0")).expect("a context");
        driver::ctx::set_current(context).expect("the context is current");
        let stream = driver::stream::create(driver::stream::StreamKind::NonBlocking).expect("a stream");
        let module = driver::module::load_data([0u8; 4].as_ptr().cast()).expect("a module");
        Some(Device { stream, module, _alone: alone })
    }
}

/// Device memory of `u32` words.
pub struct Words {
    pub address: u64,
    pub len: usize,
}

impl Words {
    pub fn new(len: usize) -> Words {
        // SAFETY: memory is freed by `drop`.
        let address = unsafe { driver::malloc_sync(4 * len) }.expect("there is memory");
        Words { address, len }
    }

    pub fn of(words: &[u32]) -> Words {
        let memory = Words::new(words.len());
        // SAFETY: both sides have `words.len()` words.
        unsafe { driver::memcpy_htod_sync(memory.address, words) }.expect("a copy");
        memory
    }

    pub fn read(&self) -> Vec<u32> {
        let mut words = vec![0; self.len];
        // SAFETY: both sides have `self.len` words.
        unsafe { driver::memcpy_dtoh_sync(&mut words, self.address) }.expect("a copy");
        words
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: it was allocated by `new`. A lost device has forgotten it.
        let _ = unsafe { driver::free_sync(self.address) };
    }
}

/// Arguments of a kernel: addresses of values that live where the caller has them.
pub type Args<'a> = &'a mut [*mut c_void];

/// `args!(a, b)`: pointers to the variables.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { &mut [$(std::ptr::from_ref(&$value).cast_mut().cast::<std::ffi::c_void>()),*] };
}

impl Device {
    pub fn function(&self, name: &str) -> Result<sys::CUfunction, DriverError> {
        let name = CString::new(name).expect("no zeros");
        // SAFETY: the module is loaded.
        unsafe { driver::module::get_function(self.module, name) }
    }

    /// Launches `blocks` blocks of `threads` threads.
    pub fn launch(&self, name: &str, blocks: u32, threads: u32, args: Args<'_>) -> Result<(), DriverError> {
        self.launch_shared(name, blocks, threads, 0, args)
    }

    /// With `shared` bytes of dynamic shared memory.
    pub fn launch_shared(
        &self,
        name: &str,
        blocks: u32,
        threads: u32,
        shared: u32,
        args: Args<'_>,
    ) -> Result<(), DriverError> {
        // SAFETY: tests pass what the kernels in kernel.cu take.
        unsafe {
            driver::launch_kernel(
                self.function(name)?,
                (blocks, 1, 1),
                (threads, 1, 1),
                shared,
                self.stream,
                args,
            )
        }
    }
}

/// Numbers without a pattern that a test could live on.
pub fn noise(len: usize, seed: u32) -> Vec<u32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x
    };
    (0..len).map(|_| next()).collect()
}
