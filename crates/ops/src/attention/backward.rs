//! The gradient of [`super::attention`] for sequences that begin with an empty cache.
//!
//! Per query of position t and head, over all positions i ≤ t (Dao et al. 2022, arXiv 2205.14135, appendix B):
//!
//! ```text
//! s[i] = (Σ_d q[d] · k[i, d]) · scale;   P[i] = exp(s[i] − max s) / Σ exp(s − max s)
//! dP[i] = Σ_d do[d] · v[i, d];   δ = Σ_i P[i] · dP[i];   ds[i] = P[i] · (dP[i] − δ) · scale
//! dq[d] = Σ_i ds[i] · k[i, d];   dk[i, d] += ds[i] · q[d];   dv[i, d] += P[i] · do[d]
//! ```
//!
//! Every sum goes through its terms in order: dk and dv through the queries by their position, and of one position by head.
//! A tile of queries is gone through twice, for P and ds, and then for the sums, which stay in registers.

use super::scale;
use crate::device::{Cx, Mat, SharedRows, View};
use crate::lanes::{LANES, Lanes, Plain, load_at, over_lanes, store_at};
use crate::math::exp_lanes;
use std::cell::RefCell;
use std::ops::Range;

/// One key/value head of one sequence, with its query heads.
struct Job<'a> {
    q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    dout: View<'a>,
    tokens: Range<usize>,
    /// D.
    width: usize,
    kv_head: usize,
    heads: Range<usize>,
    dq: &'a SharedRows<'a>,
    dk: &'a SharedRows<'a>,
    dv: &'a SharedRows<'a>,
}

