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
//! Queries are taken some positions at a time, and what they have to do with all keys is five products of matrices, in blocks
//! that stay in registers. `scale` is multiplied into q beforehand and into dq at the end.

use super::scale;
use crate::device::{Cx, Mat, SharedRows, View};
use crate::lanes::{LANES, Lanes, Plain, load_at, over_lanes, store_at};
use crate::math::exp_lanes;
use crate::sequences::assert_apart;
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
/// Rows and columns of a block in registers.
const ROWS: usize = 8;
const COLS: usize = 2 * LANES;

/// A matrix in a thread's memory, of whole blocks.
#[derive(Default)]
struct Padded {
    data: Vec<f32>,
    rows: usize,
    stride: usize,
}

/// What a thread computes in. N is the number of queries of a tile.
#[derive(Default)]
struct Scratch {
    /// (l, D), as dk and dv.
    keys: Padded,
    dk: Padded,
    dv: Padded,
    /// (D, l), as that of values.
    keys_turned: Padded,
    values_turned: Padded,
    /// (N, D).
    q: Padded,
    dout: Padded,
    dq: Padded,
    /// (N, l).
    p: Padded,
    ds: Padded,
}

impl Padded {
    /// Zeros.
    fn reset(&mut self, rows: usize, cols: usize) {
        self.rows = rows.next_multiple_of(ROWS);
        // Some more than whole blocks, so that a column does not lie in one set of the cache.
        self.stride = cols.next_multiple_of(COLS) + LANES;
        self.data.clear();
        self.data.resize(self.rows.next_multiple_of(COLS) * self.stride, 0.0);
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.stride..][..self.stride]
    }

    fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.stride..][..self.stride]
    }

    /// As the left factor of a product.
    fn left(&self) -> Left<'_> {
        Left { data: &self.data, row: self.stride, col: 1 }
    }

    /// The same, the other way round.
    fn left_turned(&self) -> Left<'_> {
        Left { data: &self.data, row: 1, col: self.stride }
    }
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
    let whole = per_kv_head * of_kv == q.cols() && width * num_kv_heads == of_kv;
    assert!(whole, "attention_backward: heads");
    assert_apart(sequences, l);
    let mut gradients = [cx.mat(l, q.cols()), cx.mat(l, of_kv), cx.mat(l, of_kv)];
    {
        let [dq, dk, dv] = &mut gradients;
        let (mut dq, mut dk, mut dv) = (dq.view_mut(), dk.view_mut(), dv.view_mut());
        let (dq, dk, dv, kernel) = (dq.share(), dk.share(), dv.share(), cx.choose(IMPLS));
        let size = |part: usize| sequences[part / num_kv_heads].len();
        cx.run_largest_first(sequences.len() * num_kv_heads, size, &|part| {
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
unsafe fn run<V: Lanes>(job: &Job<'_>, scratch: &mut Scratch) {
    let (first, l, width, heads) = (job.tokens.start, job.tokens.len(), job.width, job.heads.len());
    let of_kv = job.kv_head * width..(job.kv_head + 1) * width;
    scratch.start(job);
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        for start in (0..l).step_by(TILE) {
            let tile = start..l.min(start + TILE);
            scratch.take_queries(job, &tile);
            let Scratch { keys, dk, dv, keys_turned, values_turned, q, dout, dq, p, ds } = &mut *scratch;
            add_product::<V>(q.left(), keys_turned, width, (p, tile.end));
            add_product::<V>(dout.left(), values_turned, width, (ds, tile.end));
            for (at, t) in tile.clone().flat_map(|t| (0..heads).map(move |_| t)).enumerate() {
                let (p, ds) = (p.row_mut(at), ds.row_mut(at));
                softmax::<V>(&mut p[..=t]);
                score_gradients::<V>(&p[..=t], &mut ds[..=t]);
                p[t + 1..].fill(0.0);
                ds[t + 1..].fill(0.0);
            }
            add_product::<V>(ds.left(), keys, tile.end, (dq, width));
            let queries = tile.len() * heads;
            dk.rows = tile.end.next_multiple_of(ROWS);
            dv.rows = dk.rows;
            add_product::<V>(ds.left_turned(), q, queries, (dk, width));
            add_product::<V>(p.left_turned(), dout, queries, (dv, width));
            for (at, (t, head)) in tile.flat_map(|t| job.heads.clone().map(move |head| (t, head))).enumerate()
            {
                let to = job.dq.part(first + t, head * width..(head + 1) * width);
                to.iter_mut().zip(dq.row(at)).for_each(|(to, sum)| *to = sum * scale(width));
            }
        }
        for t in 0..l {
            job.dk.part(first + t, of_kv.clone()).copy_from_slice(&scratch.dk.row(t)[..width]);
            job.dv.part(first + t, of_kv.clone()).copy_from_slice(&scratch.dv.row(t)[..width]);
        }
    }
}

impl Scratch {
    /// Takes keys and values.
    fn start(&mut self, job: &Job<'_>) {
        let (l, width) = (job.tokens.len(), job.width);
        for matrix in [&mut self.keys, &mut self.dk, &mut self.dv] {
            matrix.reset(l, width);
        }
        for matrix in [&mut self.keys_turned, &mut self.values_turned] {
            matrix.reset(width, l);
        }
        for (i, t) in job.tokens.clone().enumerate() {
            let columns = job.kv_head * width..(job.kv_head + 1) * width;
            let (key, value) = (&job.k.row(t)[columns.clone()], &job.v.row(t)[columns]);
            self.keys.row_mut(i)[..width].copy_from_slice(key);
            for d in 0..width {
                self.keys_turned.row_mut(d)[i] = key[d];
                self.values_turned.row_mut(d)[i] = value[d];
            }
        }
    }

    /// Takes the queries of some positions, counted from the first of the sequence, and zeros for what is computed of them.
    fn take_queries(&mut self, job: &Job<'_>, tile: &Range<usize>) {
        let (width, queries) = (job.width, tile.len() * job.heads.len());
        for matrix in [&mut self.q, &mut self.dout, &mut self.dq] {
            matrix.reset(queries, width);
        }
        for matrix in [&mut self.p, &mut self.ds] {
            matrix.reset(queries, tile.end);
        }
        for (at, t) in tile.clone().enumerate() {
            for (i, head) in job.heads.clone().enumerate() {
                let (row, columns) = (at * job.heads.len() + i, head * width..(head + 1) * width);
                let q = &job.q.row(job.tokens.start + t)[columns.clone()];
                self.q.row_mut(row).iter_mut().zip(q).for_each(|(to, q)| *to = q * scale(width));
                self.dout.row_mut(row)[..width].copy_from_slice(&job.dout.row(job.tokens.start + t)[columns]);
            }
        }
    }
}

/// A left factor: element (r, k) lies at `r · row + k · col`.
struct Left<'a> {
    data: &'a [f32],
    row: usize,
    col: usize,
}

/// C ← C + A · B of `depth` columns of A, for all rows of C and as many of its columns.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn add_product<V: Lanes>(a: Left<'_>, b: &Padded, depth: usize, (c, cols): (&mut Padded, usize)) {
    // SAFETY: the caller vouches.
    unsafe {
        for col in (0..cols).step_by(COLS) {
            for row in (0..c.rows).step_by(ROWS) {
                if V::IS_WIDE {
                    block::<V, ROWS, 2>(&a, b, depth, c, [row, col]);
                    continue;
                }
                for (row, col) in [(0, 0), (0, LANES), (ROWS / 2, 0), (ROWS / 2, LANES)]
                    .map(|(down, right)| (row + down, col + right))
                {
                    block::<V, { ROWS / 2 }, 1>(&a, b, depth, c, [row, col]);
                }
            }
        }
    }
}

