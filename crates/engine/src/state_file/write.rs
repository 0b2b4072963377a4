//! Writing: the hash stands before the data, so the data is walked twice.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest as _, Sha256};
use tangelo_model::{Model, StateTensor};
use tangelo_ops::attention::Elements;

use super::{CONVERTED_AT_ONCE, FORMAT, Spec, VERSION, hash_metadata, hex, layout};
use crate::atomic;
use crate::error::{Error, Result};
use crate::sequence::Sequence;

/// Writes the sequence to `path`, which gets its name only when the file is whole. `template` is kept with it.
///
/// # Errors
/// [`crate::Error::WrongModel`] if `model` did not make the sequence, [`crate::Error::Io`] if the file cannot be
/// written; an existing file is still there then.
pub fn save(sequence: &Sequence, model: &Model, template: Option<&str>, path: &Path) -> Result<()> {
    sequence.check_model(model)?;
    let parts = sequence.state().tensors(model.config());
    let mut metadata = metadata(sequence, model, template);
    let mut hasher = Sha256::new();
    hash_metadata(&mut hasher, &metadata);
    let hashed = for_each_chunk(sequence, &parts, &mut |bytes| {
        hasher.update(bytes);
        Ok(())
    });
    hashed.map_err(|cause| Error::Io { path: path.to_path_buf(), action: "written", cause })?;
    metadata.insert("sha256".to_string(), hex(&hasher.finalize()));
    let specs = layout(model, sequence.position(), sequence.logits().is_some());
    atomic::write(path, |out| {
        let header = header(metadata, &specs)?;
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for_each_chunk(sequence, &parts, &mut |bytes| out.write_all(bytes))
    })
}

fn metadata(sequence: &Sequence, model: &Model, template: Option<&str>) -> HashMap<String, String> {
    let mut metadata: HashMap<String, String> = [
        ("format", FORMAT.to_string()),
        ("version", VERSION.to_string()),
        ("model", hex(&model.fingerprint())),
        ("position", sequence.position().to_string()),
        ("kv", model.kv_type().to_string()),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into();
    metadata.extend(template.map(|t| ("template".to_string(), t.to_string())));
    metadata
}

/// The JSON header, padded with spaces so that the data is aligned to eight bytes, as the format asks.
fn header(metadata: HashMap<String, String>, specs: &[Spec]) -> io::Result<Vec<u8>> {
    let mut end = 0;
    let mut tensors = Vec::with_capacity(specs.len());
    for spec in specs {
        let start = end;
        end += spec.num_bytes().ok_or(io::Error::other("a state larger than memory"))?;
        let info = TensorInfo { dtype: spec.dtype, shape: spec.shape.clone(), data_offsets: (start, end) };
        tensors.push((spec.name.clone(), info));
    }
    let metadata = Metadata::new(Some(metadata), tensors).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

/// Gives the bytes of all tensors to `take`, in the order of [`layout`], little endian.
fn for_each_chunk(sequence: &Sequence, parts: &[StateTensor], take: &mut Take<'_>) -> io::Result<()> {
    for_each_word(sequence.tokens(), |t| t.to_le_bytes(), take)?;
    for_each_word(sequence.logits().unwrap_or_default(), |x| x.to_le_bytes(), take)?;
    parts.iter().try_for_each(|part| match &part.data {
        Elements::F32(data) => for_each_word(data, |x| x.to_le_bytes(), take),
        Elements::F16(data) => for_each_word(data, |bits| bits.to_le_bytes(), take),
    })
}

type Take<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

fn for_each_word<T: Copy, const BYTES: usize>(
    words: &[T],
    to_bytes: impl Fn(T) -> [u8; BYTES],
    take: &mut Take<'_>,
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CONVERTED_AT_ONCE.min(words.len()) * BYTES);
    for chunk in words.chunks(CONVERTED_AT_ONCE) {
        bytes.clear();
        chunk.iter().for_each(|&word| bytes.extend_from_slice(&to_bytes(word)));
        take(&bytes)?;
    }
    Ok(())
}
