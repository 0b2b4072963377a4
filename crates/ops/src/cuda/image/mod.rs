//! The kernels as a driver loads them.
//!
//! Their sources are part of the program. Images compiled ahead are part of it where the build was given some
//! (`TANGELO_KERNEL_IMAGES`, see build.rs): several, each for one target and by one version of the compiler, since a
//! driver loads machine code of its own and earlier major versions of CUDA, and PTX of its own and earlier versions only.
//! A device for which there is none is served by NVRTC ([`Compiler`]), once: the result is kept ([`cache`]).

mod cache;
mod fnv;
mod nvrtc;
mod target;
#[cfg(test)]
mod tests;

pub use nvrtc::{Compiled, Compiler};
pub use target::Target;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::{env, fs};
use tangelo_core::limits::KERNEL_IMAGE_BYTES_MAX;

// KEY, a hash of all sources; UNIT, what is compiled; SOURCES, the files it includes; IMAGES.
include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Names a file to load in place of every other image, whatever the device: to try a kernel that another compiler made, or
/// a device that is none.
const OVERRIDE: &str = "TANGELO_KERNELS";

/// An image that is part of the program.
struct Image {
    /// Version of CUDA of its compiler: 1000 · major + 10 · minor.
    cuda: i32,
    target: Target,
    bytes: &'static [u8],
}

/// Why there are no kernels for a device.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There is no image and no compiler.
    #[error(
        "this program has no kernels for compute capability {}.{} with a driver of CUDA {}, and found no compiler for them: \
         install NVRTC of CUDA {} (libnvrtc.so, where the loader finds it or below CUDA_HOME), or compute with --device cpu",
        capability.0, capability.1, version(*driver), version(*driver)
    )]
    Missing {
        /// The device's compute capability.
        capability: (i32, i32),
        /// Version of CUDA that the driver serves: 1000 · major + 10 · minor.
        driver: i32,
    },
    /// The compiler's library is not what it should be.
    #[error("{} is no NVRTC that can be used ({cause}): name another one", path.display())]
    Library {
        /// What was loaded.
        path: PathBuf,
        /// What the loader says.
        cause: String,
    },
    /// The compiler failed outside of compiling.
    #[error("NVRTC failed while {what} (status {status}): install it anew, or compute with --device cpu")]
    Call {
        /// What it was doing.
        what: &'static str,
        /// What it returned, an `nvrtcResult`.
        status: i32,
    },
    /// The compiler found a mistake, does not know the target, or lacks a part of itself.
    #[error(
        "NVRTC {} does not compile the kernels for {target} (status {status}): install another version, or compute with \
         --device cpu. It says: {log}",
        version(*version_found)
    )]
    Compile {
        /// The compiler's version: 1000 · major + 10 · minor.
        version_found: i32,
        /// What was asked for.
        target: Target,
        /// What it returned, an `nvrtcResult`.
        status: i32,
        /// Its messages.
        log: String,
    },
    /// The file named instead of an image cannot be used.
    #[error("{OVERRIDE} names {}, which cannot be loaded ({cause}): correct or unset it", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
}

/// The image for a driver that serves CUDA `driver` and a device of compute capability `capability`: machine code, or PTX
/// with a zero byte at its end.
pub(super) fn image(driver: i32, capability: (i32, i32)) -> Result<Cow<'static, [u8]>, ImageError> {
    if let Some(path) = env::var_os(OVERRIDE) {
        return named(Path::new(&path)).map(Cow::Owned);
    }
    if let Some(image) = choose(IMAGES, driver, capability) {
        return Ok(Cow::Borrowed(image.bytes));
    }
    let compiler = Compiler::find(driver, capability).ok_or(ImageError::Missing { capability, driver })?;
    compiled(&compiler, compiler.target(capability), cache::folder().as_deref()).map(Cow::Owned)
}

/// The image that serves the device best; of equal ones that of the newest compiler.
fn choose(images: &[Image], driver: i32, capability: (i32, i32)) -> Option<&Image> {
    let served = images.iter().filter(|image| image.target.is_loaded_by(driver, image.cuda));
    let fit = served.filter_map(|image| Some((image.target.fitness(capability)?, image)));
    fit.max_by_key(|(fitness, image)| (*fitness, image.cuda)).map(|(_, image)| image)
}

/// Compiles the kernels, or takes what was compiled before.
fn compiled(compiler: &Compiler, target: Target, folder: Option<&Path>) -> Result<Vec<u8>, ImageError> {
    let path = folder.map(|folder| folder.join(compiler.key(target)));
    if let Some(image) = path.as_deref().and_then(cache::read) {
        return Ok(image);
    }
    let image = compiler.compile(target)?.image;
    if let Some(path) = path {
        // A folder that cannot be written costs a compilation every time, nothing else.
        let _ = cache::write(&path, &image);
    }
    Ok(image)
}

/// The image in a file that the user names.
fn named(path: &Path) -> Result<Vec<u8>, ImageError> {
    let failure = |cause: String| ImageError::File { path: path.into(), cause };
    let len = fs::metadata(path).map_err(|e| failure(e.to_string()))?.len();
    if len > KERNEL_IMAGE_BYTES_MAX {
        return Err(failure(format!("it has {len} bytes, {KERNEL_IMAGE_BYTES_MAX} are allowed")));
    }
    let mut image = fs::read(path).map_err(|e| failure(e.to_string()))?;
    image.push(0); // The end of PTX; machine code knows its own length.
    Ok(image)
}

/// Version 12060 as people write it: 12.6.
fn version(cuda: i32) -> String {
    format!("{}.{}", cuda / 1000, cuda % 1000 / 10)
}
