//! The gradient of [`super::rms_norm`].
//!
//! ```text
//! g[i] = dy[i] · w[i];   m = (laned sum of fma(g[i], x[i], ·)) / d · r²
//! dx[i] = r · (g[i] − m · x[i]);   dw[i] = fma(dy[i], x[i] · r, dw[i]) for one row after the other
//! ```

use crate::device::{Cx, Mat, SharedRows, View};
use crate::lanes::{LANES, Lanes, Plain, load_at, over_lanes, store_at};

/// One row: `x`, `w`, `dy` and `dx` of the same length, and ε; returns r in `scale`.
type Row = unsafe fn(x: &[f32], w: &[f32], dy: &[f32], eps: f32, dx: &mut [f32], scale: &mut f32);

over_lanes! {
    /// Best first.
    static ROWS: Row = row(x: &[f32], w: &[f32], dy: &[f32], eps: f32, dx: &mut [f32], scale: &mut f32), row::<Plain>
}

/// Some columns of a row: `dw` ← fma(dy, x · r, dw).
type Columns = unsafe fn(x: &[f32], dy: &[f32], scale: f32, dw: &mut [f32]);

over_lanes! {
    /// Best first.
    static COLUMNS: Columns = columns(x: &[f32], dy: &[f32], scale: f32, dw: &mut [f32]), columns::<Plain>
}

/// Rows, and columns, worth a thread of their own.
const PER_PART: usize = 64;

/// Returns dx, and adds to `dw`.
///
/// # Shapes
/// `x`, `dy` and the result (l, d), `weight` and `dw` (d).
///
/// # Panics
/// If the shapes do not agree.
pub fn rms_norm_backward(
    cx: &Cx,
    x: View<'_>,
    weight: &[f32],
    eps: f32,
    dy: View<'_>,
    dw: &mut [f32],
) -> Mat {
    let (l, d) = (x.rows(), x.cols());
    assert_eq!((l, d), (dy.rows(), dy.cols()), "rms_norm_backward: shapes of x and dy");
    assert!(weight.len() == d && dw.len() == d, "rms_norm_backward: widths");
    let (mut dx, mut scales) = (cx.mat(l, d), cx.mat(l, 1));
    {
        let (mut dx, mut scales) = (dx.view_mut(), scales.view_mut());
        let (dx, scales, row) = (dx.share(), scales.share(), cx.choose(ROWS));
        cx.run_ranges(l, PER_PART, &|rows| {
            for r in rows {
                // SAFETY: each row belongs to one part; `choose` returns what this machine can run.
                unsafe {
                    row(x.row(r), weight, dy.row(r), eps, dx.part(r, 0..d), &mut scales.part(r, 0..1)[0]);
                }
            }
        });
    }
    add_weight_gradient(cx, x, scales.data(), dy, dw);
    dx
}

/// dw[i] ← fma(dy[t, i], x[t, i] · scales[t], dw[i]) for t increasing.
fn add_weight_gradient(cx: &Cx, x: View<'_>, scales: &[f32], dy: View<'_>, dw: &mut [f32]) {
    let d = dw.len();
    let (dw, kernel) = (SharedRows::new(dw, d), cx.choose(COLUMNS));
    cx.run_ranges(d, PER_PART, &|columns| {
        // SAFETY: each column belongs to one part; `choose` returns what this machine can run.
        unsafe {
            let dw = dw.part(0, columns.clone());
            for (t, scale) in scales.iter().enumerate() {
                kernel(&x.row(t)[columns.clone()], &dy.row(t)[columns.clone()], *scale, dw);
            }
        }
    });
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn row<V: Lanes>(x: &[f32], w: &[f32], dy: &[f32], eps: f32, dx: &mut [f32], scale: &mut f32) {
    let d = x.len();
    // SAFETY: the caller vouches for the instruction set; slices bound every access.
    unsafe {
        let (mut squares, mut dot) = (V::splat(0.0), V::splat(0.0));
        for at in (0..d).step_by(LANES) {
            let x = load_at::<V>(x, at);
            squares = x.fma(x, squares);
            dot = load_at::<V>(dy, at).mul(load_at::<V>(w, at)).fma(x, dot);
        }
        let r = 1.0 / (squares.fold_add() / d as f32 + eps).sqrt();
        let m = V::splat(-(dot.fold_add() / d as f32 * r * r));
        for at in (0..d).step_by(LANES) {
            let g = load_at::<V>(dy, at).mul(load_at::<V>(w, at));
            store_at(load_at::<V>(x, at).fma(m, g).mul(V::splat(r)), dx, at);
        }
        *scale = r;
    }
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn columns<V: Lanes>(x: &[f32], dy: &[f32], scale: f32, dw: &mut [f32]) {
    // SAFETY: the caller vouches for the instruction set; slices bound every access.
    unsafe {
        for at in (0..dw.len()).step_by(LANES) {
            let x = load_at::<V>(x, at).mul(V::splat(scale));
            store_at(load_at::<V>(dy, at).fma(x, load_at::<V>(dw, at)), dw, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_gradient, on_every_simd};

    #[test]
    fn gradients_are_central_differences() {
        on_every_simd(|cx, rng| {
            for d in [3, 16, 100] {
                let (l, eps) = (70, 1e-5);
                let (x, w, dy) = (rng.uniform(l * d, 2.0), rng.uniform(d, 1.0), rng.uniform(l * d, 1.0));
                let f = |x: &[f64], w: &[f64]| {
                    let rows = x.chunks_exact(d).zip(dy.chunks_exact(d));
                    rows.map(|(x, dy)| {
                        let r = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / d as f64 + eps).sqrt();
                        (0..d).map(|i| x[i] * r * w[i] * f64::from(dy[i])).sum::<f64>()
                    })
                    .sum::<f64>()
                };
                let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
                let mut dw = vec![0.0; d];
                let (as_x, as_dy) = (Mat::from_vec(l, d, x.clone()), Mat::from_vec(l, d, dy.clone()));
                let dx = rms_norm_backward(cx, as_x.view(), &w, eps as f32, as_dy.view(), &mut dw);
                assert_gradient(|x| f(x, &wide(&w)), &x, dx.data(), "dx");
                assert_gradient(|w| f(&wide(&x), w), &w, &dw, "dw");
            }
        });
    }
}
