//! Kernels compiled on this machine, kept in the user's cache folder: one file per sources, compiler and target, 8 bytes
//! of hash before the image. A file that is damaged, or anything else that goes wrong here, costs a compilation.

use super::fnv::fnv1a;
use std::path::{Path, PathBuf};
use std::{env, fs, io, process};
use tangelo_core::limits::KERNEL_IMAGE_BYTES_MAX;

/// Where they are kept: `$XDG_CACHE_HOME/tangelo/kernels`, or that in `~/.cache`.
pub(super) fn folder() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("tangelo").join("kernels"))
}

/// The image in a file, if it is there and whole.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    if fs::metadata(path).ok()?.len() > KERNEL_IMAGE_BYTES_MAX {
        return None;
    }
    let mut bytes = fs::read(path).ok()?;
    let hash = u64::from_le_bytes(*bytes.first_chunk()?);
    bytes.drain(..size_of::<u64>());
    (fnv1a(&[&bytes]) == hash).then_some(bytes)
}

/// Keeps an image. Others see the whole file or none.
pub(super) fn write(path: &Path, image: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let unfinished = path.with_extension(format!("{}.part", process::id()));
    let bytes = [&fnv1a(&[image]).to_le_bytes(), image].concat();
    let written = fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}
