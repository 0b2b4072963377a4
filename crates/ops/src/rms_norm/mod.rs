//! Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv 1910.07467).
//!
//! ```text
//! y[i] = (x[i] · r) · w[i],  r = 1 / √(S / d + ε),  S = laned sum of fma(x[i], x[i], ·)
//! ```

mod backward;
mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

pub use backward::rms_norm_backward;

use crate::device::{Cx, Mat, Vector, View};
use crate::elementwise::add;
use crate::lanes::{LANES, Lanes, load_at, over_lanes, store_at};

/// One row: `x`, `w` and `out` of the same length, and ε.
type Kernel = unsafe fn(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]);

over_lanes! {
    /// Best first.
    pub(crate) static IMPLS: Kernel = row(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]), reference::row
}

/// Rows worth a thread of their own.
const ROWS_PER_PART: usize = 8;

/// Normalises each row of `x` and multiplies by `weight`.
///
/// # Shapes
/// `x` (l, d), `weight` (d), result (l, d).
///
/// # Panics
/// If `weight` is not as long as the rows of `x`.
pub fn rms_norm(cx: &Cx, x: View<'_>, weight: &Vector, eps: f32) -> Mat {
    assert_eq!(x.cols(), weight.len(), "rms_norm: width of x and of the weight");
    let rows = x.rows();
    if let Some(x) = x.device() {
        return cuda::rms_norm(x, rows, weight, eps);
    }
    let mut out = cx.mat(x.rows(), x.cols());
    let (mut view, row) = (out.view_mut(), cx.choose(IMPLS));
    let shared = view.share();
    cx.run_ranges(x.rows(), ROWS_PER_PART, &|rows| {
        for r in rows {
            // SAFETY: each row belongs to one part; `choose` returns what this machine can run.
            unsafe { row(x.row(r), weight, eps, shared.part(r, 0..x.cols())) }
        }
    });
    out
}

/// x ← x + y, and then [`rms_norm`] of that: the step from one block of a network to the next.
///
/// # Shapes
/// `x` and `y` (l, d), `weight` (d), result (l, d).
///
/// # Panics
/// If the shapes do not agree.
pub fn add_rms_norm(cx: &Cx, x: &mut Mat, y: &Mat, weight: &Vector, eps: f32) -> Mat {
    if let Some(device) = x.view().device() {
        assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "add_rms_norm: shapes");
        assert_eq!(x.cols(), weight.len(), "add_rms_norm: width of x and of the weight");
        return cuda::add_rms_norm(device, y, weight, eps);
    }
    add(cx, x, y);
    rms_norm(cx, x.view(), weight, eps)
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn row<V: Lanes>(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let d = x.len();
    // SAFETY: the caller vouches for the instruction set; slices bound every access.
    unsafe {
        let mut squares = V::splat(0.0);
        for at in (0..d).step_by(LANES) {
            let x = load_at::<V>(x, at);
            squares = x.fma(x, squares);
        }
        let r = V::splat(1.0 / (squares.fold_add() / d as f32 + eps).sqrt());
        for at in (0..d).step_by(LANES) {
            let y = load_at::<V>(x, at).mul(r).mul(load_at::<V>(w, at));
            store_at(y, out, at);
        }
    }
}
