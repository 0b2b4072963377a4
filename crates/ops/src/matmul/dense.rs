//! Plain floats: panels widened to f32 in the first-level cache, then multiplied with every row of x.

use super::integer::write;
use super::output::Output;
use super::packed::Packed;
use crate::device::{Cx, View};
use crate::lanes::{LANES, Lanes, over_lanes};
use crate::quant;
use std::ops::Range;

/// What a kernel is told about the piece of x a panel meets.
#[derive(Clone)]
struct Piece {
    /// Rows of x.
    tokens: Range<usize>,
    /// First element of k.
    from: usize,
    /// Number of elements.
    len: usize,
}

/// `panel` (len, 16).
type Kernel = unsafe fn(panel: &[f32], x: View<'_>, piece: Piece, sums: &mut [[f32; LANES]]);

over_lanes! {
    /// Best first.
    static KERNELS: Kernel =
        kernel(panel: &[f32], x: View<'_>, piece: Piece, sums: &mut [[f32; LANES]]), plain
}

/// Elements of k widened at a time (16 KiB).
const STEP: usize = 256;
/// Tokens whose sums are held at once (16 KiB).
const TOKENS: usize = 252;
/// Panels per part at most.
const PANELS_PER_PART: usize = 8;

/// See [`super::matmul`].
pub(super) fn matmul(cx: &Cx, x: View<'_>, w: &Packed, out: &Output<'_>) {
    let (m, kernel) = (x.rows(), cx.choose(KERNELS));
    let row_bytes = LANES * w.dtype().block_bytes();
    let grain = (w.panels() / (8 * cx.threads())).clamp(1, PANELS_PER_PART);
    cx.run_ranges(w.panels(), grain, &|panels| {
        let mut wide = [0.0; STEP * LANES];
        let mut sums = [[0.0; LANES]; TOKENS];
        for p in panels {
            for first in (0..m).step_by(TOKENS) {
                let tokens = first..m.min(first + TOKENS);
                let sums = &mut sums[..tokens.len()];
                sums.fill([0.0; LANES]);
                for from in (0..w.cols()).step_by(STEP) {
                    let len = STEP.min(w.cols() - from);
                    let panel = &mut wide[..len * LANES];
                    quant::widen(
                        cx.simd(),
                        w.dtype(),
                        &w.panel(p)[from * row_bytes..][..len * row_bytes],
                        panel,
                    );
                    // SAFETY: `choose` returns what this machine can run.
                    unsafe { kernel(panel, x, Piece { tokens: tokens.clone(), from, len }, sums) };
                }
                // SAFETY: a panel belongs to one part.
                unsafe { write(out, w, p, tokens, sums) };
            }
        }
    });
}

/// Rows of x taken together: their accumulators hide the latency of a multiply-add and share the panel's loads.
const ROWS: usize = 6;

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn kernel<V: Lanes>(panel: &[f32], x: View<'_>, piece: Piece, sums: &mut [[f32; LANES]]) {
    let (mut m, end) = (piece.tokens.start, piece.tokens.end);
    let first = m;
    let range = piece.from..piece.from + piece.len;
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        while m + ROWS <= end {
            let x: [&[f32]; ROWS] = std::array::from_fn(|i| &x.row(m + i)[range.clone()]);
            block::<V, ROWS>(panel, x, &mut sums[m - first..]);
            m += ROWS;
        }
        while m < end {
            block::<V, 1>(panel, [&x.row(m)[range.clone()]], &mut sums[m - first..]);
            m += 1;
        }
    }
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn block<V: Lanes, const M: usize>(panel: &[f32], x: [&[f32]; M], sums: &mut [[f32; LANES]]) {
    let len = panel.len() / LANES;
    assert!(x.iter().all(|x| x.len() == len) && sums.len() >= M);
    // SAFETY: the panel holds len · 16 elements and each x len (checked above); the caller vouches for the rest.
    unsafe {
        let mut s: [V; M] = std::array::from_fn(|i| V::load(sums[i].as_ptr()));
        for k in 0..len {
            let w = V::load(panel.as_ptr().add(k * LANES));
            for i in 0..M {
                s[i] = V::splat(*x[i].get_unchecked(k)).fma(w, s[i]);
            }
        }
        for i in 0..M {
            s[i].store(sums[i].as_mut_ptr());
        }
    }
}

/// The same without vectors.
fn plain(panel: &[f32], x: View<'_>, piece: Piece, sums: &mut [[f32; LANES]]) {
    for (m, sums) in piece.tokens.zip(sums) {
        for (w, x) in panel.chunks_exact(LANES).zip(&x.row(m)[piece.from..]) {
            for r in 0..LANES {
                sums[r] = x.mul_add(w[r], sums[r]);
            }
        }
    }
}
