//! Reads the header of a GGUF file: a pure function from bytes to metadata and a checked tensor directory.
//!
//! After [`parse`] has returned, every tensor is known to lie inside the file, aligned, with the size that its
//! type and shape imply, and no two tensors share a byte. Memory stays in proportion to the header: counts
//! are compared with the bytes that are left before anything is reserved.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::HashSet;
use std::ops::Range;

use tangelo_core::DType;
use tangelo_core::limits::{
    GGUF_ARRAY_DEPTH_MAX, GGUF_ARRAY_LEN_MAX, GGUF_METADATA_MAX, GGUF_STRING_BYTES_MAX, TENSORS_MAX,
};

use super::metadata::Metadata;
use super::types::dtype_from_number;
use super::value::{Array, Strings, Value, ValueType};
use super::{ALIGNMENT_DEFAULT, ALIGNMENT_KEY, MAGIC};
use crate::error::{Error, Result, shown};
use crate::tensor::storage_bytes;

/// Most dimensions of a ggml tensor (`GGML_MAX_DIMS`).
const DIMS_MAX: u32 = 4;
/// Least bytes of a key-value pair: key length, type, a one-byte value.
const PAIR_BYTES_MIN: usize = 8 + 4 + 1;
/// Least bytes of a directory entry: name length, dimension count, type, offset.
const TENSOR_BYTES_MIN: usize = 8 + 4 + 4 + 8;

/// A parsed header.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// 2 or 3.
    pub version: u32,
    /// Alignment of tensor data in bytes, a power of two.
    pub alignment: usize,
    /// Key-value pairs.
    pub metadata: Metadata,
    /// Tensor directory in file order.
    pub tensors: Vec<TensorInfo>,
}

/// An entry of the tensor directory.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// GGUF name, such as `blk.0.ssm_in.weight`.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Row-major shape (the reverse of the order in the file).
    pub shape: Vec<usize>,
    /// Bytes of the tensor, from the start of the file.
    pub range: Range<usize>,
}

/// Parses a whole GGUF file; of the tensor data only the length matters.
///
/// # Errors
/// [`Error::Gguf`] with the offset of what is malformed, [`Error::TooLarge`] for counts above the limits,
/// [`Error::UnsupportedDType`] for tensor types this program cannot decode.
pub fn parse(file: &[u8]) -> Result<Gguf> {
    let mut cursor = Cursor { file, at: 0 };
    let version = parse_version(&mut cursor)?;
    let num_tensors = cursor.count("the number of tensors", TENSORS_MAX)?;
    let num_pairs = cursor.count("the number of metadata entries", GGUF_METADATA_MAX)?;
    cursor.check_room(num_pairs, PAIR_BYTES_MIN, "metadata entries")?;
    let mut metadata = Metadata::default();
    for _ in 0..num_pairs {
        let at = cursor.at;
        let key = cursor.string()?;
        if metadata.get(key).is_some() {
            return Err(invalid(at, format!("metadata key `{}` appears twice", shown(key))));
        }
        let value = cursor.value()?;
        metadata.set(key, value);
    }
    let alignment = alignment(&metadata)?;
    cursor.check_room(num_tensors, TENSOR_BYTES_MIN, "tensors")?;
    let mut entries = Vec::with_capacity(num_tensors);
    for _ in 0..num_tensors {
        entries.push(cursor.tensor_entry()?);
    }
    let tensors = place(entries, cursor.at, alignment, file.len())?;
    Ok(Gguf { version, alignment, metadata, tensors })
}

fn parse_version(cursor: &mut Cursor) -> Result<u32> {
    let magic: [u8; 4] = cursor.array()?;
    if magic != MAGIC {
        return Err(invalid(0, format!("the file starts with {magic:02x?} instead of \"GGUF\"")));
    }
    let version = cursor.u32()?;
    match version {
        2 | 3 => Ok(version),
        // A small number in the other byte order.
        v if v.swap_bytes() <= 0xffff && v > 0xffff => {
            Err(invalid(4, "the file is big endian; convert it to little endian, the only order supported"))
        }
        v => Err(invalid(
            4,
            format!("version {v} is not supported; versions 2 and 3 are: convert the model again"),
        )),
    }
}

fn alignment(metadata: &Metadata) -> Result<usize> {
    match metadata.get_u32(ALIGNMENT_KEY)? {
        None => Ok(ALIGNMENT_DEFAULT),
        Some(n) if n.is_power_of_two() => Ok(n as usize),
        Some(n) => Err(Error::config(ALIGNMENT_KEY, format!("must be a power of two, found {n}"))),
    }
}

