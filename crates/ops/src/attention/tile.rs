//! Several queries of one key/value head against one page at a time, as two small matrix products with a softmax
//! between them. Keys and values are read once for all queries of the tile.
//!
//! A *row* is a (token, head), tokens outermost, so rows see ever more positions. Products go strip by strip
//! ([`super::page`]), and per strip through groups of [`GROUP`] rows, whose sums stay in registers while the strip
//! is walked. A sum of weighted values is combined with those of the pages before it once, at the end of its strip.

use super::page::{Element, Page, PageOf};
use super::{Job, PAGE, ROWS_PER_PART};
use crate::lanes::{LANES, Lanes, load_at, store_at};
use crate::math::{exp, exp_lanes};

/// Rows whose sums are in registers at a time: with AVX2 twelve of sixteen registers.
const GROUP: usize = 6;

/// Rows of a strip that are asked for before their turn. The strips of a head lie one after the other, so this reaches
/// into the next one. With few queries the hardware's own prefetching leaves a fifth of the time to waiting.
const AHEAD: usize = 64;

/// The queries of a tile, what is known of them between pages, and their weights in the page at hand.
struct Rows<'a> {
    /// Number of rows.
    len: usize,
    /// Queries, (D).
    q: [&'a [f32]; ROWS_PER_PART],
    /// Outputs, (D): between pages, o of the pages combined so far.
    o: [*mut f32; ROWS_PER_PART],
    /// Positions of this page that the row sees.
    n: [usize; ROWS_PER_PART],
    /// Running maximum.
    m: [f32; ROWS_PER_PART],
    /// Running sum.
    z: [f32; ROWS_PER_PART],
    /// Factor of what the pages before this one came to.
    c: [f32; ROWS_PER_PART],
    /// Factor of what this page comes to.
    e: [f32; ROWS_PER_PART],
    /// Scores, then weights.
    p: [[f32; PAGE]; ROWS_PER_PART],
}

impl<'a> Rows<'a> {
    /// # Safety
    /// No other thread may use these heads of these rows of out, as long as the result is used.
    unsafe fn new(job: &'a Job<'_>) -> Rows<'a> {
        let mut rows = Rows {
            len: 0,
            q: [&[]; ROWS_PER_PART],
            o: [std::ptr::null_mut(); ROWS_PER_PART],
            n: [0; ROWS_PER_PART],
            m: [f32::NEG_INFINITY; ROWS_PER_PART],
            z: [0.0; ROWS_PER_PART],
            c: [0.0; ROWS_PER_PART],
            e: [0.0; ROWS_PER_PART],
            p: [[0.0; PAGE]; ROWS_PER_PART],
        };
        for t in job.tokens.clone() {
            for head in job.heads.clone() {
                // SAFETY: the caller vouches.
                let o = unsafe { job.output(t, head) };
                o.fill(0.0);
                (rows.q[rows.len], rows.o[rows.len]) = (job.query(t, head), o.as_mut_ptr());
                rows.len += 1;
            }
        }
        rows
    }

    /// The output of a row, (D).
    ///
    /// # Safety
    /// It must not be in use already.
    #[allow(clippy::mut_from_ref)]
    unsafe fn output(&self, row: usize) -> &mut [f32] {
        assert!(row < self.len);
        // SAFETY: an output is as long as its query; `new` took it from a slice that nobody else uses.
        unsafe { std::slice::from_raw_parts_mut(self.o[row], self.q[row].len()) }
    }
}

/// See [`super`].
///
/// # Safety
/// The instruction set of `V` must be available, and no other thread may use these heads of these rows of out.
#[inline(always)]
pub(super) unsafe fn run_tile<V: Lanes>(job: &Job<'_>) {
    // SAFETY: the caller vouches, and one output is in use at a time.
    unsafe {
        let mut rows = Rows::new(job);
        for b in 0..job.num_pages(job.tokens.end - 1) {
            let first = see_page(job, b, &mut rows);
            match job.cache.page(b) {
                Page::F32(page) => attend::<V, f32>(page, job, first, &mut rows),
                Page::F16(page) => attend::<V, u16>(page, job, first, &mut rows),
            }
        }
        for row in 0..rows.len {
            let z = rows.z[row];
            rows.output(row).iter_mut().for_each(|o| *o /= z);
        }
    }
}