/// `R` rows and `P` times sixteen columns of [`add_product`].
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn block<V: Lanes, const R: usize, const P: usize>(
    a: &Left<'_>,
    b: &Padded,
    depth: usize,
    c: &mut Padded,
    [row, col]: [usize; 2],
) {
    let Some(last) = depth.checked_sub(1) else { return };
    assert!((row + R - 1) * a.row + last * a.col < a.data.len(), "A ends too soon");
    assert!(last * b.stride + col + P * LANES <= b.data.len(), "B ends too soon");
    assert!((row + R - 1) * c.stride + col + P * LANES <= c.data.len(), "C ends too soon");
    // SAFETY: the caller vouches for `V`; all three reach as far as has been asserted.
    unsafe {
        let (a_data, b_data) = (a.data.as_ptr().add(row * a.row), b.data.as_ptr().add(col));
        let (c_data, stride) = (c.data.as_mut_ptr().add(row * c.stride + col), c.stride);
        let mut s: [[V; P]; R] =
            std::array::from_fn(|r| std::array::from_fn(|p| V::load(c_data.add(r * stride + p * LANES))));
        for k in 0..depth {
            let b: [V; P] = std::array::from_fn(|p| V::load(b_data.add(k * b.stride + p * LANES)));
            for r in 0..R {
                let a = V::splat(*a_data.add(r * a.row + k * a.col));
                for p in 0..P {
                    s[r][p] = a.fma(b[p], s[r][p]);
                }
            }
        }
        for r in 0..R {
            for p in 0..P {
                s[r][p].store(c_data.add(r * stride + p * LANES));
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

/// ds holds dP: ds ← p · (ds − Σ p · ds).
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn score_gradients<V: Lanes>(p: &[f32], ds: &mut [f32]) {
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        let mut sum = V::splat(0.0);
        for at in (0..p.len()).step_by(LANES) {
            sum = load_at::<V>(p, at).fma(load_at::<V>(ds, at), sum);
        }
        let minus = V::splat(-sum.fold_add());
        for at in (0..p.len()).step_by(LANES) {
            store_at(load_at::<V>(ds, at).add(minus).mul(load_at::<V>(p, at)), ds, at);
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
