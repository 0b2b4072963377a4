//! A tensor as it lies in a file: element type, shape and bytes.
//!
//! Shapes are row-major with the fastest dimension last, whatever the container says (GGUF lists them the
//! other way round). Blocks of quantised types run along the last dimension. All numbers are little endian.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use tangelo_core::{DType, float};

use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// A tensor whose bytes are still those of its file. Cloning is cheap.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// Element type.
    pub dtype: DType,
    /// Row-major shape, last dimension fastest; `[]` is a scalar.
    pub shape: Vec<usize>,
    /// Exactly [`storage_bytes`] bytes. Not necessarily aligned.
    pub bytes: Bytes,
}

/// Number of elements of a shape; `None` on overflow.
pub fn num_elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Bytes that `shape` elements of `dtype` occupy; `None` if rows are not whole blocks or the size overflows.
pub fn storage_bytes(dtype: DType, shape: &[usize]) -> Option<usize> {
    let (last, outer) = match shape.split_last() {
        Some((last, outer)) => (*last, outer),
        None => (1, shape),
    };
    num_elements(outer)?.checked_mul(dtype.row_bytes(last)?)
}

impl StoredTensor {
    /// Checks that `bytes` has the size that `dtype` and `shape` imply.
    ///
    /// # Errors
    /// [`Error::TensorSize`] when it has not, or when a row is not a whole number of blocks.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<StoredTensor> {
        if storage_bytes(dtype, &shape) != Some(bytes.len()) {
            return Err(Error::TensorSize { dtype, shape, bytes: bytes.len() });
        }
        Ok(StoredTensor { dtype, shape, bytes })
    }

    /// Number of elements.
    pub fn num_elements(&self) -> usize {
        // The constructor has checked the product; a shape edited afterwards saturates.
        num_elements(&self.shape).unwrap_or(usize::MAX)
    }

    /// All elements as f32, row-major (exact for every float type).
    ///
    /// # Errors
    /// [`Error::NotFloat`] for quantised types: decoding their blocks is an operation, not a file format.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let bytes: &[u8] = &self.bytes;
        Ok(match self.dtype {
            DType::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            DType::F16 => {
                bytes.as_chunks().0.iter().map(|&b| float::f16_to_f32(u16::from_le_bytes(b))).collect()
            }
            DType::BF16 => {
                bytes.as_chunks().0.iter().map(|&b| float::bf16_to_f32(u16::from_le_bytes(b))).collect()
            }
            DType::F8E4M3 => bytes.iter().map(|&b| float::f8e4m3_to_f32(b)).collect(),
            dtype => return Err(Error::NotFloat { dtype }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert_eq!(storage_bytes(DType::F32, &[]), Some(4));
        assert_eq!(storage_bytes(DType::Q8_0, &[3, 64]), Some(3 * 2 * 34));
        assert_eq!(storage_bytes(DType::Q8_0, &[64, 3]), None, "blocks run along the last dimension");
        assert_eq!(storage_bytes(DType::F32, &[usize::MAX, 2]), None);
        assert_eq!(storage_bytes(DType::BF16, &[0, 5]), Some(0));
        let short = StoredTensor::new(DType::F32, vec![2, 2], vec![0; 15].into()).unwrap_err();
        assert_eq!(short.to_string(), "a tensor of type F32 and shape [2, 2] cannot be made of 15 bytes");
    }

    #[test]
    fn floats_widen_exactly() {
        let tensor = |dtype, bytes: Vec<u8>, n| StoredTensor::new(dtype, vec![n], bytes.into()).unwrap();
        assert_eq!(tensor(DType::F32, 1.5f32.to_le_bytes().to_vec(), 1).to_f32().unwrap(), [1.5]);
        assert_eq!(tensor(DType::F16, vec![0x00, 0x3c, 0x00, 0xc0], 2).to_f32().unwrap(), [1.0, -2.0]);
        assert_eq!(tensor(DType::BF16, vec![0x80, 0x3f, 0x00, 0xc0], 2).to_f32().unwrap(), [1.0, -2.0]);
        assert_eq!(tensor(DType::F8E4M3, vec![0x38, 0x7e], 2).to_f32().unwrap(), [1.0, 448.0]);
        let quantised = tensor(DType::Q8_0, vec![0; 34], 32).to_f32().unwrap_err();
        assert!(quantised.to_string().contains("Q8_0"), "{quantised}");
    }
}