/// A directory entry as it stands in the file.
struct Entry {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    /// From the start of the tensor data.
    offset: u64,
    /// Where in the file the offset stands.
    at: usize,
}

/// Turns offsets into file ranges and checks that they are aligned, inside the file and disjoint.
fn place(
    entries: Vec<Entry>,
    header_end: usize,
    alignment: usize,
    file_len: usize,
) -> Result<Vec<TensorInfo>> {
    let mut tensors = Vec::with_capacity(entries.len());
    let mut names = HashSet::with_capacity(entries.len());
    // A file without tensors need not have the padding either.
    let data_start = header_end.checked_next_multiple_of(alignment);
    for Entry { name, dtype, shape, offset, at } in entries {
        if !names.insert(name.clone()) {
            return Err(invalid(at, format!("tensor `{}` appears twice", shown(&name))));
        }
        let Some(size) = storage_bytes(dtype, &shape) else {
            let problem = format!(
                "tensor `{}` of type {dtype} cannot have shape {shape:?}: rows must be whole blocks of {} and the size must fit in memory",
                shown(&name),
                dtype.block_len()
            );
            return Err(invalid(at, problem));
        };
        if !offset.is_multiple_of(alignment as u64) {
            let problem =
                format!("tensor `{}` at offset {offset} is not aligned to {alignment} bytes", shown(&name));
            return Err(invalid(at, problem));
        }
        let start = usize::try_from(offset).ok().and_then(|offset| data_start?.checked_add(offset));
        let range = start.and_then(|start| Some(start..start.checked_add(size)?));
        let Some(range) = range.filter(|range| range.end <= file_len) else {
            let problem = format!(
                "tensor `{}` of {size} bytes at offset {offset} ends beyond the file's {file_len} bytes: it is truncated, download it again",
                shown(&name)
            );
            return Err(invalid(at, problem));
        };
        tensors.push(TensorInfo { name, dtype, shape, range });
    }
    check_disjoint(&tensors)?;
    Ok(tensors)
}

fn check_disjoint(tensors: &[TensorInfo]) -> Result<()> {
    let mut by_start: Vec<&TensorInfo> = tensors.iter().collect();
    by_start.sort_by_key(|t| t.range.start);
    for pair in by_start.windows(2) {
        if let [a, b] = pair
            && a.range.end > b.range.start
        {
            let problem = format!("tensors `{}` and `{}` overlap", shown(&a.name), shown(&b.name));
            return Err(invalid(b.range.start, problem));
        }
    }
    Ok(())
}

fn invalid(offset: usize, problem: impl Into<String>) -> Error {
    Error::Gguf { offset, problem: problem.into() }
}

