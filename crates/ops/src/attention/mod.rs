//! Causal grouped-query attention over a paged cache: a softmax per page, and the online softmax over pages
//! (Milakov & Gimelshein 2018, arXiv 1805.02867; Ainslie et al. 2023, arXiv 2305.13245).
//!
//! Legend: l tokens of the call · H query heads · K key/value heads (query head j reads key/value head
//! j / (H / K)) · D head width. No positional encoding, scale 1 / √D.
//!
//! For the query at position t, each page b of 64 positions, aligned to position 0, is a softmax of its own over the
//! n ≥ 1 of its positions up to t:
//!
//! ```text
//! s[i]   = (Σ_d fma(q[d], k[i, d], ·), d increasing, from +0) · scale       i < n
//! M_b    = max s, from −∞, passing over NaN
//! p[i]   = exp(s[i] − M_b)
//! z_b    = laned sum of p
//! o_b[d] = Σ_i fma(p[i], v[i, d], ·), i increasing, from +0
//! ```
//!
//! and the pages are combined in increasing order, from m = −∞, z = 0, o = 0:
//!
//! ```text
//! M = max(m, M_b);   c = exp(m − M);   e = exp(M_b − M)
//! z = fma(z, c, z_b · e);   o[d] = fma(o[d], c, o_b[d] · e);   m = M
//! ```
//!
//! and finally o / z. Pages belong to absolute positions, so neither the length of the call nor the state the cache
//! came from shows in the result. k and v are the cached ones: what was appended, rounded if the cache is f16
//! ([`KvType`]), widened exactly.
//!
//! What is not finite stays so. Where a score is +∞ or NaN, or all scores of a page are −∞, z and all of o are NaN; so
//! they are if q holds an infinity. A score of −∞ next to a larger one of its page weighs nothing, which is the limit.
//! An infinite or NaN `v[i, d]` makes `o[d]` infinite or NaN.
//!
//! A page knows nothing of the others until it is combined, so pages may be computed at the same time. On the host they
//! are not: the work is cut by sequence, key/value head and tokens, and each part combines a page as soon as it has it,
//! which needs no memory for o_b. One token therefore keeps at most K threads busy. On a device (cuda.rs) few tokens
//! have all their pages computed at once; many tokens are cut as on the host.

mod backward;
mod cache;
mod cuda;
#[cfg(test)]
mod cuda_tests;
mod page;
pub mod reference;
#[cfg(test)]
mod tests;
mod tile;

pub use backward::attention_backward;
pub use cache::{Elements, KvCache, KvType, PAGE};

use crate::device::{Cx, Mat, SharedRows, View};
use crate::lanes::over_lanes;
use crate::sequences::run_sequences;
use std::ops::Range;
use tile::run_tile;

/// Most queries (token, head) that share a pass over the cache in one part: enough that the arithmetic on a page
/// takes longer than reading it from memory, few enough that their scores stay in the first-level cache.
const ROWS_PER_PART: usize = 60;
/// Most query heads of one key/value head that share a pass.
const HEADS_PER_PASS: usize = 16;

/// One key/value head and a few tokens of one sequence.
pub(crate) struct Job<'a> {
    /// Rows of this sequence.
    q: View<'a>,
    cache: &'a KvCache,
    out: &'a SharedRows<'a>,
    /// Row of out that belongs to row 0 of q.
    out_row: usize,
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
    pub(crate) static IMPLS: Kernel = run_tile(job: &Job<'_>), reference::run
}

/// Appends one position per row of `k` and `v` to the cache of its sequence, rounded to the type of the cache. A sequence
/// is a range of rows with its cache; all caches are alike, and lie where `k` and `v` do.
///
/// # Shapes
/// `k` and `v` (l, K·D).
///
/// # Panics
/// If the shapes or places do not agree.
pub fn append<'a>(
    k: View<'_>,
    v: View<'_>,
    sequences: impl IntoIterator<Item = (Range<usize>, &'a mut KvCache)>,
) {
    assert!(k.rows() == v.rows() && k.cols() == v.cols(), "append: shapes of k and v");
    let sequences = sequences.into_iter().inspect(|(rows, cache)| {
        assert!(cache.width() == k.cols() && rows.end <= k.rows(), "append: shapes of k and of a cache");
        assert!(cache.place() == k.place(), "append: k on {:?}, a cache on {:?}", k.place(), cache.place());
    });
    if let (Some(k), Some(v)) = (k.device(), v.device()) {
        return cuda::append(k, v, sequences.collect());
    }
    for (rows, cache) in sequences {
        cache.append_on_host(k.slice_rows(rows.clone()), v.slice_rows(rows));
    }
}