/// Sets what each row sees of page `b`, and returns the first row that sees any of it.
fn see_page(job: &Job<'_>, b: usize, rows: &mut Rows<'_>) -> usize {
    let heads = job.heads.len();
    let first_token = (b * PAGE).saturating_sub(job.start).max(job.tokens.start);
    for t in first_token..job.tokens.end {
        let row = (t - job.tokens.start) * heads;
        rows.n[row..row + heads].fill(job.visible(t, b));
    }
    (first_token - job.tokens.start) * heads
}

/// All rows from `first` against one page.
///
/// # Safety
/// As [`run_tile`].
#[inline(always)]
unsafe fn attend<V: Lanes, E: Element>(page: &PageOf<E>, job: &Job<'_>, first: usize, rows: &mut Rows<'_>) {
    // SAFETY: the caller vouches.
    unsafe {
        for strip in 0..rows.n[rows.len - 1].div_ceil(LANES) {
            let keys = page.key_strip(job.kv_head, strip);
            for row in (first..rows.len).step_by(GROUP) {
                match rows.len - row {
                    1 => scores::<V, E, 1>(keys, job.scale, strip, row, rows),
                    2 => scores::<V, E, 2>(keys, job.scale, strip, row, rows),
                    3 => scores::<V, E, 3>(keys, job.scale, strip, row, rows),
                    4 => scores::<V, E, 4>(keys, job.scale, strip, row, rows),
                    5 => scores::<V, E, 5>(keys, job.scale, strip, row, rows),
                    _ => scores::<V, E, GROUP>(keys, job.scale, strip, row, rows),
                }
            }
        }
        for row in first..rows.len {
            softmax::<V>(rows, row);
        }
        for strip in 0..job.cache.head_dim().div_ceil(LANES) {
            let (values, width) = page.value_strip(job.kv_head, strip);
            if width == LANES {
                weigh_rows::<V, E>(values, strip, first, rows);
            } else {
                weigh_rows::<V, f32>(&pad(values, width), strip, first, rows);
            }
        }
    }
}

/// A narrow strip as a whole one; its last columns are zeros.
fn pad<E: Element>(values: &[E], width: usize) -> [f32; PAGE * LANES] {
    let mut widened = [0.0; PAGE * LANES];
    for (to, from) in widened.chunks_exact_mut(LANES).zip(values.chunks_exact(width)) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen());
    }
    widened
}

/// sum[r] ← Σ_k fma(a[r][k], b[k], sum[r]), k increasing below `len`.
///
/// # Safety
/// The instruction set of `V` must be available, `len` elements readable from every `a` and `len · 16` from `b`.
#[inline(always)]
unsafe fn multiply<V: Lanes, E: Element, const R: usize>(
    sum: &mut [V; R],
    a: [*const f32; R],
    b: *const E,
    len: usize,
) {
    // SAFETY: the caller vouches.
    unsafe {
        for k in 0..len {
            let b = b.add(k * LANES);
            V::prefetch(b.wrapping_add(AHEAD * LANES));
            let b = E::load::<V>(b);
            for r in 0..R {
                sum[r] = V::splat(*a[r].add(k)).fma(b, sum[r]);
            }
        }
    }
}

/// Scores of the rows from `row` and the positions of one strip.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn scores<V: Lanes, E: Element, const R: usize>(
    keys: &[E],
    scale: f32,
    strip: usize,
    row: usize,
    rows: &mut Rows<'_>,
) {
    let q: &[&[f32]; R] = rows.q[row..].first_chunk().expect("the tile has R rows from `row`");
    let dim = q[0].len();
    assert!(keys.len() == dim * LANES && q.iter().all(|q| q.len() == dim), "(D) against (D, 16)");
    // SAFETY: queries and the strip are D high (checked); the slice of p has sixteen elements; the caller vouches
    // for the instruction set.
    unsafe {
        let mut sum = [V::splat(0.0); R];
        multiply(&mut sum, q.map(<[f32]>::as_ptr), keys.as_ptr(), dim);
        for (r, sum) in sum.into_iter().enumerate() {
            let p = &mut rows.p[row + r][strip * LANES..(strip + 1) * LANES];
            sum.mul(V::splat(scale)).store(p.as_mut_ptr());
        }
    }
}

