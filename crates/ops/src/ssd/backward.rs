//! The gradient of [`super::ssd`], token by token from the end, for sequences whose first state may be learned.
//!
//! States are not kept: they are computed again, from the beginning of the sequence with a copy every [`STRIDE`] tokens,
//! and from there once more when their tokens are gone through. With S the state after token t, S' that before it and dS
//! the gradient of S:
//!
//! ```text
//! dS[p, i] += dy[p] · C[i];   dC[i] += dy[p] · S[p, i];   dB[i] += u[p] · dS[p, i]
//! du[p] = Σ_i dS[p, i] · B[i];   da = Σ_{p, i} dS[p, i] · S'[p, i];   dS[p, i] ← a · dS[p, i]
//! dx[p] = Δ · du[p] + D · dy[p];   dD += Σ_p dy[p] · x[p];   dA += da · a · Δ
//! dΔ = Σ_p du[p] · x[p] + da · a · A;   d(dt) = dΔ · sigmoid(dt + dt_bias), 0 where Δ is at a bound;   d(dt_bias) += d(dt)
//! ```
//!
//! Per token, 32 columns i at a time are gone through, all rows p of each. dB and dC are summed over the heads of a group in their order; what belongs to a head over the tokens of a sequence from
//! its end, and then over the sequences in their order.

use super::{Ssd, SsdInput};
use crate::device::{Cx, Mat, SharedRows, Vector};
use crate::lanes::{LANES, Lanes, Plain, load_at, over_lanes, store_at};
use crate::math::{sigmoid, softplus};
use crate::sequences::assert_apart;
use std::cell::RefCell;
use std::ops::Range;

/// Tokens between copies of the state.
const STRIDE: usize = 16;

/// Gradients of a recurrence's parameters, which are added to. All have one entry per head.
#[derive(Debug)]
pub struct SsdGradients<'a> {
    /// Of A itself, not of its logarithm.
    pub dA: &'a mut [f32],
    /// Of D.
    pub dD: &'a mut [f32],
    /// Of the bias of dt.
    pub ddt_bias: &'a mut [f32],
}

/// What one head of one sequence is fed and makes.
struct Job<'a> {
    ssd: &'a Ssd,
    input: SsdInput<'a>,
    dy: crate::View<'a>,
    tokens: Range<usize>,
    head: usize,
    /// Columns of x: (p).
    columns: Range<usize>,
    /// Columns of B and C: (n).
    group: Range<usize>,
    /// (p, n); zeros without.
    initial: Option<&'a [f32]>,
    /// (l, h·p + 2·g·n): the gradients of x, B and C side by side.
    dxBC: &'a SharedRows<'a>,
    /// Where the columns of dB and of dC begin.
    dB: usize,
    dC: usize,
    /// Whether it is the first head of its group, which finds nothing in dB and dC yet.
    is_first: bool,
    /// (l, h).
    ddt: &'a SharedRows<'a>,
    /// dA, dD and d(dt_bias) of this head and sequence.
    sums: &'a mut [f32],
    /// The gradient of the first state: (p, n).
    dinitial: Option<&'a mut [f32]>,
}

