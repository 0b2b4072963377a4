//! The gradient of [`super::rms_norm_gated`].
//!
//! ```text
//! u[i] = y[i] · silu(z[i]);   g[i] = dout[i] · w[i];   m = (laned sum of fma(g[i], u[i], ·)) / width · r²
//! du[i] = r · (g[i] − m · u[i]);   dy[i] = du[i] · silu(z[i]);   dz[i] = du[i] · y[i] · silu'(z[i])
//! dw[i] = fma(dout[i], u[i] · r, dw[i]) for one row after the other
//! ```

use crate::device::{Cx, Mat, SharedRows, View};
use crate::lanes::{LANES, Lanes, Plain, load_at, over_lanes, store_at};
use crate::math::{dsilu_lanes, silu_lanes};

/// What one group of one row is fed and makes, all of the width of the group.
struct Group<'a> {
    y: &'a [f32],
    z: &'a [f32],
    w: &'a [f32],
    dout: &'a [f32],
    eps: f32,
    dy: &'a mut [f32],
    dz: &'a mut [f32],
    /// u · r.
    normed: &'a mut [f32],
}

type Kernel = unsafe fn(group: Group<'_>);

over_lanes! {
    /// Best first.
    static IMPLS: Kernel = group_backward(group: Group<'_>), group_backward::<Plain>
}

/// Some columns of a row: `dw` ← fma(dout, normed, dw).
type Columns = unsafe fn(normed: &[f32], dout: &[f32], dw: &mut [f32]);

over_lanes! {
    /// Best first.
    static COLUMNS: Columns = columns(normed: &[f32], dout: &[f32], dw: &mut [f32]), columns::<Plain>
}

/// Groups, and columns, worth a thread of their own.
const PER_PART: usize = 64;

/// Returns dy and writes dz to the columns of z in `dz`; adds to `dw`.
///
/// # Shapes
/// `y`, `z`, `dout` and the result (l, i), `dz` (l, at least i) of which the first i columns are written, `weight` and `dw`
/// (i).
///
/// # Panics
/// If the shapes do not agree.
pub fn rms_norm_gated_backward(
    cx: &Cx,
    [y, z, dout]: [View<'_>; 3],
    weight: &[f32],
    num_groups: usize,
    eps: f32,
    dz: &mut Mat,
    dw: &mut [f32],
) -> Mat {
    let (l, i) = (y.rows(), y.cols());
    let all_agree = [z, dout].iter().all(|x| (x.rows(), x.cols()) == (l, i));
    assert!(all_agree && dz.rows() == l && dz.cols() >= i, "rms_norm_gated_backward: shapes");
    assert!(
        weight.len() == i && dw.len() == i && i.is_multiple_of(num_groups),
        "rms_norm_gated_backward: {i}"
    );
    let width = i / num_groups;
    let (mut dy, mut normed) = (cx.mat(l, i), cx.mat(l, i));
    {
        let (mut dy, mut dz, mut normed) = (dy.view_mut(), dz.view_mut(), normed.view_mut());
        let (dy, dz, normed, kernel) = (dy.share(), dz.share(), normed.share(), cx.choose(IMPLS));
        cx.run_ranges(l * num_groups, PER_PART, &|parts| {
            for part in parts {
                let (r, g) = (part / num_groups, part % num_groups);
                let cols = g * width..(g + 1) * width;
                // SAFETY: each group of a row belongs to one part; `choose` returns what this machine can run.
                unsafe {
                    kernel(Group {
                        y: &y.row(r)[cols.clone()],
                        z: &z.row(r)[cols.clone()],
                        w: &weight[cols.clone()],
                        dout: &dout.row(r)[cols.clone()],
                        eps,
                        dy: dy.part(r, cols.clone()),
                        dz: dz.part(r, cols.clone()),
                        normed: normed.part(r, cols),
                    });
                }
            }
        });
    }
    let (dw, kernel, normed) = (SharedRows::new(dw, i), cx.choose(COLUMNS), normed.view());
    cx.run_ranges(i, PER_PART, &|columns| {
        // SAFETY: each column belongs to one part; `choose` returns what this machine can run.
        unsafe {
            let dw = dw.part(0, columns.clone());
            for t in 0..l {
                kernel(&normed.row(t)[columns.clone()], &dout.row(t)[columns.clone()], dw);
            }
        }
    });
    dy
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn group_backward<V: Lanes>(group: Group<'_>) {
    let Group { y, z, w, dout, eps, dy, dz, normed } = group;
    let width = y.len();
    // SAFETY: the caller vouches for the instruction set; slices bound every access.
    unsafe {
        let (mut squares, mut dot) = (V::splat(0.0), V::splat(0.0));
        for at in (0..width).step_by(LANES) {
            let u = load_at::<V>(y, at).mul(silu_lanes(load_at::<V>(z, at)));
            squares = u.fma(u, squares);
            dot = load_at::<V>(dout, at).mul(load_at::<V>(w, at)).fma(u, dot);
        }
        let r = 1.0 / (squares.fold_add() / width as f32 + eps).sqrt();
        let m = V::splat(-(dot.fold_add() / width as f32 * r * r));
        for at in (0..width).step_by(LANES) {
            let (y, z) = (load_at::<V>(y, at), load_at::<V>(z, at));
            let silu = silu_lanes(z);
            let u = y.mul(silu);
            let g = load_at::<V>(dout, at).mul(load_at::<V>(w, at));
            let du = u.fma(m, g).mul(V::splat(r));
            store_at(du.mul(silu), dy, at);
            store_at(du.mul(y).mul(dsilu_lanes(z)), dz, at);
            store_at(u.mul(V::splat(r)), normed, at);
        }
    }
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn columns<V: Lanes>(normed: &[f32], dout: &[f32], dw: &mut [f32]) {
    // SAFETY: the caller vouches for the instruction set; slices bound every access.
    unsafe {
        for at in (0..dw.len()).step_by(LANES) {
            let product = load_at::<V>(dout, at).fma(load_at::<V>(normed, at), load_at::<V>(dw, at));
            store_at(product, dw, at);
        }
    }
}
