//! ggml's block formats, brought to one unpacked form.
//!
//! A quantised row is a sequence of blocks (layouts: the head of each format's file). Whatever the packing,
//! every format here means
//!
//! ```text
//! x[i] = scale[g] · (q[i] − offset) + min[g],      g = i / group
//! ```
//!
//! with one unsigned byte `q[i]` per element in natural order, an `offset` that is a constant of the format,
//! and one f32 `scale` (and, for some, one f32 `min`) per group of 16 or 32 elements. A format knows
//! packing twice: [`Format::unpack`] is the definition, `Interleaved` how kernels read sixteen rows at once, for all
//! instruction sets. The kernels know no packing, a format knows no kernel. To add one: a layout
//! in `tangelo_core::DType`, a file here, and its name in `for_formats`.
//!
//! The product is exact in f32: an f16 has 11 significant bits, a block scale and a code together at most 12
//! (Q6_K: 7 + 5), and f32 holds 24. So `+ min` is the only rounding, and evaluating with or without a fused
//! multiply-add gives the same bits. They are the bits of the `gguf` Python package's `dequantize`
//! (`fixtures/gguf_blocks`).
//!
//! Formats without minima (`has_min` false) are evaluated without `+ min`: adding a zero would turn −0 into
//! +0.

mod bits;
mod fit;
pub(crate) mod interleaved;
mod iq4_nl;
mod k_scales;
mod plain;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
#[cfg(test)]
mod tests;

use tangelo_core::DType;

use crate::dispatch::Simd;
pub(crate) use interleaved::Interleaved;
pub(crate) use {
    iq4_nl::Iq4Nl, q2_k::Q2K, q3_k::Q3K, q4_0::Q4_0, q4_1::Q4_1, q4_k::Q4K, q5_0::Q5_0, q5_1::Q5_1,
    q5_k::Q5K, q6_k::Q6K, q8_0::Q8_0,
};

/// Unpacks whole blocks: `src` has n blocks of [`DType::block_bytes`], `q` n · [`DType::block_len`] bytes,
/// `scale` and `min` one element per group of [`Format::group`] elements.
///
/// `min` is written only by formats with [`Format::has_min`]; the others leave it alone and it may be empty.
/// If the lengths disagree, the blocks that fit in all of them are unpacked. This is the definition of a format; the
/// kernels read blocks through `Interleaved`, which must agree with it.
pub type Unpack = fn(src: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]);

/// What the kernels need to know of a block format.
#[derive(Debug)]
pub struct Format {
    /// The type this describes.
    pub dtype: DType,
    /// Elements that share a scale: 16 or 32, a divisor of the block length.
    pub group: usize,
    /// Subtracted from every code.
    pub offset: u8,
    /// Whether groups have a minimum.
    pub has_min: bool,
    /// The largest code that can occur, whatever the bytes (so that integer kernels can rule out saturation).
    pub q_max: u8,
    /// Offsets of the f16 fields of a block; all else is words of four bytes.
    pub halves: &'static [usize],
    /// Offset of a word that holds one bit per element, bit i that of element i, if the format has one.
    pub bit_plane: Option<usize>,
    /// The elements of a block.
    pub unpack: Unpack,
    /// Rounds whole blocks of f32 (length a multiple of [`DType::block_len`]) to bytes of this format.
    ///
    /// Deterministic. Finite input gives finite scales: where a scale would overflow f16 it saturates at
    /// ±65504 and the codes clip. A NaN becomes some finite number, an infinity the end of its block's range.
    pub encode: fn(x: &[f32], out: &mut [u8]),
}

/// Expands to `$list!(…)` with every block format's type: what is made for each of them is made from this.
macro_rules! for_formats {
    ($list:ident) => {
        $list!(Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2K, Q3K, Q4K, Q5K, Q6K, Iq4Nl)
    };
}
pub(crate) use for_formats;

