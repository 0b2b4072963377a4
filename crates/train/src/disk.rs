//! Reading and writing of files, with errors that name them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use tangelo_core::DType;
use tangelo_formats::safetensors::{Header, TensorPlan, Writer, parse_header};

use crate::error::{Error, Result};

/// Names, shapes and elements of tensors.
pub(crate) type Named<'a> = Vec<(String, Vec<usize>, Cow<'a, [f32]>)>;

/// Writes tensors to a safetensors file and brings it to disk.
pub(crate) fn write_tensors(path: &Path, tensors: &Named<'_>) -> Result<()> {
    let file = fs::File::create(path).map_err(|cause| io(path, cause))?;
    let plan = tensors.iter().map(|(name, shape, _)| TensorPlan {
        name: name.clone(),
        dtype: DType::F32,
        shape: shape.clone(),
    });
    let write = || {
        let mut out = Writer::new(BufWriter::new(file), &BTreeMap::new(), plan.collect())?;
        for (name, _, data) in tensors {
            out.tensor(name, |out| data.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())))?;
        }
        out.finish()
    };
    let file = write().map_err(|error: tangelo_formats::Error| match error {
        tangelo_formats::Error::Write { cause, .. } => io(path, cause),
        error => error.in_file(path).into(),
    })?;
    let file = file.into_inner().map_err(|cause| io(path, cause.into_error()))?;
    file.sync_all().map_err(|cause| io(path, cause))
}

/// A safetensors file of f32 tensors.
pub(crate) struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
    header: Header,
}

impl Tensors {
    pub fn read(path: &Path) -> Result<Tensors> {
        let bytes = read(path)?;
        let header = parse_header(&bytes, bytes.len()).map_err(|error| error.in_file(path))?;
        Ok(Tensors { path: path.to_path_buf(), bytes, header })
    }

    /// Copies a tensor, which must have as many elements.
    pub fn copy(&self, name: &str, to: &mut [f32]) -> Result<()> {
        let found = self.header.tensors.iter().find(|tensor| tensor.name == name);
        let is_f32 = |tensor: &&tangelo_formats::safetensors::TensorInfo| tensor.dtype == Some(DType::F32);
        let data = found.filter(is_f32).and_then(|tensor| self.bytes.get(tensor.range.clone()));
        let data = data.filter(|data| data.len() == size_of_val(to));
        let data = data.ok_or_else(|| Error::NoTensor { name: name.to_owned(), path: self.path.clone() })?;
        to.iter_mut().zip(data.as_chunks().0).for_each(|(x, bytes)| *x = f32::from_le_bytes(*bytes));
        Ok(())
    }
}

pub(crate) fn io(path: &Path, cause: std::io::Error) -> Error {
    Error::Io { path: path.to_path_buf(), cause }
}

pub(crate) fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|cause| io(folder, cause))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|cause| io(path, cause))
}

/// Writes a file and brings it to disk; until that has gone well, what was there before stays.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<()> {
    let part = path.with_file_name(format!(".{}.part", path.file_name().unwrap_or_default().display()));
    let write = || {
        let mut file = fs::File::create(&part)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|cause| {
        let _ = fs::remove_file(&part);
        io(path, cause)
    })
}

/// Brings the names in a folder to disk, where a system can do that.
pub(crate) fn sync_folder(folder: &Path) {
    let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
}
