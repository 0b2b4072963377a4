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
//!
//! For one token the time is that of reading and writing S. For many, a head takes four tokens at a time: sixteen
//! entries of a row of S are loaded, carried through the four and stored, while the four sums stay in registers. More
//! tokens at a time lose: their rows of B and C lie multiples of 4 KiB apart and drive each other out of the
//! first-level cache.

mod backward;
pub(crate) mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

pub use backward::{SsdGradients, ssd_backward};

use crate::device::{Cx, Mat, Place, SharedRows, Vector, View};
use crate::lanes::{LANES, Lanes, load_at, over_lanes, store_at};
use crate::math::{exp, softplus};
use crate::sequences::{DeviceSequence, address, run_sequences};
use std::ops::Range;

/// Tokens that a piece of a row of the state is carried through while it is in registers.
const TOKENS_PER_PASS: usize = 4;

/// Parameters of one recurrence; all vectors have one entry per head.
#[derive(Clone, Debug)]
pub struct Ssd {
    /// −exp(A_log).
    pub A: Vector,
    /// Skip connection.
    pub D: Vector,
    /// Added to dt before softplus.
    pub dt_bias: Vector,
    /// Bounds of Δ.
    pub dt_limit: (f32, f32),
    /// Number of groups sharing B and C.
    pub num_groups: usize,
}

/// What the recurrence is fed, the tokens of all sequences one after the other.
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

/// One head over all tokens of a sequence.
pub(crate) struct Head<'a> {
    ssd: &'a Ssd,
    input: SsdInput<'a>,
    /// Rows of input and y that are this sequence's.
    tokens: Range<usize>,
    head: usize,
    /// Columns of x and y: (p).
    columns: Range<usize>,
    /// Columns of B and C: (n).
    group: Range<usize>,
    /// (l, h·p).
    y: &'a SharedRows<'a>,
}

/// Advances the `state` (p, n) of one head over its tokens, writing its columns of y.
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
    #[inline(always)]
    fn step(&self, head: usize, dt: f32) -> (f32, f32) {
        let (low, high) = self.dt_limit;
        let delta = softplus(dt + self.dt_bias[head]);
        let delta = if delta < low { low } else { delta };
        let delta = if delta > high { high } else { delta };
        (delta, exp(delta * self.A[head]))
    }
}

/// Runs the recurrence over the tokens of each sequence, in order. A sequence is a range of rows of `input` and `y`
/// with its state, which is advanced. Everything lies in one place.
///
/// # Shapes
/// A state (h, p, n), `y` (l, h·p); those of `input` as documented there.
///
/// # Panics
/// If the shapes do not agree.
pub fn ssd<'a>(
    cx: &Cx,
    ssd: &Ssd,
    input: SsdInput<'_>,
    sequences: impl IntoIterator<Item = (Range<usize>, &'a mut Vector)>,
    y: &mut Mat,
) {
    let (l, inner, h) = (input.x.rows(), input.x.cols(), ssd.num_heads());
    let n = input.B.cols() / ssd.num_groups;
    assert!(
        inner.is_multiple_of(h) && input.dt.cols() == h && input.dt.rows() == l,
        "ssd: {h} heads of {inner}"
    );
    assert!(input.B.rows() == l && input.C.rows() == l && input.C.cols() == input.B.cols(), "ssd: B and C");
    assert!(y.rows() == l && y.cols() == inner, "ssd: y");
    assert!(h.is_multiple_of(ssd.num_groups), "ssd: {} groups of {h} heads", ssd.num_groups);
    let p = inner / h;
    let sequences = sequences.into_iter().inspect(|(tokens, state)| {
        let (len, want) = (state.len(), inner * n);
        assert!(tokens.end <= l && len == want, "ssd: a state of {len} instead of {want}");
    });
    if input.x.place() == Place::Device {
        let sequences = sequences.map(|(rows, state)| DeviceSequence { rows, conv: 0, ssm: address(state) });
        return cuda::ssd(ssd, input, &Vec::from_iter(sequences), y);
    }
    let kernel = cx.choose(IMPLS);
    let mut y = y.view_mut();
    let y = y.share();
    let sequences = sequences.map(|(tokens, state)| (tokens, SharedRows::new(state, p * n)));
    run_sequences(
        cx,
        sequences,
        |_| h,
        |(tokens, states), head| {
            let group = head / (h / ssd.num_groups) * n;
            let (columns, group) = (head * p..(head + 1) * p, group..group + n);
            let job = Head { ssd, input, tokens: tokens.clone(), head, columns, group, y: &y };
            // SAFETY: the state of a head, and its columns of the rows of a sequence, belong to one part; `choose`
            // returns what this machine can run.
            unsafe { kernel(&job, states.part(head, 0..p * n)) }
        },
    );
}

