//! NVIDIA devices: opening one, its memory, launching kernels.
//!
//! The driver is loaded when a device is asked for, so one binary serves machines with and without one. Everything goes
//! through one stream in the order in which it was asked for; nothing but reading back waits.
//!
//! **Failure is sticky**, as it is in the driver: after the first error (no memory, a lost device) nothing is launched
//! any more, buffers stay what they are, and [`Gpu::check`] says what happened. So operations need no error path of
//! their own; whoever calls a whole forward asks once.
//!
//! Kernels are C++ beside the operations they belong to (`<op>/kernel.cu`); what they may use is `device.cuh` and
//! `math.cuh` here. They are found by name in one image (`image`).

mod error;
mod image;
mod launch;
mod memory;
mod record;
#[cfg(test)]
mod tests;

pub use error::GpuError;
pub use image::{Compiled, Compiler, ImageError, Target};
pub(crate) use launch::{Arg, Grid, launch};
pub(crate) use memory::{Buffer, Plain};

use cudarc::driver::result::{self as driver, DriverError};
use cudarc::driver::sys;
use std::ffi::CString;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use error::call;
use launch::Functions;
use memory::Memory;
use record::Recorder;

/// The oldest driver: that of CUDA 12.6, which JetPack 6 has.
const DRIVER_MIN: i32 = 12060;
/// The oldest compute capability: Ampere, the first with asynchronous copies and 8-bit tensor-core steps of 32.
const CAPABILITY_MIN: (i32, i32) = (8, 0);

/// An open device. Clones share it.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    properties: Properties,
    context: sys::CUcontext,
    stream: sys::CUstream,
    functions: Functions,
    memory: Mutex<Memory>,
    recorder: Mutex<Recorder>,
    failure: OnceLock<GpuError>,
}

// SAFETY: the handles belong to the driver, whose calls may come from any thread that has made the context current
// (`bind`); the rest is behind locks.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Its number.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Version of CUDA that the driver serves: 1000 · major + 10 · minor.
    pub driver: i32,
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub total_bytes: u64,
    /// Whether its memory is the host's (Jetson, DGX Spark).
    pub is_integrated: bool,
}

impl Gpu {
    /// The number of devices; an error if there is no driver.
    pub fn count() -> Result<usize, GpuError> {
        init()?;
        let count = driver::device::get_count().map_err(call("counting devices"))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Opens device `ordinal`.
    ///
    /// # Errors
    /// If there is no driver or no such device, either is too old, or the kernels cannot be had for it.
    pub fn open(ordinal: usize) -> Result<Gpu, GpuError> {
        let count = Gpu::count()?;
        if ordinal >= count {
            return Err(GpuError::NoDevice { ordinal, count });
        }
        let device = driver::device::get(ordinal as i32).map_err(call("opening the device"))?;
        let properties = Properties::of(ordinal, device)?;
        if properties.driver < DRIVER_MIN {
            return Err(GpuError::OldDriver { found: properties.driver, need: DRIVER_MIN });
        }
        if properties.capability < CAPABILITY_MIN {
            let Properties { name, capability, .. } = properties;
            return Err(GpuError::OldDevice { name, found: capability, need: CAPABILITY_MIN });
        }
        let image = image::image(properties.driver, properties.capability)?;
        // SAFETY: `device` is a device; the context stays retained until `Inner` is dropped, and is made current before
        // anything is done in it. The image lives through the call.
        unsafe {
            let context = driver::primary_ctx::retain(device).map_err(call("making a context"))?;
            driver::ctx::set_current(context).map_err(call("entering the context"))?;
            let stream = driver::stream::create(driver::stream::StreamKind::NonBlocking)
                .map_err(call("making a stream"))?;
            let module =
                driver::module::load_data(image.as_ptr().cast()).map_err(call("loading the kernels"))?;
            Ok(Gpu(Arc::new(Inner {
                properties,
                context,
                stream,
                functions: Functions::new(module),
                memory: Mutex::default(),
                recorder: Mutex::default(),
                failure: OnceLock::new(),
            })))
        }
    }

    /// What the device says of itself.
    pub fn properties(&self) -> &Properties {
        &self.0.properties
    }

    /// The first failure, if there was one.
    ///
    /// # Errors
    /// That failure.
    pub fn check(&self) -> Result<(), GpuError> {
        self.0.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Waits for everything asked for so far.
    pub fn synchronize(&self) {
        self.flush();
        // SAFETY: the stream lives as long as `Inner`.
        self.attempt("waiting", || unsafe { driver::stream::synchronize(self.0.stream) });
    }

    /// Remembers the first failure.
    fn fail(&self, failure: GpuError) {
        // A later failure follows from the first one.
        let _ = self.0.failure.set(failure);
    }

    /// Runs a call of the driver unless something has failed; `None` after a failure.
    fn attempt<T>(&self, what: &'static str, run: impl FnOnce() -> Result<T, DriverError>) -> Option<T> {
        if self.0.failure.get().is_some() {
            return None;
        }
        match self.bind().and_then(|()| run()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(call(what)(error));
                None
            }
        }
    }

    /// Makes the context current for this thread. The driver does nothing if it is.
    fn bind(&self) -> Result<(), DriverError> {
        // SAFETY: the context is retained as long as `Inner` lives.
        unsafe { driver::ctx::set_current(self.0.context) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: nothing else refers to these handles any more. Failing here changes nothing: the process is about to
        // forget the device.
        unsafe {
            let _ = driver::ctx::set_current(self.context);
            let _ = driver::stream::synchronize(self.stream);
            lock(&self.recorder).drop_graphs();
            lock(&self.memory).release();
            let _ = driver::module::unload(self.functions.module());
            let _ = driver::stream::destroy(self.stream);
            if let Ok(device) = driver::device::get(self.properties.ordinal as i32) {
                let _ = driver::primary_ctx::release(device);
            }
        }
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}, {})", self.0.properties.ordinal, self.0.properties.name)
    }
}

impl Properties {
    fn of(ordinal: usize, device: sys::CUdevice) -> Result<Properties, GpuError> {
        use sys::CUdevice_attribute_enum as A;
        // SAFETY: `device` is a device.
        let ask = |what| unsafe { driver::device::get_attribute(device, what) };
        let read = || {
            let mut driver = 0;
            // SAFETY: the pointer is that of a local.
            unsafe { sys::cuDriverGetVersion(&mut driver).result()? };
            Ok(Properties {
                ordinal,
                name: driver::device::get_name(device)?,
                capability: (
                    ask(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                    ask(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
                ),
                driver,
                multiprocessors: ask(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.unsigned_abs(),
                // SAFETY: `device` is a device.
                total_bytes: unsafe { driver::device::total_mem(device)? } as u64,
                is_integrated: ask(A::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0,
            })
        };
        read().map_err(call("asking what the device is"))
    }
}

/// Loads the driver.
fn init() -> Result<(), GpuError> {
    // SAFETY: loading the driver's library runs its initialisers, as in every program that uses it.
    if !unsafe { sys::is_culib_present() } {
        return Err(GpuError::NoDriver);
    }
    driver::init().map_err(|error| GpuError::Driver { cause: error::text(error) })
}

/// The name as the driver wants it.
fn c_string(name: &str) -> CString {
    CString::new(name).expect("names of kernels have no zeros")
}

/// What these locks hold is whole whenever they are free.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
