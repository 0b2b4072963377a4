//! The gated, grouped norm of Mamba-2: gate first, then normalise each group
//! (Dao & Gu 2024, arXiv 2405.21060, section 7; `norm_before_gate = False`).
//!
//! ```text
//! u[i] = y[i] · silu(z[i]);  out[i] = (u[i] · r) · w[i],  r = 1 / √(S / w + ε) over the group of i,
//! S = laned sum of fma(u[i], u[i], ·) with lanes counted from the start of the group, w = width of a group.
//! ```

mod backward;
mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

pub use backward::rms_norm_gated_backward;

use crate::device::{Cx, Mat, Vector, View};
use crate::lanes::{LANES, Lanes, load_at, over_lanes, store_at};
use crate::math::silu_lanes;

/// One group: `y`, `z`, `w` and `out` of the same length, and ε.
type Kernel = unsafe fn(y: &[f32], z: &[f32], w: &[f32], eps: f32, out: &mut [f32]);

over_lanes! {
    /// Best first.
    pub(crate) static IMPLS: Kernel =
        group(y: &[f32], z: &[f32], w: &[f32], eps: f32, out: &mut [f32]), reference::group
}

/// Gates `y` by `silu(z)`, normalises each of `num_groups` groups of columns and multiplies by `weight`.
///
/// # Shapes
/// `y` (l, i), `z` (l, i), `weight` (i), result (l, i); i is a multiple of `num_groups`.
///
/// # Panics
/// If the shapes do not agree.
pub fn rms_norm_gated(
    cx: &Cx,
    y: View<'_>,
    z: View<'_>,
    weight: &Vector,
    num_groups: usize,
    eps: f32,
) -> Mat {
    let (l, i) = (y.rows(), y.cols());
    assert_eq!((l, i), (z.rows(), z.cols()), "rms_norm_gated: shapes of y and z");
    assert!(weight.len() == i && i.is_multiple_of(num_groups), "rms_norm_gated: {num_groups} groups of {i}");
    let width = i / num_groups;
    if let (Some(y), Some(z)) = (y.device(), z.device()) {
        return cuda::rms_norm_gated(y, z, l, weight, num_groups, eps);
    }
    let mut out = cx.mat(l, i);
    let (mut view, group) = (out.view_mut(), cx.choose(IMPLS));
    let shared = view.share();
    cx.run_ranges(l * num_groups, num_groups.div_ceil(2), &|parts| {
        for part in parts {
            let (r, g) = (part / num_groups, part % num_groups);
            let cols = g * width..(g + 1) * width;
            let (y, z, w) = (&y.row(r)[cols.clone()], &z.row(r)[cols.clone()], &weight[cols.clone()]);
            // SAFETY: each group of a row belongs to one part; `choose` returns what this machine can run.
            unsafe { group(y, z, w, eps, shared.part(r, cols)) }
        }
    });
    out
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn group<V: Lanes>(y: &[f32], z: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let width = y.len();
    // SAFETY: the caller vouches for the instruction set; slices bound every access.
    unsafe {
        let mut squares = V::splat(0.0);
        for at in (0..width).step_by(LANES) {
            let u = load_at::<V>(y, at).mul(silu_lanes(load_at::<V>(z, at)));
            squares = u.fma(u, squares);
            store_at(u, out, at);
        }
        let r = V::splat(1.0 / (squares.fold_add() / width as f32 + eps).sqrt());
        for at in (0..width).step_by(LANES) {
            let scaled = load_at::<V>(out, at).mul(r).mul(load_at::<V>(w, at));
            store_at(scaled, out, at);
        }
    }
}