type Kernel = unsafe fn(job: Job<'_>, scratch: &mut Vec<f32>);

over_lanes! {
    /// Best first.
    static IMPLS: Kernel = run(job: Job<'_>, scratch: &mut Vec<f32>), run::<Plain>
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Returns the gradients of x, B and C, side by side as the convolution makes them, writes that of dt to the columns of
/// `ddt` from the second member on, and adds to those of the parameters. A sequence is a range of rows, the sequences one
/// after the other; all of them begin with the state `initial`, whose gradient is added to the last argument.
///
/// # Shapes
/// `input` as for [`super::ssd`], `dy` (l, h·p), result (l, h·p + 2·g·n), `ddt` (l, at least that + h), `initial` and its
/// gradient (h, p, n).
///
/// # Panics
/// If the shapes do not agree.
pub fn ssd_backward(
    cx: &Cx,
    ssd: &Ssd,
    input: SsdInput<'_>,
    sequences: &[Range<usize>],
    dy: &Mat,
    (ddt, first): (&mut Mat, usize),
    gradients: SsdGradients<'_>,
    initial: Option<(&Vector, &mut [f32])>,
) -> Mat {
    let (l, inner, h, g) = (input.x.rows(), input.x.cols(), ssd.num_heads(), ssd.num_groups);
    let (gn, p) = (input.B.cols(), inner / h);
    let n = gn / g;
    assert!(dy.rows() == l && dy.cols() == inner, "ssd_backward: dy");
    assert!(ddt.rows() == l && first + h <= ddt.cols(), "ssd_backward: ddt");
    assert!(h.is_multiple_of(g) && p * h == inner && n * g == gn, "ssd_backward: {g} groups of {h} heads");
    assert_apart(sequences, l);
    let SsdGradients { dA, dD, ddt_bias } = &gradients;
    assert!([dA, dD, ddt_bias].iter().all(|d| d.len() == h), "ssd_backward: one gradient per head");
    let mut dxBC = cx.mat(l, inner + 2 * gn);
    let (mut sums, count) = (cx.mat(sequences.len() * h, 3), sequences.len());
    let (initial, dinitial) = match initial {
        Some((initial, gradient)) => (Some(&initial[..]), Some(gradient)),
        None => (None, None),
    };
    let mut dinitials = cx.mat(if dinitial.is_some() { count } else { 0 }, inner * n);
    {
        let (mut dxBC, mut sums, mut dinitials) = (dxBC.view_mut(), sums.view_mut(), dinitials.view_mut());
        let mut ddt = ddt.view_mut();
        let (dxBC, sums, dinitials, ddt) = (dxBC.share(), sums.share(), dinitials.share(), ddt.share());
        let ddt = ddt.columns(first..first + h);
        let (kernel, per_group) = (cx.choose(IMPLS), h / g);
        cx.run_largest_first(count * g, |part| sequences[part / g].len(), &|part| {
            let (sequence, of_group) = (part / g, part % g);
            let tokens = sequences[sequence].clone();
            for head in of_group * per_group..(of_group + 1) * per_group {
                let state = head * p * n..(head + 1) * p * n;
                // SAFETY: what belongs to a head, and to its group, in a sequence belongs to one part; `choose` returns
                // what this machine can run.
                unsafe {
                    let job = Job {
                        ssd,
                        input,
                        dy: dy.view(),
                        tokens: tokens.clone(),
                        head,
                        columns: head * p..(head + 1) * p,
                        group: of_group * n..(of_group + 1) * n,
                        initial: initial.map(|initial| &initial[state.clone()]),
                        dxBC: &dxBC,
                        dB: inner,
                        dC: inner + gn,
                        is_first: head % per_group == 0,
                        ddt: &ddt,
                        sums: sums.part(sequence * h + head, 0..3),
                        dinitial: initial.map(|_| dinitials.part(sequence, state)),
                    };
                    SCRATCH.with_borrow_mut(|scratch| kernel(job, scratch));
                }
            }
        });
    }
    add_of_heads(gradients, &sums, h);
    if let Some(gradient) = dinitial {
        for sequence in 0..count {
            gradient.iter_mut().zip(dinitials.row(sequence)).for_each(|(sum, d)| *sum += d);
        }
    }
    dxBC
}

/// Adds the sums of all sequences, (sequences · h, 3), one sequence after the other.
fn add_of_heads(gradients: SsdGradients<'_>, sums: &Mat, h: usize) {
    let SsdGradients { dA, dD, ddt_bias } = gradients;
    for (at, sums) in sums.data().chunks_exact(3).enumerate() {
        let head = at % h;
        dA[head] += sums[0];
        dD[head] += sums[1];
        ddt_bias[head] += sums[2];
    }
}

/// # Safety
/// The instruction set of `V` must be available, and no other thread may use what is written.
#[inline(always)]
unsafe fn run<V: Lanes>(mut job: Job<'_>, scratch: &mut Vec<f32>) {
    let (p, n, tokens) = (job.columns.len(), job.group.len(), job.tokens.clone());
    let size = p * n;
    let copies = tokens.len().div_ceil(STRIDE);
    // Δ and exp(Δ·A), copies of the state, the states of one stride, dS, and the lanes of du.
    scratch.resize(2 * tokens.len() + (copies + STRIDE + 2) * size + p * LANES, 0.0);
    let (steps, rest) = scratch.split_at_mut(2 * tokens.len());
    let steps = steps.as_chunks_mut().0;
    for (step, t) in steps.iter_mut().zip(tokens.clone()) {
        *step = job.ssd.step(job.head, job.input.dt.row(t)[job.head]).into();
    }
    let step = |t: usize| steps[t - tokens.start];
    let (kept, rest) = rest.split_at_mut(copies * size);
    let (states, rest) = rest.split_at_mut((STRIDE + 1) * size);
    let (dS, du) = rest.split_at_mut(size);
    let start = |states: &mut [f32]| match job.initial {
        Some(initial) => states[..size].copy_from_slice(initial),
        None => states[..size].fill(0.0),
    };
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        start(states);
        for (i, kept) in kept.chunks_exact_mut(size).enumerate() {
            kept.copy_from_slice(&states[..size]);
            let from = tokens.start + i * STRIDE;
            // There and back between two states.
            let (state, other) = states.split_at_mut(size);
            let (mut now, mut next) = (state, &mut other[..size]);
            for t in from..tokens.end.min(from + STRIDE) {
                advance::<V>(&job, t, step(t), now, next);
                std::mem::swap(&mut now, &mut next);
            }
            if !(tokens.end.min(from + STRIDE) - from).is_multiple_of(2) {
                next.copy_from_slice(now);
            }
        }
        dS.fill(0.0);
        if job.is_first {
            for t in tokens.clone() {
                job.dxBC.part(t, job.dB + job.group.start..job.dB + job.group.end).fill(0.0);
                job.dxBC.part(t, job.dC + job.group.start..job.dC + job.group.end).fill(0.0);
            }
        }
        let mut sums = [0.0; 3];
        for (i, kept) in kept.chunks_exact(size).enumerate().rev() {
            let from = tokens.start + i * STRIDE;
            let to = tokens.end.min(from + STRIDE);
            states[..size].copy_from_slice(kept);
            for t in from..to {
                let (before, after) = states[(t - from) * size..].split_at_mut(size);
                advance::<V>(&job, t, step(t), before, &mut after[..size]);
            }
            for t in (from..to).rev() {
                let (before, after) = states[(t - from) * size..(t - from + 2) * size].split_at(size);
                token::<V>(&job, t, step(t), [before, after], dS, du, &mut sums);
            }
        }
        job.sums.copy_from_slice(&sums);
        if let Some(dinitial) = &mut job.dinitial {
            dinitial.copy_from_slice(dS);
        }
    }
}

/// The state after token `t` from that before it, as the forward computes it.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn advance<V: Lanes>(
    job: &Job<'_>,
    t: usize,
    [delta, a]: [f32; 2],
    before: &[f32],
    after: &mut [f32],
) {
    let n = job.group.len();
    let (b, x) = (&job.input.B.row(t)[job.group.clone()], &job.input.x.row(t)[job.columns.clone()]);
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        for ((before, after), x) in before.chunks_exact(n).zip(after.chunks_exact_mut(n)).zip(x) {
            let (u, a) = (V::splat(delta * x), V::splat(a));
            for at in (0..n).step_by(LANES) {
                let s = u.fma(load_at::<V>(b, at), a.mul(load_at::<V>(before, at)));
                store_at(s, after, at);
            }
        }
    }
}

