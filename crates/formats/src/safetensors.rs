//! safetensors: a JSON header with dtype, shape and byte range of every tensor, then the bytes.
//!
//! ```text
//! header length u64, little endian | header: {"name": {"dtype", "shape", "data_offsets": [begin, end]}, …,
//! "__metadata__": {string: string}} | data; offsets count from here
//! ```
//!
//! Entries are read as the `safetensors` crate defines them. Its own whole-file reader is not used because
//! it silently drops repeated names and its size check can overflow; this one also names the tensor at fault.
//! As in the crate, ranges must follow one another without holes or overlaps and end at the end of the file.
//!
//! Element types that the program cannot compute with are accepted here (a file may hold more tensors than a
//! model needs) and refused when such a tensor is asked for.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::ops::Range;

use safetensors::tensor::{Dtype, TensorInfo as RawInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use tangelo_core::DType;
use tangelo_core::limits::{SAFETENSORS_HEADER_BYTES_MAX, TENSOR_DIMS_MAX, TENSORS_MAX};

use crate::error::{Error, Result, shown};
use crate::tensor::storage_bytes;
use crate::write::write_exactly;

/// Bytes of the header length.
const LENGTH_BYTES: usize = 8;
const METADATA_KEY: &str = "__metadata__";

/// A parsed header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Free-form strings that travel with the tensors.
    pub metadata: BTreeMap<String, String>,
    /// Tensors in the order of their bytes.
    pub tensors: Vec<TensorInfo>,
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Name as written.
    pub name: String,
    /// Element type, if it is one this program computes with.
    pub dtype: Option<DType>,
    /// Element type as the file spells it.
    pub dtype_name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Bytes of the tensor, from the start of the file.
    pub range: Range<usize>,
}

/// Parses the header of a file of `file_len` bytes that starts with `bytes` (which must reach to the end of
/// the header; the data need not be there).
///
/// # Errors
/// [`Error::Safetensors`] for malformed headers and ranges, [`Error::TooLarge`] above the limits.
pub fn parse_header(bytes: &[u8], file_len: usize) -> Result<Header> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(invalid(format!(
            "the file has {} bytes, too few even for the header length",
            bytes.len()
        )));
    };
    let header_len = u64::from_le_bytes(*length);
    let limit = SAFETENSORS_HEADER_BYTES_MAX as u64;
    if header_len > limit {
        return Err(Error::TooLarge {
            what: "the safetensors header length".into(),
            found: header_len,
            limit,
        });
    }
    let Some(text) = rest.get(..header_len as usize) else {
        let problem = format!(
            "it should have {header_len} bytes but {} are left: the file is truncated, download it again",
            rest.len()
        );
        return Err(invalid(problem));
    };
    let text = std::str::from_utf8(text).map_err(|e| invalid(format!("it is not UTF-8: {e}")))?;
    let raw: RawHeader = serde_json::from_str(text).map_err(|e| invalid(shown(&e.to_string())))?;
    let data_start = LENGTH_BYTES.saturating_add(header_len as usize);
    let tensors = place(raw.tensors, data_start, file_len)?;
    Ok(Header { metadata: raw.metadata, tensors })
}

