//! Writes GGUF version 3 as a stream: header first, then one tensor after the other, so that a file of any
//! size is written with the memory of its largest piece.

use std::collections::HashSet;
use std::io::Write;

use tangelo_core::DType;

use super::metadata::Metadata;
use super::types::number_of_dtype;
use super::value::{Array, Value};
use super::{ALIGNMENT_DEFAULT, ALIGNMENT_KEY, MAGIC};
use crate::error::{Error, Result};
use crate::tensor::storage_bytes;
use crate::write::write_exactly;

const VERSION: u32 = 3;

/// A tensor that a file will hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    /// GGUF name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Row-major shape.
    pub shape: Vec<usize>,
}

/// A GGUF file being written. Tensors must follow in the order of the plan, each with all its bytes.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    alignment: u64,
    /// Name and size of the tensors still to come, in order.
    pending: std::vec::IntoIter<(String, u64)>,
}

impl<W: Write> Writer<W> {
    /// Writes the header: metadata and the directory of all tensors.
    ///
    /// # Errors
    /// [`Error::WrongTensorWritten`] for a tensor that GGUF cannot hold or that is listed twice,
    /// [`Error::Config`] for an impossible alignment, [`Error::Write`] when the stream fails.
    pub fn new(mut out: W, metadata: &Metadata, tensors: Vec<TensorPlan>) -> Result<Writer<W>> {
        let alignment = match metadata.get_u32(ALIGNMENT_KEY)? {
            None => ALIGNMENT_DEFAULT as u64,
            Some(n) if n.is_power_of_two() => u64::from(n),
            Some(n) => {
                return Err(Error::config(ALIGNMENT_KEY, format!("must be a power of two, found {n}")));
            }
        };
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata.iter() {
            put_string(&mut header, key);
            header.extend(value.value_type().number().to_le_bytes());
            put_value(&mut header, value);
        }
        let mut pending = Vec::with_capacity(tensors.len());
        let mut names = HashSet::with_capacity(tensors.len());
        let mut offset = 0u64;
        for tensor in &tensors {
            let refuse = |problem: &str| Error::WrongTensorWritten {
                name: tensor.name.clone(),
                problem: problem.into(),
            };
            let size = storage_bytes(tensor.dtype, &tensor.shape)
                .ok_or_else(|| refuse("its rows are not whole blocks"))?;
            let number =
                number_of_dtype(tensor.dtype).ok_or_else(|| refuse("GGUF has no such element type"))?;
            if tensor.shape.len() > 4 || tensor.shape.contains(&0) {
                return Err(refuse("GGUF tensors have one to four dimensions, none of them zero"));
            }
            if !names.insert(tensor.name.as_str()) {
                return Err(refuse("it is listed twice"));
            }
            put_string(&mut header, &tensor.name);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|&d| header.extend((d as u64).to_le_bytes()));
            header.extend(number.to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset = (offset + size as u64).next_multiple_of(alignment);
            pending.push((tensor.name.clone(), size as u64));
        }
        header.resize((header.len() as u64).next_multiple_of(alignment) as usize, 0);
        out.write_all(&header).map_err(|cause| Error::Write { what: "the GGUF header".into(), cause })?;
        Ok(Writer { out, alignment, pending: pending.into_iter() })
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
        let refuse = |problem: String| Error::WrongTensorWritten { name: name.to_string(), problem };
        let Some((expected, size)) = self.pending.next() else {
            return Err(refuse("the header announces no further tensor".into()));
        };
        if expected != name {
            return Err(refuse(format!("the header announces `{expected}` here")));
        }
        write_exactly(&mut self.out, name, size, fill)?;
        let padding = size.next_multiple_of(self.alignment) - size;
        let zeros = vec![0; padding as usize];
        self.out.write_all(&zeros).map_err(|cause| Error::Write { what: format!("tensor `{name}`"), cause })
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
        self.out.flush().map_err(|cause| Error::Write { what: "the GGUF file".into(), cause })?;
        Ok(self.out)
    }
}