/// Goes back through token `t`.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn token<V: Lanes>(
    job: &Job<'_>,
    t: usize,
    [delta, a]: [f32; 2],
    states: [&[f32]; 2],
    dS: &mut [f32],
    du: &mut [f32],
    [dA, dD, ddt_bias]: &mut [f32; 3],
) {
    let n = job.group.len();
    let dt = job.input.dt.row(t)[job.head];
    let (b, c) = (&job.input.B.row(t)[job.group.clone()], &job.input.C.row(t)[job.group.clone()]);
    let (x, dy) = (&job.input.x.row(t)[job.columns.clone()], &job.dy.row(t)[job.columns.clone()]);
    let (skip, A) = (job.ssd.D[job.head], job.ssd.A[job.head]);
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        let dx = job.dxBC.part(t, job.columns.clone());
        let dB = job.dxBC.part(t, job.dB + job.group.start..job.dB + job.group.end);
        let dC = job.dxBC.part(t, job.dC + job.group.start..job.dC + job.group.end);
        let (mut da, mut ddelta, mut dskip) = (V::splat(0.0), 0.0f32, 0.0f32);
        du.fill(0.0);
        for at in (0..n).step_by(2 * LANES) {
            let sums = [&mut dB[at..], &mut dC[at..]];
            let of = Columns { b: &b[at..], c: &c[at..], dy, x, delta, a, at, n };
            match n - at > LANES {
                true => columns::<V, 2>(of, states, dS, sums, du, &mut da),
                false => columns::<V, 1>(of, states, dS, sums, du, &mut da),
            }
        }
        for (p, du) in du.chunks_exact(LANES).enumerate() {
            let du = V::load(du.as_ptr()).fold_add();
            dx[p] = delta * du + skip * dy[p];
            ddelta += du * x[p];
            dskip += dy[p] * x[p];
        }
        let da = da.fold_add() * a;
        *dA += da * delta;
        *dD += dskip;
        let ddelta = ddelta + da * A;
        let (low, high) = job.ssd.dt_limit;
        let free = softplus(dt + job.ssd.dt_bias[job.head]);
        let is_free = free >= low && free <= high;
        let ddt = if is_free { ddelta * sigmoid(dt + job.ssd.dt_bias[job.head]) } else { 0.0 };
        job.ddt.part(t, job.head..job.head + 1)[0] = ddt;
        *ddt_bias += ddt;
    }
}

