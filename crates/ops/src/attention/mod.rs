//! Causal grouped-query attention over a paged cache, by online softmax
//! (Milakov & Gimelshein 2018, arXiv 1805.02867; Ainslie et al. 2023, arXiv 2305.13245).
//!
//! Legend: l tokens of the call · H query heads · K key/value heads (query head j reads key/value head
//! j / (H / K)) · D head width. No positional encoding, scale 1 / √D.
//!
//! For the query at position t, over the blocks of 64 positions aligned to position 0, in increasing order,
//! with n the positions of the block up to t:
//!
//! ```text
//! s[i] = (Σ_d fma(q[d], k[i, d], ·), d increasing) · scale       i < n
//! M    = max(m, max s);   c = exp(m − M);   p[i] = exp(s[i] − M)
//! z    = fma(z, c, laned sum of p);   o[d] = o[d] · c;   o[d] = fma(p[i], v[i, d], o[d]), i increasing
//! m    = M
//! ```
//!
//! from m = −∞, z = 0, o = 0, and finally o / z. Blocks belong to absolute positions, so neither the length of
//! the call nor the state the cache came from shows in the result.

mod cache;
pub mod reference;
#[cfg(test)]
mod tests;

pub use cache::{KvCache, PAGE};

use crate::device::{Cx, SharedRows, View, ViewMut};
use crate::lanes::{LANES, Lanes, load_at, over_lanes, store_at};
use crate::math::{exp, exp_lanes};
use cache::Page;
use std::ops::Range;

/// Query tokens that share a pass over the cache in one part.
const TOKENS_PER_PART: usize = 8;
/// Query heads of one key/value head that share a pass.
const HEADS_PER_PASS: usize = 16;

/// One key/value head and a few tokens.
pub(crate) struct Job<'a> {
    q: View<'a>,
    cache: &'a KvCache,
    out: &'a SharedRows<'a>,
    /// Rows of q.
    tokens: Range<usize>,
    /// Position of row 0 of q.
    start: usize,
    kv_head: usize,
    /// Query heads, all of this key/value head.
    heads: Range<usize>,
    scale: f32,
}