/// # Safety
/// The instruction set of `V` must be available, and no other thread may use the columns of y of this head.
#[inline(always)]
unsafe fn run_head<V: Lanes>(job: &Head<'_>, state: &mut [f32]) {
    let mut t = job.tokens.start;
    // SAFETY: the caller vouches.
    unsafe {
        while t + TOKENS_PER_PASS <= job.tokens.end {
            pass::<V, TOKENS_PER_PASS>(job, t, state);
            t += TOKENS_PER_PASS;
        }
        while t < job.tokens.end {
            pass::<V, 1>(job, t, state);
            t += 1;
        }
    }
}

/// Carries the whole state through the `T` tokens from `t`.
///
/// # Safety
/// As [`run_head`].
#[inline(always)]
unsafe fn pass<V: Lanes, const T: usize>(job: &Head<'_>, t: usize, state: &mut [f32]) {
    let (input, group, columns) = (&job.input, &job.group, &job.columns);
    let b: [&[f32]; T] = std::array::from_fn(|i| &input.B.row(t + i)[group.clone()]);
    let c: [&[f32]; T] = std::array::from_fn(|i| &input.C.row(t + i)[group.clone()]);
    let x: [&[f32]; T] = std::array::from_fn(|i| &input.x.row(t + i)[columns.clone()]);
    // SAFETY: the caller vouches, and every token is another row.
    let y: [&mut [f32]; T] = std::array::from_fn(|i| unsafe { job.y.part(t + i, columns.clone()) });
    let (mut delta, mut a) = ([0.0; T], [0.0; T]);
    for i in 0..T {
        (delta[i], a[i]) = job.ssd.step(job.head, input.dt.row(t + i)[job.head]);
    }
    let skip = job.ssd.D[job.head];
    for (p, row) in state.chunks_exact_mut(group.len()).enumerate() {
        let mut u = [0.0; T];
        for i in 0..T {
            u[i] = delta[i] * x[i][p];
        }
        // SAFETY: the caller vouches for the instruction set; `b` and `c` are as wide as a row.
        let sum = unsafe { advance::<V, T>(row, &u, &a, &b, &c) };
        for i in 0..T {
            y[i][p] = skip.mul_add(x[i][p], sum[i]);
        }
    }
}

/// Carries one row of the state, (n), through `T` tokens, and returns its products with C.
///
/// # Safety
/// The instruction set of `V` must be available, and `b` and `c` must be as long as `row`.
#[inline(always)]
unsafe fn advance<V: Lanes, const T: usize>(
    row: &mut [f32],
    u: &[f32; T],
    a: &[f32; T],
    b: &[&[f32]; T],
    c: &[&[f32]; T],
) -> [f32; T] {
    let whole = row.len() - row.len() % LANES;
    let mut sum = [0.0; T];
    // SAFETY: whole pieces end at `whole`; slices bound the last one; the caller vouches for the rest.
    unsafe {
        let mut lanes = [V::splat(0.0); T];
        for at in (0..whole).step_by(LANES) {
            let mut s = V::load(row.as_ptr().add(at));
            for i in 0..T {
                s = V::splat(u[i]).fma(V::load(b[i].as_ptr().add(at)), V::splat(a[i]).mul(s));
                lanes[i] = V::load(c[i].as_ptr().add(at)).fma(s, lanes[i]);
            }
            s.store(row.as_mut_ptr().add(at));
        }
        if whole < row.len() {
            let mut s = load_at::<V>(row, whole);
            for i in 0..T {
                s = V::splat(u[i]).fma(load_at::<V>(b[i], whole), V::splat(a[i]).mul(s));
                lanes[i] = load_at::<V>(c[i], whole).fma(s, lanes[i]);
            }
            store_at(s, row, whole);
        }
        for i in 0..T {
            sum[i] = lanes[i].fold_add();
        }
    }
    sum
}