macro_rules! formats {
    ($($format:ident),*) => { &[$(&<$format as Interleaved>::FORMAT),*] };
}

/// Every block format.
pub static FORMATS: &[&Format] = for_formats!(formats);

/// The block format of a type; `None` for plain floats.
pub fn format(dtype: DType) -> Option<&'static Format> {
    FORMATS.iter().copied().find(|f| f.dtype == dtype)
}

/// A row whose stored size and element count do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// The element count is not a whole number of blocks.
    #[error(
        "a {dtype} row holds whole blocks of {block_len} elements, but this one has {len}; \
         use a type whose block length divides it"
    )]
    NotWholeBlocks {
        /// The stored type.
        dtype: DType,
        /// Elements per block.
        block_len: usize,
        /// Elements in the row.
        len: usize,
    },
    /// The byte count is not that of the elements.
    #[error(
        "a {dtype} row of {len} elements takes {want} bytes, but the buffer has {got}; \
         size it with DType::row_bytes"
    )]
    Bytes {
        /// The stored type.
        dtype: DType,
        /// Elements in the row.
        len: usize,
        /// Bytes expected.
        want: usize,
        /// Bytes found.
        got: usize,
    },
}

/// Decodes a row of any type to f32.
///
/// `src`: [`DType::row_bytes`]`(out.len())` bytes. `level` picks the implementation for plain
/// floats; the result does not depend on it, except for the payload of a NaN.
pub fn dequantize_row(level: Simd, dtype: DType, src: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    check(dtype, src.len(), out.len())?;
    match format(dtype) {
        Some(format) => dequantize_blocks(format, src, out),
        None => plain::decode(level, dtype, src, out),
    }
    Ok(())
}

/// Rounds a row of f32 to any type.
///
/// `out`: [`DType::row_bytes`]`(x.len())` bytes. Plain floats round to nearest even; for block formats see
/// [`Format::encode`].
pub fn encode_row(dtype: DType, x: &[f32], out: &mut [u8]) -> Result<(), QuantError> {
    check(dtype, out.len(), x.len())?;
    match format(dtype) {
        Some(format) => (format.encode)(x, out),
        None => plain::encode(dtype, x, out),
    }
    Ok(())
}

/// [`dequantize_row`] for plain floats whose sizes are known to match: what the matmul's inner loop calls.
pub(crate) fn widen(level: Simd, dtype: DType, src: &[u8], out: &mut [f32]) {
    plain::decode(level, dtype, src, out);
}

fn check(dtype: DType, got: usize, len: usize) -> Result<(), QuantError> {
    let Some(want) = dtype.row_bytes(len) else {
        return Err(QuantError::NotWholeBlocks { dtype, block_len: dtype.block_len(), len });
    };
    if got != want {
        return Err(QuantError::Bytes { dtype, len, want, got });
    }
    Ok(())
}

/// Elements unpacked at a time on the stack: a multiple of every block length.
const TILE: usize = 256;
/// Groups in a tile, at the smallest group size.
const TILE_GROUPS: usize = TILE / 16;

/// `src` and `out` hold the same number of whole blocks.
fn dequantize_blocks(format: &Format, src: &[u8], out: &mut [f32]) {
    let tile_bytes = TILE / format.dtype.block_len() * format.dtype.block_bytes();
    let (mut q, mut scale, mut min) = ([0u8; TILE], [0f32; TILE_GROUPS], [0f32; TILE_GROUPS]);
    for (src, out) in src.chunks(tile_bytes).zip(out.chunks_mut(TILE)) {
        (format.unpack)(src, &mut q[..out.len()], &mut scale, &mut min);
        for (g, out) in out.chunks_mut(format.group).enumerate() {
            for (out, &q) in out.iter_mut().zip(&q[g * format.group..]) {
                *out = scale[g] * (i32::from(q) - i32::from(format.offset)) as f32;
            }
            if format.has_min {
                out.iter_mut().for_each(|out| *out += min[g]);
            }
        }
    }
}
