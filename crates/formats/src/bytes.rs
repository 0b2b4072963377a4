//! A cheaply cloned, immutable range of bytes: part of a memory-mapped file, of the program itself, or an owned buffer.
//!
//! Every tensor of a checkpoint is one of these. Cloning and slicing copy a pointer, and the mapping lives
//! until its last range is dropped. Nothing is promised about alignment: a tensor starts wherever its file
//! puts it, so readers assemble their elements from bytes.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};

enum Storage {
    Owned(Vec<u8>),
    Static(&'static [u8]),
    Mapped(memmap2::Mmap),
}

impl Storage {
    fn as_slice(&self) -> &[u8] {
        match self {
            Storage::Owned(bytes) => bytes,
            Storage::Static(bytes) => bytes,
            Storage::Mapped(map) => map,
        }
    }
}

/// Immutable bytes; see the module's description.
#[derive(Clone)]
pub struct Bytes {
    storage: Arc<Storage>,
    /// Inside the storage; every constructor checks it.
    range: Range<usize>,
}

impl Bytes {
    /// Takes ownership of a buffer.
    pub fn from_vec(bytes: Vec<u8>) -> Bytes {
        let range = 0..bytes.len();
        Bytes { storage: Arc::new(Storage::Owned(bytes)), range }
    }

    /// Bytes that are part of the program.
    pub fn from_static(bytes: &'static [u8]) -> Bytes {
        Bytes { storage: Arc::new(Storage::Static(bytes)), range: 0..bytes.len() }
    }

    /// Maps a whole file into memory, read-only. Pages are read from disk when they are first touched and are
    /// shared with every other process that maps the file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened or mapped (a directory, for instance).
    pub fn map_file(path: &Path) -> Result<Bytes> {
        let io = |action| move |cause| Error::Io { action, path: path.to_path_buf(), cause };
        let file = File::open(path).map_err(io("open"))?;
        if file.metadata().map_err(io("read"))?.is_dir() {
            return Err(io("map")(std::io::ErrorKind::IsADirectory.into()));
        }
        let map = map_readonly(&file).map_err(io("map"))?;
        let range = 0..map.len();
        Ok(Bytes { storage: Arc::new(Storage::Mapped(map)), range })
    }

    /// The part `range` of these bytes, sharing their storage; `None` if it is not inside them.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        (start <= end && end <= self.range.end)
            .then(|| Bytes { storage: Arc::clone(&self.storage), range: start..end })
    }

    /// Tells the system that these bytes will not be read again soon, so that the memory of a mapped file that holds
    /// them is given back now. Reading them again reads the file again. Owned buffers stay as they are.
    pub fn release(&self) {
        if let Storage::Mapped(map) = &*self.storage {
            release_pages(map, self.range.clone());
        }
    }

    /// Whether the bytes are part of a mapped file (and so cost no memory of their own).
    pub fn is_mapped(&self) -> bool {
        matches!(*self.storage, Storage::Mapped(_))
    }
}

/// Advice that is not followed costs memory only, so failures are of no interest.
#[cfg(unix)]
#[allow(unsafe_code)]
fn release_pages(map: &memmap2::Mmap, range: Range<usize>) {
    // SAFETY: what may make this advice unsafe is that pages could read as zeros afterwards; those of a file that is
    // mapped read-only are read from the file again.
    let _ =
        unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
}

#[cfg(not(unix))]
fn release_pages(_: &memmap2::Mmap, _: Range<usize>) {}

#[allow(unsafe_code)]
fn map_readonly(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the mapping is read-only and private to this module, which hands out `&[u8]` only. What the
    // compiler cannot see is another process changing the file underneath; as in every program that maps its
    // models, that is outside the contract: a model file must not be modified while it is in use.
    // Nothing here relies on the content staying the same for memory safety: lengths and offsets are
    // read once, checked against the length of the mapping, and kept in ordinary memory.
    unsafe { memmap2::Mmap::map(file) }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.storage.as_slice().get(self.range.clone()).unwrap_or_default()
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_mapped() { "mapped" } else { "owned" };
        write!(f, "Bytes({kind}, {} bytes)", self.len())
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        **self == **other
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes::from_vec(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_inside_and_nest() {
        let all = Bytes::from_vec((0..10).collect());
        let middle = all.slice(2..8).unwrap();
        assert_eq!(&*middle, &[2, 3, 4, 5, 6, 7]);
        assert_eq!(&*middle.slice(1..3).unwrap(), &[3, 4]);
        assert_eq!(middle.slice(6..6).unwrap().len(), 0);
        assert!(middle.slice(0..7).is_none(), "a slice cannot see the rest of its storage");
        assert!(all.slice(0..usize::MAX).is_none());
        assert!(middle.slice(usize::MAX..usize::MAX).is_none());
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 5..4;
        assert!(all.slice(reversed).is_none());
    }

    #[test]
    fn maps_files_and_refuses_folders() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let mapped = Bytes::map_file(&path).unwrap();
        assert!(mapped.is_mapped());
        assert_eq!(&*mapped, std::fs::read(&path).unwrap());
        let folder = Bytes::map_file(path.parent().unwrap()).unwrap_err();
        assert!(folder.to_string().starts_with("cannot map "), "{folder}");
        let absent = Bytes::map_file(Path::new("no/such/file")).unwrap_err();
        assert!(absent.to_string().starts_with("cannot open no/such/file: "), "{absent}");
    }
}