/// Reads little-endian values one after the other.
struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn remaining(&self) -> usize {
        self.file.len().saturating_sub(self.at)
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let taken = self.at.checked_add(n).and_then(|end| Some((self.file.get(self.at..end)?, end)));
        let Some((bytes, end)) = taken else {
            let problem = format!(
                "{n} more bytes are needed but {} are left: the file is truncated, download it again",
                self.remaining()
            );
            return Err(invalid(self.at, problem));
        };
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count that must not exceed `limit`.
    fn count(&mut self, what: &str, limit: u64) -> Result<usize> {
        let found = self.u64()?;
        match usize::try_from(found) {
            Ok(n) if found <= limit => Ok(n),
            _ => Err(Error::TooLarge {
                what: format!("{what} (byte {})", self.at.saturating_sub(8)),
                found,
                limit,
            }),
        }
    }

    /// Refuses `n` items that cannot fit into the rest of the file, before memory is reserved for them.
    fn check_room(&self, n: usize, item_bytes: usize, what: &str) -> Result<()> {
        if n.checked_mul(item_bytes).is_none_or(|bytes| bytes > self.remaining()) {
            let problem = format!(
                "{n} {what} are announced but {} bytes are left: the file is truncated or damaged",
                self.remaining()
            );
            return Err(invalid(self.at, problem));
        }
        Ok(())
    }

    fn string(&mut self) -> Result<&'a str> {
        let at = self.at;
        let n = self.count("the length of a string", GGUF_STRING_BYTES_MAX)?;
        std::str::from_utf8(self.bytes(n)?).map_err(|e| invalid(at, format!("a string is not UTF-8: {e}")))
    }

    fn bool(&mut self) -> Result<bool> {
        let at = self.at;
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [n] => Err(invalid(at, format!("a bool is {n}, not 0 or 1"))),
        }
    }

    fn value_type(&mut self) -> Result<ValueType> {
        let at = self.at;
        let number = self.u32()?;
        ValueType::from_number(number)
            .ok_or_else(|| invalid(at, format!("unknown metadata value type {number}")))
    }

    fn value(&mut self) -> Result<Value> {
        Ok(match self.value_type()? {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.array()?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.array()?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.array()?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.array()?)),
            ValueType::U32 => Value::U32(self.u32()?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.array()?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.array()?)),
            ValueType::Bool => Value::Bool(self.bool()?),
            ValueType::String => Value::String(self.string()?.to_string()),
            ValueType::Array => Value::Array(self.array_value(1)?),
            ValueType::U64 => Value::U64(self.u64()?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.array()?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.array()?)),
        })
    }

    fn array_value(&mut self, depth: usize) -> Result<Array> {
        let at = self.at;
        if depth > GGUF_ARRAY_DEPTH_MAX {
            return Err(invalid(at, format!("arrays are nested deeper than {GGUF_ARRAY_DEPTH_MAX} levels")));
        }
        let element = self.value_type()?;
        let n = self.count("the length of an array", GGUF_ARRAY_LEN_MAX)?;
        Ok(match element {
            ValueType::U8 => Array::U8(self.numbers(n, u8::from_le_bytes)?),
            ValueType::I8 => Array::I8(self.numbers(n, i8::from_le_bytes)?),
            ValueType::U16 => Array::U16(self.numbers(n, u16::from_le_bytes)?),
            ValueType::I16 => Array::I16(self.numbers(n, i16::from_le_bytes)?),
            ValueType::U32 => Array::U32(self.numbers(n, u32::from_le_bytes)?),
            ValueType::I32 => Array::I32(self.numbers(n, i32::from_le_bytes)?),
            ValueType::F32 => Array::F32(self.numbers(n, f32::from_le_bytes)?),
            ValueType::U64 => Array::U64(self.numbers(n, u64::from_le_bytes)?),
            ValueType::I64 => Array::I64(self.numbers(n, i64::from_le_bytes)?),
            ValueType::F64 => Array::F64(self.numbers(n, f64::from_le_bytes)?),
            ValueType::Bool => {
                self.check_room(n, 1, "array elements")?;
                Array::Bool((0..n).map(|_| self.bool()).collect::<Result<_>>()?)
            }
            ValueType::String => {
                self.check_room(n, 8, "strings")?;
                let mut strings = Strings::default();
                for _ in 0..n {
                    strings.push(self.string()?);
                }
                Array::String(strings)
            }
            ValueType::Array => {
                // Element type and length of each.
                self.check_room(n, 4 + 8, "arrays")?;
                Array::Array(
                    (0..n).map(|_| self.array_value(depth.saturating_add(1))).collect::<Result<_>>()?,
                )
            }
        })
    }

    fn numbers<T, const N: usize>(&mut self, n: usize, read: fn([u8; N]) -> T) -> Result<Vec<T>> {
        self.check_room(n, N, "array elements")?;
        let bytes = self.bytes(n.saturating_mul(N))?;
        Ok(bytes.as_chunks().0.iter().map(|&chunk| read(chunk)).collect())
    }

    fn tensor_entry(&mut self) -> Result<Entry> {
        let name = self.string()?.to_string();
        let at = self.at;
        let num_dims = self.u32()?;
        if num_dims > DIMS_MAX {
            let problem = format!(
                "tensor `{}` has {num_dims} dimensions; at most {DIMS_MAX} are possible",
                shown(&name)
            );
            return Err(invalid(at, problem));
        }
        let mut shape = Vec::with_capacity(num_dims as usize);
        for _ in 0..num_dims {
            match usize::try_from(self.u64()?) {
                Ok(d @ 1..) => shape.push(d),
                _ => {
                    return Err(invalid(
                        at,
                        format!("tensor `{}` has an impossible dimension", shown(&name)),
                    ));
                }
            }
        }
        shape.reverse();
        let number = self.u32()?;
        let dtype = dtype_from_number(number)
            .map_err(|found| Error::UnsupportedDType { name: shown(&name), found })?;
        let at = self.at;
        let offset = self.u64()?;
        Ok(Entry { name, dtype, shape, offset, at })
    }
}