fn put_string(out: &mut Vec<u8>, string: &str) {
    out.extend((string.len() as u64).to_le_bytes());
    out.extend(string.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(x) => out.extend(x.to_le_bytes()),
        Value::I8(x) => out.extend(x.to_le_bytes()),
        Value::U16(x) => out.extend(x.to_le_bytes()),
        Value::I16(x) => out.extend(x.to_le_bytes()),
        Value::U32(x) => out.extend(x.to_le_bytes()),
        Value::I32(x) => out.extend(x.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::Bool(x) => out.push(u8::from(*x)),
        Value::String(x) => put_string(out, x),
        Value::Array(x) => put_array(out, x),
        Value::U64(x) => out.extend(x.to_le_bytes()),
        Value::I64(x) => out.extend(x.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.element_type().number().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::U16(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I16(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::U32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::F32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::Bool(v) => out.extend(v.iter().map(|&x| u8::from(x))),
        Array::String(v) => v.iter().for_each(|x| put_string(out, x)),
        Array::Array(v) => v.iter().for_each(|x| put_array(out, x)),
        Array::U64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::F64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::parse;

    fn plan(name: &str, dtype: DType, shape: &[usize]) -> TensorPlan {
        TensorPlan { name: name.into(), dtype, shape: shape.to_vec() }
    }

    fn every_value_type() -> Metadata {
        let nested = Array::Array(vec![Array::U8(vec![1]), Array::String(["é"].into_iter().collect())]);
        let values = [
            Value::U8(1),
            Value::I8(-1),
            Value::U16(2),
            Value::I16(-2),
            Value::U32(3),
            Value::I32(-3),
            Value::F32(0.5),
            Value::Bool(true),
            Value::String("text".into()),
            Value::U64(4),
            Value::I64(-4),
            Value::F64(0.25),
            Value::Array(Array::U8(vec![1, 2])),
            Value::Array(Array::I8(vec![-1])),
            Value::Array(Array::U16(vec![1])),
            Value::Array(Array::I16(vec![-1])),
            Value::Array(Array::U32(vec![1])),
            Value::Array(Array::I32(vec![-1])),
            Value::Array(Array::F32(vec![1.5])),
            Value::Array(Array::Bool(vec![true, false])),
            Value::Array(Array::U64(vec![1])),
            Value::Array(Array::I64(vec![-1])),
            Value::Array(Array::F64(vec![2.5])),
            Value::Array(Array::String(["a", "", "b"].into_iter().collect())),
            Value::Array(nested),
        ];
        values.into_iter().enumerate().map(|(i, v)| (format!("key.{i}"), v)).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for alignment in [None, Some(1), Some(64)] {
            let mut metadata = every_value_type();
            if let Some(n) = alignment {
                metadata.set(ALIGNMENT_KEY, Value::U32(n));
            }
            let tensors = vec![
                plan("a", DType::F32, &[3]),
                plan("b", DType::Q8_0, &[2, 32]),
                plan("c", DType::BF16, &[1, 1, 5]),
            ];
            let mut writer = Writer::new(Vec::new(), &metadata, tensors).unwrap();
            writer.tensor("a", |out| out.write_all(&[1; 12])).unwrap();
            writer.tensor("b", |out| (0..4).try_for_each(|_| out.write_all(&[2; 17]))).unwrap();
            writer.tensor("c", |out| out.write_all(&[3; 10])).unwrap();
            let file = writer.finish().unwrap();
            let gguf = parse(&file).unwrap();
            assert_eq!((gguf.version, gguf.alignment), (3, alignment.unwrap_or(32) as usize));
            assert_eq!(gguf.metadata, metadata);
            let read: Vec<_> =
                gguf.tensors.iter().map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice())).collect();
            assert_eq!(
                read,
                [("a", DType::F32, &[3][..]), ("b", DType::Q8_0, &[2, 32]), ("c", DType::BF16, &[1, 1, 5])]
            );
            for (tensor, byte) in gguf.tensors.iter().zip(1u8..) {
                assert!(file[tensor.range.clone()].iter().all(|&b| b == byte));
            }
        }
    }

    #[test]
    fn a_writer_keeps_its_word() {
        let start = |tensors| Writer::new(Vec::new(), &Metadata::default(), tensors);
        let one = || start(vec![plan("a", DType::F32, &[2])]).unwrap();
        let check = |result: Result<()>, expected: &str| {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(one().tensor("b", |_| Ok(())), "the header announces `a` here");
        check(one().tensor("a", |out| out.write_all(&[0; 7])), "1 of its 8 bytes were not written");
        check(one().tensor("a", |out| out.write_all(&[0; 9])), "more bytes than the header announces");
        check(one().finish().map(drop), "announced but never written");
        check(start(vec![plan("a", DType::F8E4M3, &[2])]).map(drop), "no such element type");
        check(start(vec![plan("a", DType::Q4K, &[128])]).map(drop), "not whole blocks");
        check(
            start(vec![plan("a", DType::F32, &[1]), plan("a", DType::F32, &[1])]).map(drop),
            "listed twice",
        );
    }
}
