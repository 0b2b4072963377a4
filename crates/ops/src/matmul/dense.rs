//! Plain floats: a panel of f32 times rows of x.

use super::panel::Piece;
use crate::device::View;
use crate::lanes::{LANES, Lanes, over_lanes};

/// `panel` (len, 16).
type Kernel = unsafe fn(panel: &[f32], x: View<'_>, piece: Piece, sums: &mut [[f32; LANES]]);

over_lanes! {
    /// Best first.
    pub(super) static KERNELS: Kernel =
        kernel(panel: &[f32], x: View<'_>, piece: Piece, sums: &mut [[f32; LANES]]), plain
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
