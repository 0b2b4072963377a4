//! What can go wrong with a device.

use super::image::ImageError;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;

/// Why a device cannot be used, or can be no longer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// There is no library of a driver.
    #[error("no NVIDIA driver was found (libcuda.so): install one, or compute with --device cpu")]
    NoDriver,
    /// The driver is there but does not work.
    #[error("the NVIDIA driver does not start ({cause}): repair it, or compute with --device cpu")]
    Driver {
        /// What it says.
        cause: String,
    },
    /// There are fewer devices.
    #[error("there is no device cuda:{ordinal}: this machine has {count}, numbered from 0")]
    NoDevice {
        /// What was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The driver is too old.
    #[error(
        "the NVIDIA driver serves CUDA {}.{}, {}.{} is needed: update it, or compute with --device cpu",
        found / 1000, found % 1000 / 10, need / 1000, need % 1000 / 10
    )]
    OldDriver {
        /// As the driver writes it: 1000 · major + 10 · minor.
        found: i32,
        /// What is needed.
        need: i32,
    },
    /// The device is too old.
    #[error(
        "{name} has compute capability {}.{}, {}.{} is needed (the RTX 30 series and later): compute with --device cpu",
        found.0, found.1, need.0, need.1
    )]
    OldDevice {
        /// The device.
        name: String,
        /// What it has.
        found: (i32, i32),
        /// What is needed.
        need: (i32, i32),
    },
    /// There are no kernels for the device.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The device has no memory left.
    #[error(
        "the device has no {wanted} bytes of memory left ({free} of {total} are free): free some, use a shorter \
         --context or --kv f16, or keep part of the model on the host with --vram-budget"
    )]
    NoMemory {
        /// What was asked for.
        wanted: u64,
        /// What is free.
        free: u64,
        /// What the device has.
        total: u64,
    },
    /// The driver refused a call, or an earlier one failed on the device.
    #[error(
        "the device failed ({what}: {cause}): what was on it is lost; start again, or compute with --device cpu"
    )]
    Call {
        /// What was being done when it showed.
        what: &'static str,
        /// What the driver says.
        cause: String,
    },
}

/// Turns an error of the driver into one of this crate.
pub(super) fn call(what: &'static str) -> impl Fn(DriverError) -> GpuError {
    move |error| GpuError::Call { what, cause: text(error) }
}

/// Whether the driver had no memory.
pub(super) fn is_out_of_memory(error: DriverError) -> bool {
    error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY
}

/// The driver's own words.
pub(super) fn text(error: DriverError) -> String {
    match error.error_string() {
        Ok(words) => words.to_string_lossy().into_owned(),
        Err(_) => format!("error {}", error.0 as u32),
    }
}
