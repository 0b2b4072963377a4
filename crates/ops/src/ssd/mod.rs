//! The state-space recurrence of Mamba-2 (Dao & Gu 2024, arXiv 2405.21060, equation 2 with the discretisation of
//! section 2), token by token.
//!
//! Legend: l tokens · h heads · p head width · g groups sharing B and C (head h uses group h / (h / g)) · n state
//! width · A = −exp(A_log).
//!
//! ```text
//! Δ = clamp(softplus(dt[t, h] + dt_bias[h]), limit);  a = exp(Δ · A[h]);  u = Δ · x[t, h, p]
//! S[h, p, i] = fma(u, B[t, g, i], a · S[h, p, i])
//! y[t, h, p] = fma(D[h], x[t, h, p], laned sum over i of fma(C[t, g, i], S[h, p, i], ·))
//! ```
//!
//! It is one or two percent of the arithmetic of a model, so the chunked form of the paper buys nothing here,
//! and the recurrence has no chunk whose boundary could show in the result.

pub mod reference;
#[cfg(test)]
mod tests;

use crate::device::{Cx, Mat, SharedRows, View, ViewMut};
use crate::lanes::{LANES, Lanes, load_at, over_lanes, store_at};
use crate::math::{exp, softplus};

/// Parameters of one recurrence; all vectors have one entry per head.
#[derive(Clone, Debug)]
pub struct Ssd {
    /// −exp(A_log).
    pub A: Vec<f32>,
    /// Skip connection.
    pub D: Vec<f32>,
    /// Added to dt before softplus.
    pub dt_bias: Vec<f32>,
    /// Bounds of Δ.
    pub dt_limit: (f32, f32),
    /// Number of groups sharing B and C.
    pub num_groups: usize,
}

/// What one sequence feeds the recurrence.
#[derive(Clone, Copy, Debug)]
pub struct SsdInput<'a> {
    /// (l, h·p).
    pub x: View<'a>,
    /// (l, h), before bias and softplus.
    pub dt: View<'a>,
    /// (l, g·n).
    pub B: View<'a>,
    /// (l, g·n).
    pub C: View<'a>,
}

/// One head over all tokens of a call.
pub(crate) struct Head<'a> {
    input: SsdInput<'a>,
    /// (l, 2h): Δ of every head, then exp(Δ·A) of every head.
    steps: View<'a>,
    head: usize,
    /// First column of B and C.
    group: usize,
    /// D of this head.
    skip: f32,
    /// Head width.
    p: usize,
    /// State width.
    n: usize,
    /// (l, h·p); this head writes its own columns.
    y: &'a SharedRows<'a>,
}