/// Sorts by position, checks sizes and that the data is covered exactly, and makes ranges absolute.
fn place(mut raw: Vec<(String, RawInfo)>, data_start: usize, file_len: usize) -> Result<Vec<TensorInfo>> {
    raw.sort_by_key(|(_, info)| info.data_offsets);
    let data_len = file_len.saturating_sub(data_start);
    let mut tensors = Vec::with_capacity(raw.len());
    let mut expected_start = 0usize;
    for (name, info) in raw {
        let (start, end) = info.data_offsets;
        let refuse = |problem: String| Err(invalid(format!("tensor `{}` {problem}", shown(&name))));
        if info.shape.len() > TENSOR_DIMS_MAX {
            return refuse(format!(
                "has {} dimensions; at most {TENSOR_DIMS_MAX} are possible",
                info.shape.len()
            ));
        }
        if start != expected_start {
            return refuse(format!(
                "begins at byte {start} of the data where {expected_start} was expected: ranges overlap or leave a hole"
            ));
        }
        let size = num_bytes(info.dtype, &info.shape);
        if end.checked_sub(start).is_none_or(|n| Some(n) != size) {
            return refuse(format!(
                "has range {start}..{end}, which does not fit {:?} elements of shape {:?}",
                info.dtype, info.shape
            ));
        }
        if end > data_len {
            return refuse(format!(
                "ends at byte {end} of the data, but there are {data_len}: the file is truncated, download it again"
            ));
        }
        expected_start = end;
        // Both sums are at most `file_len`.
        let range = data_start.saturating_add(start)..data_start.saturating_add(end);
        let (dtype, dtype_name) = known_dtype(info.dtype);
        tensors.push(TensorInfo { name, dtype, dtype_name, shape: info.shape, range });
    }
    if expected_start != data_len {
        let problem = format!("its tensors cover {expected_start} bytes, but {data_len} follow the header");
        return Err(invalid(problem));
    }
    Ok(tensors)
}

fn num_bytes(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let bits = crate::tensor::num_elements(shape)?.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

fn known_dtype(dtype: Dtype) -> (Option<DType>, String) {
    let known = match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F8_E4M3 => Some(DType::F8E4M3),
        _ => None,
    };
    (known, format!("{dtype:?}"))
}

fn invalid(problem: impl Into<String>) -> Error {
    Error::Safetensors { problem: problem.into() }
}

/// The JSON object as it stands; unlike a map it notices repeated names.
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, RawInfo)>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawHeader, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader { metadata: BTreeMap::new(), tensors: Vec::new() };
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("`{}` appears twice", shown(&name))));
            }
            if names.len() as u64 > TENSORS_MAX {
                return Err(A::Error::custom(format!("more than {TENSORS_MAX} tensors")));
            }
            if name == METADATA_KEY {
                header.metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
            } else {
                header.tensors.push((name, map.next_value()?));
            }
        }
        Ok(header)
    }
}

/// A tensor that a file will hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    /// Name.
    pub name: String,
    /// Element type; one of F32, F16, BF16, F8_E4M3.
    pub dtype: DType,
    /// Row-major shape.
    pub shape: Vec<usize>,
}

/// A safetensors file being written as a stream: header first, then one tensor after the other.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    /// Name and size of the tensors still to come, in order.
    pending: std::vec::IntoIter<(String, u64)>,
}