/// Up to 32 columns of what a token is multiplied with.
struct Columns<'a> {
    b: &'a [f32],
    c: &'a [f32],
    dy: &'a [f32],
    x: &'a [f32],
    delta: f32,
    a: f32,
    /// The first of them, of `n`.
    at: usize,
    n: usize,
}

/// Goes back through `P` times sixteen columns of the state, whose sums stay in registers where there are two dozen.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn columns<V: Lanes, const P: usize>(
    of: Columns<'_>,
    [before, after]: [&[f32]; 2],
    dS: &mut [f32],
    sums: [&mut [f32]; 2],
    du: &mut [f32],
    da: &mut V,
) {
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        let load = |from: &[f32]| -> [V; P] { std::array::from_fn(|i| load_at(from, i * LANES)) };
        let (b, c, a) = (load(of.b), load(of.c), V::splat(of.a));
        // One by one: what maps an array is not inlined, and its loads are calls then.
        let [of_dB, of_dC] = sums;
        let (mut dB, mut dC) = (load(of_dB), load(of_dC));
        for (p, row) in dS.chunks_exact_mut(of.n).enumerate() {
            let rows = p * of.n + of.at..(p + 1) * of.n;
            let (before, after, row) = (load(&before[rows.clone()]), load(&after[rows]), &mut row[of.at..]);
            let (of_y, u) = (V::splat(of.dy[p]), V::splat(of.delta * of.x[p]));
            let lanes = &mut du[p * LANES..][..LANES];
            let mut du = V::load(lanes.as_ptr());
            for i in 0..P {
                let d = of_y.fma(c[i], load_at(row, i * LANES));
                dC[i] = of_y.fma(after[i], dC[i]);
                dB[i] = u.fma(d, dB[i]);
                du = d.fma(b[i], du);
                *da = d.fma(before[i], *da);
                store_at(d.mul(a), row, i * LANES);
            }
            du.store(lanes.as_mut_ptr());
        }
        for i in 0..P {
            store_at(dB[i], of_dB, i * LANES);
            store_at(dC[i], of_dC, i * LANES);
        }
    }
}