/// Advances the `state` (p, n) of one head over all tokens, writing its columns of y.
type Kernel = unsafe fn(head: &Head<'_>, state: &mut [f32]);

over_lanes! {
    /// Best first.
    pub(crate) static IMPLS: Kernel = run_head(head: &Head<'_>, state: &mut [f32]), reference::head
}

impl Ssd {
    /// Number of heads.
    pub fn num_heads(&self) -> usize {
        self.A.len()
    }

    /// Δ and exp(Δ·A) of one head and token.
    fn step(&self, head: usize, dt: f32) -> (f32, f32) {
        let (low, high) = self.dt_limit;
        let delta = softplus(dt + self.dt_bias[head]);
        let delta = if delta < low { low } else { delta };
        let delta = if delta > high { high } else { delta };
        (delta, exp(delta * self.A[head]))
    }

    /// Δ and exp(Δ·A) of all tokens and heads, (l, 2h).
    fn steps(&self, cx: &Cx, dt: View<'_>) -> Mat {
        let (l, h) = (dt.rows(), self.num_heads());
        let mut steps = cx.mat(l, 2 * h);
        let mut view = steps.view_mut();
        let shared = view.share();
        cx.run_ranges(l, 16, &|tokens| {
            for t in tokens {
                // SAFETY: each row belongs to one part.
                let row = unsafe { shared.part(t, 0..2 * h) };
                for head in 0..h {
                    (row[head], row[h + head]) = self.step(head, dt.row(t)[head]);
                }
            }
        });
        steps
    }
}

/// Runs the recurrence over the tokens of one sequence, in order, advancing `state`.
///
/// # Shapes
/// `state` (h, p, n), `y` (l, h·p); those of `input` as documented there.
///
/// # Panics
/// If the shapes do not agree.
pub fn ssd(cx: &Cx, ssd: &Ssd, input: SsdInput<'_>, state: &mut [f32], y: &mut ViewMut<'_>) {
    let (l, inner, h) = (input.x.rows(), input.x.cols(), ssd.num_heads());
    let n = input.B.cols() / ssd.num_groups;
    assert!(
        inner.is_multiple_of(h) && input.dt.cols() == h && input.dt.rows() == l,
        "ssd: {h} heads of {inner}"
    );
    assert!(input.B.rows() == l && input.C.rows() == l && input.C.cols() == input.B.cols(), "ssd: B and C");
    assert!(y.rows() == l && y.cols() == inner && state.len() == inner * n, "ssd: y and state");
    assert!(h.is_multiple_of(ssd.num_groups), "ssd: {} groups of {h} heads", ssd.num_groups);
    let p = inner / h;
    let steps = ssd.steps(cx, input.dt);
    let kernel = cx.choose(IMPLS);
    let y = y.share();
    let mut states = ViewMut::from_slice(state, h, p * n);
    let states = states.share();
    cx.run(h, &|head| {
        let group = head / (h / ssd.num_groups) * n;
        let job = Head { input, steps: steps.view(), head, group, skip: ssd.D[head], p, n, y: &y };
        // SAFETY: the state and the columns of y of a head belong to one part; `choose` returns what this
        // machine can run.
        unsafe { kernel(&job, states.part(head, 0..p * n)) }
    });
}

/// Rows of the state stay in registers over all tokens, so the loop over tokens is the inner one.
///
/// # Safety
/// The instruction set of `V` must be available, and no other thread may use the columns of y of this head.
#[inline(always)]
unsafe fn run_head<V: Lanes>(job: &Head<'_>, state: &mut [f32]) {
    for (p, row) in state.chunks_exact_mut(job.n).enumerate() {
        // SAFETY: as above.
        unsafe {
            match job.n {
                128 => run_row::<V, 8>(job, p, row),
                64 => run_row::<V, 4>(job, p, row),
                16 => run_row::<V, 1>(job, p, row),
                256 => run_row::<V, 16>(job, p, row),
                _ => run_row_of_any_width::<V>(job, p, row),
            }
        }
    }
}

/// A row of exactly `VECTORS` times sixteen entries.
///
/// # Safety
/// As [`run_head`].
#[inline(always)]
unsafe fn run_row<V: Lanes, const VECTORS: usize>(job: &Head<'_>, p: usize, row: &mut [f32]) {
    assert_eq!(row.len(), VECTORS * LANES);
    let (h, column) = (job.steps.cols() / 2, job.head * job.p + p);
    let group = job.group..job.group + job.n;
    // SAFETY: slices bound every access (B and C hold `VECTORS · 16` entries from `group.start`); the caller
    // vouches for the rest.
    unsafe {
        let mut state = [V::splat(0.0); VECTORS];
        for (i, s) in state.iter_mut().enumerate() {
            *s = V::load(row.as_ptr().add(i * LANES));
        }
        for t in 0..job.input.x.rows() {
            let steps = job.steps.row(t);
            let x = job.input.x.row(t)[column];
            let (u, a) = (V::splat(steps[job.head] * x), V::splat(steps[h + job.head]));
            let (b, c) = (&job.input.B.row(t)[group.clone()], &job.input.C.row(t)[group.clone()]);
            let mut sum = V::splat(0.0);
            for (i, s) in state.iter_mut().enumerate() {
                *s = u.fma(V::load(b.as_ptr().add(i * LANES)), a.mul(*s));
                sum = V::load(c.as_ptr().add(i * LANES)).fma(*s, sum);
            }
            job.y.part(t, column..column + 1)[0] = job.skip.mul_add(x, sum.fold_add());
        }
        for (i, s) in state.iter().enumerate() {
            s.store(row.as_mut_ptr().add(i * LANES));
        }
    }
}

/// # Safety
/// As [`run_head`].
#[inline(always)]
unsafe fn run_row_of_any_width<V: Lanes>(job: &Head<'_>, p: usize, row: &mut [f32]) {
    let (h, column) = (job.steps.cols() / 2, job.head * job.p + p);
    let group = job.group..job.group + job.n;
    for t in 0..job.input.x.rows() {
        let steps = job.steps.row(t);
        let x = job.input.x.row(t)[column];
        let (b, c) = (&job.input.B.row(t)[group.clone()], &job.input.C.row(t)[group.clone()]);
        // SAFETY: slices bound every access; the caller vouches for the rest.
        unsafe {
            let (u, a) = (V::splat(steps[job.head] * x), V::splat(steps[h + job.head]));
            let mut sum = V::splat(0.0);
            for at in (0..row.len()).step_by(LANES) {
                let s = u.fma(load_at::<V>(b, at), a.mul(load_at::<V>(row, at)));
                sum = load_at::<V>(c, at).fma(s, sum);
                store_at(s, row, at);
            }
            job.y.part(t, column..column + 1)[0] = job.skip.mul_add(x, sum.fold_add());
        }
    }
}