type Kernel = unsafe fn(job: &Job<'_>, scratch: &mut Scratch);

over_lanes! {
    /// Best first.
    static IMPLS: Kernel = run(job: &Job<'_>, scratch: &mut Scratch), run::<Plain>
}

/// Positions of a tile of queries.
const TILE: usize = 8;

/// What a thread computes in: keys and values with positions innermost, (D, l), and of the queries of a tile P and ds,
/// (queries, l).
#[derive(Default)]
struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    p: Vec<f32>,
    ds: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Returns dq, dk and dv. A sequence is a range of rows.
///
/// # Shapes
/// `q`, `dout` and dq (l, H·D), `k`, `v`, dk and dv (l, K·D).
///
/// # Panics
/// If the shapes do not agree.
pub fn attention_backward(
    cx: &Cx,
    [q, k, v]: [View<'_>; 3],
    dout: View<'_>,
    num_kv_heads: usize,
    sequences: &[Range<usize>],
) -> [Mat; 3] {
    let (l, of_kv) = (q.rows(), k.cols());
    assert!(k.rows() == l && v.rows() == l && v.cols() == of_kv, "attention_backward: k and v");
    assert!((dout.rows(), dout.cols()) == (l, q.cols()), "attention_backward: dout");
    let width = of_kv / num_kv_heads;
    let per_kv_head = q.cols() / width / num_kv_heads;
    assert!(per_kv_head * of_kv == q.cols(), "attention_backward: heads");
    let mut gradients = [cx.mat(l, q.cols()), cx.mat(l, of_kv), cx.mat(l, of_kv)];
    {
        let [dq, dk, dv] = &mut gradients;
        let (mut dq, mut dk, mut dv) = (dq.view_mut(), dk.view_mut(), dv.view_mut());
        let (dq, dk, dv, kernel) = (dq.share(), dk.share(), dv.share(), cx.choose(IMPLS));
        cx.run(sequences.len() * num_kv_heads, &|part| {
            let (sequence, kv_head) = (part / num_kv_heads, part % num_kv_heads);
            let heads = kv_head * per_kv_head..(kv_head + 1) * per_kv_head;
            let tokens = sequences[sequence].clone();
            let job = Job { q, k, v, dout, tokens, width, kv_head, heads, dq: &dq, dk: &dk, dv: &dv };
            // SAFETY: the columns of a key/value head and of its query heads in the rows of a sequence belong to one part;
            // `choose` returns what this machine can run.
            SCRATCH.with_borrow_mut(|scratch| unsafe { kernel(&job, scratch) });
        });
    }
    gradients
}

/// # Safety
/// The instruction set of `V` must be available, and no other thread may use what is written.
#[inline(always)]
unsafe fn run<'a, V: Lanes>(job: &Job<'a>, scratch: &mut Scratch) {
    let (first, l, width) = (job.tokens.start, job.tokens.len(), job.width);
    let of_kv = job.kv_head * width..(job.kv_head + 1) * width;
    // Rows of whole vectors, so that scores behind a query's own are computed rather than cut off.
    let padded = l.next_multiple_of(LANES);
    let Scratch { keys, values, p, ds } = scratch;
    for (to, from) in [(&mut *keys, job.k), (&mut *values, job.v)] {
        to.clear();
        to.resize(width * padded, 0.0);
        for i in 0..l {
            for (d, x) in from.row(first + i)[of_kv.clone()].iter().enumerate() {
                to[d * padded + i] = *x;
            }
        }
    }
    let heads = job.heads.len();
    p.resize(TILE * heads * padded, 0.0);
    ds.resize(TILE * heads * padded, 0.0);
    let columns = |head: usize| head * width..(head + 1) * width;
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        for t in job.tokens.clone() {
            job.dk.part(t, of_kv.clone()).fill(0.0);
            job.dv.part(t, of_kv.clone()).fill(0.0);
        }
        for start in job.tokens.clone().step_by(TILE) {
            let tile = start..job.tokens.end.min(start + TILE);
            let queries = || tile.clone().flat_map(|t| job.heads.clone().map(move |head| (t, head)));
            let of_queries =
                |x: View<'a>| queries().map(|(t, head)| &x.row(t)[columns(head)]).collect::<Vec<_>>();
            let (q, dout) = (of_queries(job.q), of_queries(job.dout));
            for (at, t) in tile.clone().enumerate() {
                let (seen, of_tile) = (t - first + 1, at * heads..(at + 1) * heads);
                let rows = of_tile.start * padded..of_tile.end * padded;
                let (p, ds) = (&mut p[rows.clone()], &mut ds[rows]);
                products::<V>(&q[of_tile.clone()], keys, seen, scale(width), p);
                products::<V>(&dout[of_tile], values, seen, 1.0, ds);
                for (p, ds) in p.chunks_exact_mut(padded).zip(ds.chunks_exact_mut(padded)) {
                    softmax::<V>(&mut p[..seen]);
                    score_gradients::<V>(&p[..seen], scale(width), &mut ds[..seen]);
                }
            }
            for ((t, head), ds) in queries().zip(ds.chunks_exact(padded)) {
                let keys = (first..=t).map(|i| &job.k.row(i)[of_kv.clone()]);
                let dq = job.dq.part(t, columns(head));
                dq.fill(0.0);
                add_weighted::<V>(ds.iter().copied().zip(keys), dq);
            }
            for t in first..tile.end {
                // The queries that see it.
                let from = t.saturating_sub(start) * heads;
                let (p, ds) = (&p[from * padded + t - first..], &ds[from * padded + t - first..]);
                let (of_q, of_dout) = (q[from..].iter().copied(), dout[from..].iter().copied());
                add_weighted::<V>(
                    ds.iter().step_by(padded).copied().zip(of_q),
                    job.dk.part(t, of_kv.clone()),
                );
                add_weighted::<V>(
                    p.iter().step_by(padded).copied().zip(of_dout),
                    job.dv.part(t, of_kv.clone()),
                );
            }
        }
    }
}

/// Of several queries: out[r, i] = (Σ_d x[r, d] · rows[d, i]) · scale for the first `seen` positions, and whatever behind them.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn products<V: Lanes>(x: &[&[f32]], rows: &[f32], seen: usize, scale: f32, out: &mut [f32]) {
    let stride = out.len() / x.len();
    // SAFETY: the caller vouches.
    unsafe {
        for (x, out) in x.chunks(3).zip(out.chunks_mut(3 * stride)) {
            match *x {
                [a, b, c] => products_of::<V, 3>([a, b, c], rows, seen, scale, out),
                [a, b] => products_of::<V, 2>([a, b], rows, seen, scale, out),
                [a] => products_of::<V, 1>([a], rows, seen, scale, out),
                _ => unreachable!("chunks of three at most"),
            }
        }
    }
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn products_of<V: Lanes, const R: usize>(
    x: [&[f32]; R],
    rows: &[f32],
    seen: usize,
    scale: f32,
    out: &mut [f32],
) {
    let stride = out.len() / R;
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        for at in (0..seen).step_by(LANES) {
            let mut sums = [V::splat(0.0); R];
            for (d, row) in rows.chunks_exact(stride).enumerate() {
                let row = V::load(row[at..][..LANES].as_ptr());
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = V::splat(x[d]).fma(row, *sum);
                }
            }
            for (r, sum) in sums.into_iter().enumerate() {
                sum.mul(V::splat(scale)).store(out[r * stride + at..][..LANES].as_mut_ptr());
            }
        }
    }
}