type Kernel = unsafe fn(job: &Job<'_>);

over_lanes! {
    /// Best first.
    pub(crate) static IMPLS: Kernel = run_job(job: &Job<'_>), reference::run
}

/// Attends from each row of `q` to all positions up to its own. The keys and values of these rows must have
/// been appended to `cache` already, as its last `q.rows()` positions.
///
/// # Shapes
/// `q` and `out` (l, H·D).
///
/// # Panics
/// If the shapes do not agree or the cache is shorter than the rows of `q`.
pub fn attention(cx: &Cx, q: View<'_>, cache: &KvCache, out: &mut ViewMut<'_>) {
    let (l, width, kv_heads) = (q.rows(), q.cols(), cache.num_kv_heads());
    let head_dim = cache.head_dim();
    assert!(out.rows() == l && out.cols() == width && cache.len() >= l, "attention: out and cache");
    assert!(width.is_multiple_of(kv_heads * head_dim), "attention: {width} is not whole heads");
    let per_kv_head = width / head_dim / kv_heads;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let (kernel, out) = (cx.choose(IMPLS), out.share());
    let tiles = l.div_ceil(TOKENS_PER_PART);
    cx.run(tiles * kv_heads, &|part| {
        let (tile, kv_head) = (part / kv_heads, part % kv_heads);
        let tokens = tile * TOKENS_PER_PART..l.min((tile + 1) * TOKENS_PER_PART);
        let (from, to) = (kv_head * per_kv_head, (kv_head + 1) * per_kv_head);
        for head in (from..to).step_by(HEADS_PER_PASS) {
            let heads = head..to.min(head + HEADS_PER_PASS);
            let start = cache.len() - l;
            let job = Job { q, cache, out: &out, tokens: tokens.clone(), start, kv_head, heads, scale };
            // SAFETY: a (token, head) belongs to one part; `choose` returns what this machine can run.
            unsafe { kernel(&job) }
        }
    });
}

impl Job<'_> {
    /// Columns of q and out.
    fn columns(&self, head: usize) -> Range<usize> {
        let d = self.cache.head_dim();
        head * d..(head + 1) * d
    }

    /// Blocks the query in row `t` sees.
    fn num_blocks(&self, t: usize) -> usize {
        (self.start + t) / PAGE + 1
    }

    /// Positions of block `b` the query in row `t` sees, at most [`PAGE`].
    fn visible(&self, t: usize, b: usize) -> usize {
        PAGE.min(self.start + t + 1 - b * PAGE)
    }
}

/// Running maximum and sum of one query.
#[derive(Clone, Copy)]
struct Softmax {
    m: f32,
    z: f32,
}

const EMPTY: Softmax = Softmax { m: f32::NEG_INFINITY, z: 0.0 };

/// The pass over the cache is outermost, so that a block is read once for all queries of the job.
///
/// # Safety
/// The instruction set of `V` must be available, and no other thread may use these heads of these rows of out.
#[inline(always)]
unsafe fn run_job<V: Lanes>(job: &Job<'_>) {
    let mut state = [[EMPTY; HEADS_PER_PASS]; TOKENS_PER_PART];
    for t in job.tokens.clone() {
        // SAFETY: the caller vouches.
        unsafe {
            job.out.part(t, job.columns(job.heads.start).start..job.columns(job.heads.end - 1).end).fill(0.0)
        };
    }
    for b in 0..job.num_blocks(job.tokens.end - 1) {
        for t in job.tokens.clone().filter(|&t| b < job.num_blocks(t)) {
            for head in job.heads.clone() {
                let state = &mut state[t - job.tokens.start][head - job.heads.start];
                let q = &job.q.row(t)[job.columns(head)];
                // SAFETY: the caller vouches.
                unsafe {
                    let o = job.out.part(t, job.columns(head));
                    block::<V>(job, job.cache.page(b), q, job.visible(t, b), state, o);
                }
            }
        }
    }
    for t in job.tokens.clone() {
        for head in job.heads.clone() {
            let z = state[t - job.tokens.start][head - job.heads.start].z;
            // SAFETY: the caller vouches.
            let o = unsafe { job.out.part(t, job.columns(head)) };
            o.iter_mut().for_each(|o| *o /= z);
        }
    }
}

/// One query against the first `n` positions of one block.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn block<V: Lanes>(
    job: &Job<'_>,
    page: &Page,
    q: &[f32],
    n: usize,
    state: &mut Softmax,
    o: &mut [f32],
) {
    const VECTORS: usize = PAGE / LANES;
    let keys = page.keys(job.kv_head, q.len());
    assert_eq!(keys.len(), q.len() * PAGE);
    let mut p = [f32::NEG_INFINITY; PAGE];
    // SAFETY: `keys` holds q.len() rows of PAGE (checked above) and `p` PAGE elements; the caller vouches for
    // the instruction set.
    unsafe {
        let mut s = [V::splat(0.0); VECTORS];
        for (d, q) in q.iter().enumerate() {
            for (i, s) in s.iter_mut().enumerate() {
                *s = V::splat(*q).fma(V::load(keys.as_ptr().add(d * PAGE + i * LANES)), *s);
            }
        }
        for (i, s) in s.iter().enumerate() {
            s.mul(V::splat(job.scale)).store(p.as_mut_ptr().add(i * LANES));
        }
        p[n..].fill(f32::NEG_INFINITY);
        let mut largest = V::splat(f32::NEG_INFINITY);
        for i in 0..VECTORS {
            largest = V::load(p.as_ptr().add(i * LANES)).max(largest);
        }
        let largest = largest.fold_max();
        let m = if largest > state.m { largest } else { state.m };
        let mut sum = V::splat(0.0);
        for i in 0..VECTORS {
            let e = exp_lanes(V::load(p.as_ptr().add(i * LANES)).add(V::splat(-m)));
            e.store(p.as_mut_ptr().add(i * LANES));
            sum = sum.add(e);
        }
        let c = exp(state.m - m);
        *state = Softmax { m, z: state.z.mul_add(c, sum.fold_add()) };
        accumulate::<V>(&p[..n], page.values(job.kv_head, q.len()), c, o);
    }
}

/// o ← o · c + Σ p[i] · v[i], i increasing.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn accumulate<V: Lanes>(p: &[f32], v: &[f32], c: f32, o: &mut [f32]) {
    const WIDE: usize = 4;
    let d = o.len();
    let mut at = 0;
    // SAFETY: slices bound the partial accesses; the wide ones stay below `d` in each row of v, which has
    // p.len() rows at least (checked); the caller vouches for the instruction set.
    unsafe {
        assert!(v.len() >= p.len() * d);
        while at + WIDE * LANES <= d {
            let mut sum: [V; WIDE] =
                std::array::from_fn(|i| V::load(o.as_ptr().add(at + i * LANES)).mul(V::splat(c)));
            for (row, p) in p.iter().enumerate() {
                for (i, sum) in sum.iter_mut().enumerate() {
                    *sum = V::splat(*p).fma(V::load(v.as_ptr().add(row * d + at + i * LANES)), *sum);
                }
            }
            for (i, sum) in sum.iter().enumerate() {
                sum.store(o.as_mut_ptr().add(at + i * LANES));
            }
            at += WIDE * LANES;
        }
        while at < d {
            let mut sum = load_at::<V>(o, at).mul(V::splat(c));
            for (row, p) in p.iter().enumerate() {
                sum = V::splat(*p).fma(load_at::<V>(&v[row * d..(row + 1) * d], at), sum);
            }
            store_at(sum, o, at);
            at += LANES;
        }
    }
}