/// Turns the scores of a row into weights, those of positions it does not see into zeros, and combines what becomes
/// of the row's maximum and sum.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn softmax<V: Lanes>(rows: &mut Rows<'_>, row: usize) {
    let p = &mut rows.p[row];
    p[rows.n[row]..].fill(f32::NEG_INFINITY);
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        let mut largest = V::splat(f32::NEG_INFINITY);
        for at in (0..PAGE).step_by(LANES) {
            largest = load_at::<V>(p, at).max(largest);
        }
        let (m_page, m_before) = (largest.fold_max(), rows.m[row]);
        let mut sum = V::splat(0.0);
        for at in (0..PAGE).step_by(LANES) {
            let weights = exp_lanes(load_at::<V>(p, at).add(V::splat(-m_page)));
            store_at(weights, p, at);
            sum = sum.add(weights);
        }
        let m = if m_page > m_before { m_page } else { m_before };
        let (c, e) = (exp(m_before - m), exp(m_page - m));
        (rows.m[row], rows.c[row], rows.e[row]) = (m, c, e);
        rows.z[row] = rows.z[row].mul_add(c, sum.fold_add() * e);
    }
}

/// One strip of the outputs of all rows from `first`.
///
/// # Safety
/// As [`run_tile`].
#[inline(always)]
unsafe fn weigh_rows<V: Lanes, E: Element>(values: &[E], strip: usize, first: usize, rows: &Rows<'_>) {
    // SAFETY: the caller vouches.
    unsafe {
        for row in (first..rows.len).step_by(GROUP) {
            match rows.len - row {
                1 => weigh::<V, E, 1>(values, strip, row, rows),
                2 => weigh::<V, E, 2>(values, strip, row, rows),
                3 => weigh::<V, E, 3>(values, strip, row, rows),
                4 => weigh::<V, E, 4>(values, strip, row, rows),
                5 => weigh::<V, E, 5>(values, strip, row, rows),
                _ => weigh::<V, E, GROUP>(values, strip, row, rows),
            }
        }
    }
}

/// o ← fma(o, c, e · Σ_i fma(p[i], v[i], ·)), i increasing, for the rows from `row` and the columns of one strip. The
/// first row of the group sees the fewest positions; what the others see besides is added to each alone.
///
/// # Safety
/// As [`run_tile`].
#[inline(always)]
unsafe fn weigh<V: Lanes, E: Element, const R: usize>(
    values: &[E],
    strip: usize,
    row: usize,
    rows: &Rows<'_>,
) {
    let p: &[[f32; PAGE]; R] = rows.p[row..].first_chunk().expect("the tile has R rows from `row`");
    let n: &[usize; R] = rows.n[row..].first_chunk().expect("as many");
    assert!(values.len() == PAGE * LANES && n[R - 1] <= PAGE, "(64) against (64, 16)");
    let at = strip * LANES;
    // SAFETY: weights and values have PAGE rows, of which at most the last row's `n` are used (checked; `n` does not
    // decrease); the caller vouches for the instruction set and the outputs.
    unsafe {
        let mut sum = [V::splat(0.0); R];
        multiply(&mut sum, p.each_ref().map(|p| p.as_ptr()), values.as_ptr(), n[0]);
        for (r, sum) in sum.into_iter().enumerate() {
            let (mut sum, rest) = ([sum], p[r].as_ptr().add(n[0]));
            multiply(&mut sum, [rest], values.as_ptr().add(n[0] * LANES), n[r] - n[0]);
            let (c, e) = (V::splat(rows.c[row + r]), V::splat(rows.e[row + r]));
            let o = load_at::<V>(rows.output(row + r), at).fma(c, sum[0].mul(e));
            store_at(o, rows.output(row + r), at);
        }
    }
}