/// p ← softmax(p).
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn softmax<V: Lanes>(p: &mut [f32]) {
    let max = p.iter().fold(f32::NEG_INFINITY, |max, s| if *s > max { *s } else { max });
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        let whole = p.len() - p.len() % LANES;
        let mut sum = V::splat(0.0);
        for at in (0..p.len()).step_by(LANES) {
            let e = exp_lanes(load_at::<V>(p, at).add(V::splat(-max)));
            store_at(e, p, at);
            // Lanes behind the end hold something else.
            sum = sum.add(if at < whole { e } else { load_at::<V>(p, at) });
        }
        let scale = V::splat(1.0 / sum.fold_add());
        for at in (0..p.len()).step_by(LANES) {
            store_at(load_at::<V>(p, at).mul(scale), p, at);
        }
    }
}

/// ds holds dP: ds ← p · (ds − Σ p · ds) · scale.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn score_gradients<V: Lanes>(p: &[f32], scale: f32, ds: &mut [f32]) {
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        let mut sum = V::splat(0.0);
        for at in (0..p.len()).step_by(LANES) {
            sum = load_at::<V>(p, at).fma(load_at::<V>(ds, at), sum);
        }
        let minus = V::splat(-sum.fold_add());
        for at in (0..p.len()).step_by(LANES) {
            let d = load_at::<V>(ds, at).add(minus).mul(load_at::<V>(p, at));
            store_at(d.mul(V::splat(scale)), ds, at);
        }
    }
}

/// out[d] ← fma(w, x[d], out[d]) for every weight w and row x, in their order.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn add_weighted<'x, V: Lanes>(rows: impl Iterator<Item = (f32, &'x [f32])> + Clone, out: &mut [f32]) {
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        for at in (0..out.len()).step_by(2 * LANES) {
            if out.len() - at <= LANES {
                let mut sum = load_at::<V>(out, at);
                for (w, x) in rows.clone() {
                    sum = V::splat(w).fma(load_at::<V>(x, at), sum);
                }
                store_at(sum, out, at);
                continue;
            }
            let mut sums = [load_at::<V>(out, at), load_at::<V>(out, at + LANES)];
            for (w, x) in rows.clone() {
                let w = V::splat(w);
                sums = [w.fma(load_at::<V>(x, at), sums[0]), w.fma(load_at::<V>(x, at + LANES), sums[1])];
            }
            store_at(sums[0], out, at);
            store_at(sums[1], out, at + LANES);
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
            for (heads, kv_heads, width) in [(4, 2, 5), (2, 1, 32), (3, 1, 20), (5, 1, 9), (1, 1, 40)] {
                let (l, sequences) = (43, [0..2, 2..3, 3..43]);
                let (of_q, of_kv) = (heads * width, kv_heads * width);
                let (q, k, v) =
                    (rng.uniform(l * of_q, 1.0), rng.uniform(l * of_kv, 1.0), rng.uniform(l * of_kv, 1.0));
                let dout = rng.uniform(l * of_q, 1.0);
                let f = |q: &[f64], k: &[f64], v: &[f64]| {
                    let mut total = 0.0;
                    for rows in &sequences {
                        for (t, head) in rows.clone().flat_map(|t| (0..heads).map(move |head| (t, head))) {
                            let of = |x: &[f64], i: usize, d: usize| {
                                x[i * of_kv + head / (heads / kv_heads) * width + d]
                            };
                            let query = |x: &[f64], d: usize| x[t * of_q + head * width + d];
                            let score = |i: usize| (0..width).map(|d| query(q, d) * of(k, i, d)).sum::<f64>();
                            let weights: Vec<f64> =
                                (rows.start..=t).map(|i| (score(i) / (width as f64).sqrt()).exp()).collect();
                            let z: f64 = weights.iter().sum();
                            for d in 0..width {
                                let sum: f64 =
                                    (rows.start..).zip(&weights).map(|(i, w)| w * of(v, i, d)).sum();
                                total += sum / z * f64::from(dout[t * of_q + head * width + d]);
                            }
                        }
                    }
                    total
                };
                let mat = |x: &[f32]| Mat::from_vec(l, x.len() / l, x.to_vec());
                let (as_q, as_k, as_v, as_dout) = (mat(&q), mat(&k), mat(&v), mat(&dout));
                let views = [as_q.view(), as_k.view(), as_v.view()];
                let [dq, dk, dv] = attention_backward(cx, views, as_dout.view(), kv_heads, &sequences);
                let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
                let (wq, wk, wv) = (wide(&q), wide(&k), wide(&v));
                assert_gradient(|q| f(q, &wk, &wv), &q, dq.data(), "dq");
                assert_gradient(|k| f(&wq, k, &wv), &k, dk.data(), "dk");
                assert_gradient(|v| f(&wq, &wk, v), &v, dv.data(), "dv");
            }
        });
    }
}
