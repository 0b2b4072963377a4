//! Linear layers: y = x · Wᵀ (+ bias) for every stored type.
//!
//! **Plain floats** (F32, F16, BF16, F8_E4M3): one f32 accumulator per output, from +0,
//! `s = fma(x[m, k], w[r, k], s)` for k increasing; then `s · scale` if the weight has a scale (ModelOpt's
//! `weight_scale`), then `+ bias[r]`. Activations stay f32.
//!
//! BF16 and F8_E4M3 on a device are the exception, for the sake of its tensor cores; there bits are those of the device.
//! x is the exact sum of three bf16, a large, a middle and a small one. Per segment of 512 k two accumulators start at
//! +0, and for every 16 k, increasing, one takes the products with the small and then with the middle part, the other
//! those with the large part, in one tensor-core instruction each. Large plus small is the sum of the segment; the
//! segments are added up in increasing order, from +0; then scale and bias as above. So all sizes of a product still
//! give the same bits on one device. They are within 1e-6 · Σ |x·w| of the host's where an instruction rounds its sum
//! once, as the emulator's does; tensor cores may cut off what is below an f32 and be a few times that away.
//!
//! **Block formats**: activations are rounded by [`crate::quantise_rows`], weights are in the unpacked form of
//! [`crate::quant`] (`scale·(q − offset) + min` per group). One f32 accumulator per output, from +0; for each
//! group g of 32 or 16 elements, increasing, with d and Σ of the activations of that group:
//!
//! ```text
//! n = Σ (qw[k] − offset) · qx[k]                 exact, in integers
//! s = fma(f32(n), scale[r, g] · d, s)            the product rounded first
//! s = fma(min[r, g], d · f32(Σ qx), s)           only formats with minima
//! ```
//!
//! then `+ bias[r]`. Nothing in this depends on how many rows of x there are, on tiling, on layout or on the
//! width of vectors, so one token and a chunk of tokens give the same bits (principle P1).
//!
//! Weights are multiplied in [`Packed`] form, sixteen rows side by side, so that the fast twins keep an output per lane
//! and no sum goes across lanes. Two ways lead there (`integer.rs`): for a few tokens, codes go from memory to the
//! multiplier; for more, a stretch of a few panels is unpacked into the first-level cache and met by every token.

mod cuda;
mod cuda_dense;
mod dense;
mod integer;
mod kernels;
mod output;
mod packed;
mod product;
pub mod reference;
#[cfg(test)]
mod tests;

pub use packed::{PackError, Packed};
pub use product::{Factor, add_product, product};

use tangelo_core::DType;

use crate::device::{Cx, Mat, Vector, View};
use crate::dispatch::Simd;
use crate::quant;
use output::Output;

/// A weight matrix as it is stored: `rows` outputs by `cols` inputs, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    dtype: DType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    bytes: &'a [u8],
    scale: f32,
}

/// A weight whose bytes are not what its shape needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The width is not a whole number of blocks.
    #[error("rows of {cols} elements cannot be stored as {dtype}: its blocks hold {}", dtype.block_len())]
    NotWholeBlocks {
        /// Stored type.
        dtype: DType,
        /// Elements per row.
        cols: usize,
    },
    /// Too few or too many bytes.
    #[error("a {rows} x {cols} {dtype} matrix takes {want} bytes, found {got}")]
    Bytes {
        /// Stored type.
        dtype: DType,
        /// Outputs.
        rows: usize,
        /// Inputs.
        cols: usize,
        /// Bytes the shape needs.
        want: usize,
        /// Bytes found.
        got: usize,
    },
}

impl<'a> Weight<'a> {
    /// A view of `bytes` as `rows` rows of `cols` elements, each multiplied by `scale`.
    pub fn new(
        dtype: DType,
        rows: usize,
        cols: usize,
        bytes: &'a [u8],
        scale: f32,
    ) -> Result<Weight<'a>, WeightError> {
        let row_bytes = dtype.row_bytes(cols).ok_or(WeightError::NotWholeBlocks { dtype, cols })?;
        let want = row_bytes.saturating_mul(rows);
        if want != bytes.len() {
            return Err(WeightError::Bytes { dtype, rows, cols, want, got: bytes.len() });
        }
        Ok(Weight { dtype, rows, cols, row_bytes, bytes, scale })
    }

    /// Stored type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// What every element is multiplied by.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The bytes of row `r`.
    pub fn row(&self, r: usize) -> &'a [u8] {
        &self.bytes[r * self.row_bytes..(r + 1) * self.row_bytes]
    }
}

/// y = x · Wᵀ · scale + bias.
///
/// # Shapes
/// `x` (m, cols of `w`), `bias` (rows of `w`), result (m, rows of `w`).
///
/// # Panics
/// If the shapes do not agree.
pub fn matmul(cx: &Cx, x: View<'_>, w: &Packed, bias: Option<&Vector>) -> Mat {
    assert_eq!(x.cols(), w.cols(), "matmul: width of x and of the weight");
    assert!(bias.is_none_or(|b| b.len() == w.rows()), "matmul: one bias per output");
    if let Some(device) = x.device() {
        return cuda::matmul(device, x.rows(), w, bias);
    }
    let mut y = cx.mat(x.rows(), w.rows());
    if x.rows() == 0 {
        return y; // A prompt whose logits nobody asked for.
    }
    let mut view = y.view_mut();
    let out = Output { y: &view.share(), scale: w.scale(), bias: bias.map(|bias| &bias[..]) };
    match (quant::format(w.dtype()), cx.simd()) {
        (None, Simd::Reference) => reference::dense(cx, x, w, &out),
        (None, _) => dense::matmul(cx, x, w, &out),
        (Some(format), _) => integer::matmul(cx, x, w, format, &out),
    }
    y
}