/// Attends from each row of `q` to all positions up to its own in the cache of its sequence. A sequence is a range of
/// rows of `q` with its cache, to which the keys and values of these rows have been appended already, as the last ones;
/// all caches are alike, and lie where `q` does. Rows that belong to no sequence have unspecified results.
///
/// # Shapes
/// `q` and the result (l, H·D).
///
/// # Panics
/// If the shapes or places do not agree, or a cache is shorter than the rows of its sequence.
pub fn attention<'a>(
    cx: &Cx,
    q: View<'_>,
    sequences: impl IntoIterator<Item = (Range<usize>, &'a KvCache)>,
) -> Mat {
    let sequences = sequences.into_iter().inspect(|(rows, cache)| {
        let width = cache.width();
        assert!(cache.len() >= rows.len(), "attention: {} rows, {} positions", rows.len(), cache.len());
        assert!(q.cols().is_multiple_of(width), "attention: {} is not whole heads of {width}", q.cols());
    });
    if let Some(device) = q.device() {
        return cuda::attention(device, [q.rows(), q.cols()], sequences);
    }
    let mut out = cx.mat(q.rows(), q.cols());
    let mut view = out.view_mut();
    let (kernel, shared) = (cx.choose(IMPLS), view.share());
    let split = |(rows, cache): (Range<usize>, &'a KvCache)| {
        Split::new(q.slice_rows(rows.clone()), rows.start, cache)
    };
    run_sequences(cx, sequences.map(split), Split::num_parts, |split, part| {
        // SAFETY: a (token, head) belongs to one part; `choose` returns what this machine can run.
        unsafe { kernel(&split.job(part, &shared)) }
    });
    out
}

/// 1 / √D.
fn scale(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

/// How the work of one sequence is cut.
struct Split<'a> {
    q: View<'a>,
    out_row: usize,
    cache: &'a KvCache,
    /// H / K.
    heads_per_kv_head: usize,
    heads_per_part: usize,
    tokens_per_part: usize,
}

impl<'a> Split<'a> {
    fn new(q: View<'a>, out_row: usize, cache: &'a KvCache) -> Split<'a> {
        let (kv_heads, head_dim) = (cache.num_kv_heads(), cache.head_dim());
        let heads_per_kv_head = q.cols() / head_dim / kv_heads;
        let heads_per_part = heads_per_kv_head.min(HEADS_PER_PASS);
        let tokens_per_part = ROWS_PER_PART / heads_per_part;
        Split { q, out_row, cache, heads_per_kv_head, heads_per_part, tokens_per_part }
    }

    fn num_passes(&self) -> usize {
        self.heads_per_kv_head.div_ceil(self.heads_per_part)
    }

    fn num_tiles(&self) -> usize {
        self.q.rows().div_ceil(self.tokens_per_part)
    }

    fn num_parts(&self) -> usize {
        self.cache.num_kv_heads() * self.num_passes() * self.num_tiles()
    }

    /// Tiles of tokens are innermost, so that threads read the same keys and values at about the same time.
    fn job<'j>(&'j self, part: usize, out: &'j SharedRows<'j>) -> Job<'j> {
        let (pass, tile) = (part / self.num_tiles(), part % self.num_tiles());
        let (kv_head, pass) = (pass / self.num_passes(), pass % self.num_passes());
        let first_head = kv_head * self.heads_per_kv_head;
        let head = first_head + pass * self.heads_per_part;
        let token = tile * self.tokens_per_part;
        Job {
            q: self.q,
            cache: self.cache,
            out,
            out_row: self.out_row,
            tokens: token..self.q.rows().min(token + self.tokens_per_part),
            start: self.cache.len() - self.q.rows(),
            kv_head,
            heads: head..(first_head + self.heads_per_kv_head).min(head + self.heads_per_part),
            scale: scale(self.cache.head_dim()),
        }
    }
}

impl Job<'_> {
    /// Columns of q and out.
    fn columns(&self, head: usize) -> Range<usize> {
        let d = self.cache.head_dim();
        head * d..(head + 1) * d
    }

    /// The query of token `t` and one head: (D).
    fn query(&self, t: usize, head: usize) -> &[f32] {
        &self.q.row(t)[self.columns(head)]
    }

    /// The output of token `t` and one head: (D).
    ///
    /// # Safety
    /// No other thread, and no other reference, may use it at the same time.
    #[allow(clippy::mut_from_ref)]
    unsafe fn output(&self, t: usize, head: usize) -> &mut [f32] {
        // SAFETY: the caller vouches.
        unsafe { self.out.part(self.out_row + t, self.columns(head)) }
    }

    /// Pages the query in row `t` sees.
    fn num_pages(&self, t: usize) -> usize {
        (self.start + t) / PAGE + 1
    }

    /// Positions of page `b` the query in row `t` sees, at most [`PAGE`].
    fn visible(&self, t: usize, b: usize) -> usize {
        PAGE.min(self.start + t + 1 - b * PAGE)
    }
}
