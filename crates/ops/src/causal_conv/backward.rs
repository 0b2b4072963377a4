//! The gradient of [`super::causal_conv_silu`] for sequences that begin with an empty state.
//!
//! ```text
//! s[t, c] = bias[c] + Σ_j w[j, c] · x[t − k + 1 + j, c];   ds[t, c] = dy[t, c] · silu'(s[t, c])
//! dx[t, c] = Σ_j fma(w[j, c], ds[t + k − 1 − j, c], ·), j decreasing, over the tokens of the sequence
//! dw[j, c] = fma(ds[t, c], x[t − k + 1 + j, c], dw[j, c]);   dbias[c] = dbias[c] + ds[t, c]   for t increasing
//! ```

use super::{Conv, TAPS_MAX};
use crate::device::{Cx, Mat, SharedRows, View};
use crate::lanes::{LANES, Lanes, Plain, load_at, over_lanes, store_at};
use crate::math::dsilu_lanes;
use std::ops::Range;

/// Sixteen channels, or fewer, of all sequences.
struct Job<'a> {
    conv: &'a Conv,
    x: View<'a>,
    dy: View<'a>,
    sequences: &'a [Range<usize>],
    channels: Range<usize>,
    dx: &'a SharedRows<'a>,
    /// (k, c), and its last row the bias': (k + 1, c).
    dw: &'a SharedRows<'a>,
    dbias: &'a SharedRows<'a>,
}

type Kernel = unsafe fn(job: &Job<'_>);

over_lanes! {
    /// Best first.
    static IMPLS: Kernel = run(job: &Job<'_>), run::<Plain>
}

/// Writes dx to the first c columns of `dx` that begin at `first`, and adds to `dw` and `dbias`. A sequence is a range of
/// rows.
///
/// # Shapes
/// `x` and `dy` (l, c), `dx` (l, at least first + c), `dw` (k, c), `dbias` (c).
///
/// # Panics
/// If the shapes do not agree.
pub fn causal_conv_silu_backward(
    cx: &Cx,
    [x, dy]: [View<'_>; 2],
    conv: &Conv,
    sequences: &[Range<usize>],
    (dx, first): (&mut Mat, usize),
    dw: &mut [f32],
    dbias: &mut [f32],
) {
    let (l, c, k) = (x.rows(), conv.channels(), conv.taps());
    assert!(x.cols() == c && dy.cols() == c && dy.rows() == l, "causal_conv_silu_backward: x and dy");
    assert!(dx.rows() == l && first + c <= dx.cols(), "causal_conv_silu_backward: dx");
    assert!(dw.len() == k * c && dbias.len() == c, "causal_conv_silu_backward: parameters");
    let mut dx = dx.view_mut();
    let dx = dx.share();
    let dx = dx.columns(first..first + c);
    let (dw, dbias, kernel) = (SharedRows::new(dw, c), SharedRows::new(dbias, c), cx.choose(IMPLS));
    cx.run_ranges(c, LANES, &|channels| {
        let job = Job { conv, x, dy, sequences, channels, dx: &dx, dw: &dw, dbias: &dbias };
        // SAFETY: each channel belongs to one part; `choose` returns what this machine can run.
        unsafe { kernel(&job) }
    });
}

/// # Safety
/// The instruction set of `V` must be available, and no other thread may use these channels of what is written.
#[inline(always)]
unsafe fn run<V: Lanes>(job: &Job<'_>) {
    // SAFETY: the caller vouches.
    unsafe {
        match job.conv.taps() {
            // What all models of the family have stays in registers.
            4 => taps::<V, 4>(job, 4),
            k => taps::<V, TAPS_MAX>(job, k),
        }
    }
}

/// For k taps, which are at most `K`.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn taps<V: Lanes, const K: usize>(job: &Job<'_>, k: usize) {
    let (c, channels) = (job.conv.channels(), &job.channels);
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        let zero = V::splat(0.0);
        let at = |row: usize| row * c + channels.start;
        let (mut w, mut dw) = ([zero; K], [zero; K]);
        for j in 0..k {
            w[j] = load_at::<V>(&job.conv.weight[at(j)..at(j) + channels.len()], 0);
            dw[j] = load_at::<V>(job.dw.part(j, channels.clone()), 0);
        }
        let bias = load_at::<V>(&job.conv.bias[channels.clone()], 0);
        let mut dbias = load_at::<V>(job.dbias.part(0, channels.clone()), 0);
        for rows in job.sequences {
            // The last k inputs, and the last k of ds, newest last.
            let (mut x, mut ds) = ([zero; K], [zero; K]);
            for t in rows.start..rows.end + k - 1 {
                (1..k).for_each(|j| ds[j - 1] = ds[j]);
                ds[k - 1] = zero;
                if t < rows.end {
                    (1..k).for_each(|j| x[j - 1] = x[j]);
                    x[k - 1] = load_at::<V>(&job.x.row(t)[channels.clone()], 0);
                    let s = (0..k).fold(bias, |s, j| w[j].fma(x[j], s));
                    let of_s = load_at::<V>(&job.dy.row(t)[channels.clone()], 0).mul(dsilu_lanes(s));
                    for j in 0..k {
                        dw[j] = of_s.fma(x[j], dw[j]);
                    }
                    dbias = dbias.add(of_s);
                    ds[k - 1] = of_s;
                }
                // The input of token t − k + 1 met tap j in token t − j.
                if let Some(first) = (t + 1).checked_sub(k).filter(|first| rows.contains(first)) {
                    let dx = (0..k).fold(zero, |dx, j| w[k - 1 - j].fma(ds[j], dx));
                    store_at(dx, job.dx.part(first, channels.clone()), 0);
                }
            }
        }
        for j in 0..k {
            store_at(dw[j], job.dw.part(j, channels.clone()), 0);
        }
        store_at(dbias, job.dbias.part(0, channels.clone()), 0);
    }
}
