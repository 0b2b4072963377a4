//! Rounding activations to 8 bits per block of 32, for the integer matmul.
//!
//! ```text
//! M = max |x|;  d = M / 127;  q[i] = round(x[i] · (127 / M)), ties to even;  also Σ q over each half of the block
//! ```
//! A block whose M is below 2⁻¹⁰⁰ is zero (d = 0, q = 0). A block with an infinity or NaN has d = NaN, q = 0, so
//! that the row's results are NaN rather than plausible numbers.

#[cfg(target_arch = "x86_64")]
mod avx2;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::device::{Cx, SharedRows, View};
use crate::dispatch::{Impl, Simd};

/// Elements that share a scale.
pub const BLOCK: usize = 32;
/// Elements that share a sum.
pub const HALF: usize = 16;
/// Below this a block counts as zero (its reciprocal would overflow).
pub(crate) const TINY: f32 = f32::from_bits((127 - 100) << 23);

/// Rows of 8-bit activations.
#[derive(Debug)]
pub struct QuantisedRows {
    cols: usize,
    /// (rows, cols).
    q: Vec<i8>,
    /// (rows, cols / 32).
    d: Vec<f32>,
    /// (rows, cols / 16): sums of `q`.
    sum: Vec<i32>,
}

impl QuantisedRows {
    /// The codes of a row.
    pub fn q(&self, row: usize) -> &[i8] {
        &self.q[row * self.cols..(row + 1) * self.cols]
    }

    /// The scales of a row, one per [`BLOCK`].
    pub fn d(&self, row: usize) -> &[f32] {
        let n = self.cols / BLOCK;
        &self.d[row * n..(row + 1) * n]
    }

    /// The sums of codes of a row, one per [`HALF`].
    pub fn sum(&self, row: usize) -> &[i32] {
        let n = self.cols / HALF;
        &self.sum[row * n..(row + 1) * n]
    }
}

/// One row: `q` as long as `x`, `d` one per block, `sum` one per half block.
type Kernel = unsafe fn(x: &[f32], q: &mut [i8], d: &mut [f32], sum: &mut [i32]);

/// Best first. AVX-512 would change nothing: the pass is limited by memory.
pub(crate) static IMPLS: &[Impl<Kernel>] = &[
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::Avx2, run: avx2::row },
    Impl { simd: Simd::Reference, run: reference::row },
];

/// Rounds every row of `x` (l, k).
///
/// # Panics
/// If k is not a multiple of 32.
pub fn quantise_rows(cx: &Cx, x: View<'_>) -> QuantisedRows {
    let (rows, cols) = (x.rows(), x.cols());
    assert!(cols.is_multiple_of(BLOCK), "quantise_rows: {cols} is not a multiple of {BLOCK}");
    let mut out = QuantisedRows {
        cols,
        q: vec![0; rows * cols],
        d: vec![0.0; rows * cols / BLOCK],
        sum: vec![0; rows * cols / HALF],
    };
    let kernel = cx.choose(IMPLS);
    let (blocks, halves) = (cols / BLOCK, cols / HALF);
    let q = SharedRows::new(&mut out.q, cols);
    let d = SharedRows::new(&mut out.d, blocks);
    let sum = SharedRows::new(&mut out.sum, halves);
    cx.run(rows, &|row| {
        // SAFETY: a row belongs to one part; `choose` returns what this machine can run.
        unsafe {
            kernel(x.row(row), q.part(row, 0..cols), d.part(row, 0..blocks), sum.part(row, 0..halves));
        }
    });
    out
}