impl<W: Write> Writer<W> {
    /// Writes the header. Files of mixed types should list the widest first, so that all are aligned.
    ///
    /// # Errors
    /// [`Error::WrongTensorWritten`] for a quantised type or a repeated name, [`Error::Write`] when the stream fails.
    pub fn new(
        mut out: W,
        metadata: &BTreeMap<String, String>,
        tensors: Vec<TensorPlan>,
    ) -> Result<Writer<W>> {
        let mut object = serde_json::Map::new();
        if !metadata.is_empty() {
            object.insert(METADATA_KEY.into(), serde_json::json!(metadata));
        }
        let mut pending = Vec::with_capacity(tensors.len());
        let mut offset = 0u64;
        for TensorPlan { name, dtype, shape } in tensors {
            let refuse =
                |problem: &str| Error::WrongTensorWritten { name: name.clone(), problem: problem.into() };
            if dtype.is_quantised() {
                return Err(refuse("safetensors has no such element type"));
            }
            let size = storage_bytes(dtype, &shape).ok_or_else(|| refuse("its size overflows"))? as u64;
            let end = offset.checked_add(size).ok_or_else(|| refuse("its size overflows"))?;
            let entry =
                serde_json::json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [offset, end]});
            if object.insert(name.clone(), entry).is_some() {
                return Err(refuse("the name is listed twice or reserved"));
            }
            offset = end;
            pending.push((name, size));
        }
        let mut text = serde_json::Value::Object(object).to_string();
        // The format pads the header with spaces so that the data starts at a multiple of eight.
        while !text.len().is_multiple_of(8) {
            text.push(' ');
        }
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.extend(text.into_bytes());
        out.write_all(&header)
            .map_err(|cause| Error::Write { what: "the safetensors header".into(), cause })?;
        Ok(Writer { out, pending: pending.into_iter() })
    }

    /// Writes the data of the next tensor: `fill` must write exactly its bytes.
    ///
    /// # Errors
    /// [`Error::WrongTensorWritten`] if `name` is not the next tensor of the plan or `fill` wrote too little,
    /// [`Error::Write`] if `fill` fails or writes too much.
    pub fn tensor(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        match self.pending.next() {
            Some((expected, size)) if expected == name => write_exactly(&mut self.out, name, size, fill),
            next => {
                let expected =
                    next.map_or("no further tensor".into(), |(expected, _)| format!("`{expected}`"));
                let problem = format!("the header announces {expected} here");
                Err(Error::WrongTensorWritten { name: name.to_string(), problem })
            }
        }
    }

    /// Checks that every tensor has been written, flushes and returns the stream.
    ///
    /// # Errors
    /// [`Error::WrongTensorWritten`] naming the first missing tensor, [`Error::Write`] when flushing fails.
    pub fn finish(mut self) -> Result<W> {
        if let Some((name, _)) = self.pending.next() {
            return Err(Error::WrongTensorWritten {
                name,
                problem: "it was announced but never written".into(),
            });
        }
        self.out.flush().map_err(|cause| Error::Write { what: "the safetensors file".into(), cause })?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, dtype: DType, shape: &[usize]) -> TensorPlan {
        TensorPlan { name: name.into(), dtype, shape: shape.to_vec() }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let metadata: BTreeMap<_, _> = [("format".to_string(), "pt".to_string())].into();
        let tensors = vec![
            plan("a", DType::F32, &[]),
            plan("b\"é", DType::BF16, &[2, 3]),
            plan("c", DType::F8E4M3, &[0]),
        ];
        let mut writer = Writer::new(Vec::new(), &metadata, tensors).unwrap();
        writer.tensor("a", |out| out.write_all(&[1; 4])).unwrap();
        writer.tensor("b\"é", |out| out.write_all(&[2; 12])).unwrap();
        writer.tensor("c", |_| Ok(())).unwrap();
        let file = writer.finish().unwrap();
        let header = parse_header(&file, file.len()).unwrap();
        assert_eq!(header.metadata, metadata);
        let b = header.tensors.iter().find(|t| t.name == "b\"é").unwrap();
        assert_eq!(
            (b.dtype, b.shape.as_slice(), &file[b.range.clone()]),
            (Some(DType::BF16), &[2, 3][..], &[2; 12][..])
        );
        // And by the crate itself.
        let theirs = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(theirs.tensor("b\"é").unwrap().data(), &[2; 12]);
        assert_eq!(theirs.tensor("a").unwrap().shape(), &[] as &[usize]);
    }

    #[test]
    fn a_writer_keeps_its_word() {
        let start = |tensors| Writer::new(Vec::new(), &BTreeMap::new(), tensors);
        let one = || start(vec![plan("a", DType::F32, &[2])]).unwrap();
        let check = |result: Result<()>, expected: &str| {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(one().tensor("b", |_| Ok(())), "the header announces `a` here");
        check(one().tensor("a", |out| out.write_all(&[0; 7])), "1 of its 8 bytes were not written");
        check(one().tensor("a", |out| out.write_all(&[0; 9])), "more bytes than the header announces");
        check(one().finish().map(drop), "announced but never written");
        check(start(vec![plan("a", DType::Q8_0, &[32])]).map(drop), "no such element type");
        check(
            start(vec![plan("a", DType::F32, &[1]), plan("a", DType::F32, &[1])]).map(drop),
            "listed twice",
        );
    }
}
