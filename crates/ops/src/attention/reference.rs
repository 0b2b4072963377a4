//! The definition: every query on its own.

use super::page::{Element, Page, PageOf};
use super::{Job, PAGE};
use crate::lanes::reference::sum_lanes;
use crate::math::exp;

/// See [`super`].
///
/// # Safety
/// No other thread may use these heads of these rows of out.
pub(crate) unsafe fn run(job: &Job<'_>) {
    for t in job.tokens.clone() {
        for head in job.heads.clone() {
            // SAFETY: the caller vouches.
            let o = unsafe { job.output(t, head) };
            query(job, t, job.query(t, head), o);
        }
    }
}

/// The softmax of one page, or of the pages combined so far.
struct Softmax {
    /// Largest score.
    m: f32,
    /// Sum of the weights relative to it.
    z: f32,
    /// Sum of the values times these weights, (D).
    o: Vec<f32>,
}

fn query(job: &Job<'_>, t: usize, q: &[f32], o: &mut [f32]) {
    let mut all = Softmax { m: f32::NEG_INFINITY, z: 0.0, o: vec![0.0; q.len()] };
    for b in 0..job.num_pages(t) {
        let n = job.visible(t, b);
        let page = match job.cache.page(b) {
            Page::F32(page) => softmax(job, page, q, n),
            Page::F16(page) => softmax(job, page, q, n),
        };
        combine(&mut all, &page);
    }
    o.iter_mut().zip(&all.o).for_each(|(to, o)| *to = o / all.z);
}

fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

fn softmax<E: Element>(job: &Job<'_>, page: &PageOf<E>, q: &[f32], n: usize) -> Softmax {
    debug_assert!(n <= PAGE);
    let score = |i: usize| {
        let dot = q.iter().enumerate();
        let dot = dot.fold(0.0f32, |s, (d, q)| q.mul_add(page.key(job.kv_head, i, d).widen(), s));
        dot * job.scale
    };
    let s: Vec<f32> = (0..n).map(score).collect();
    let m = s.iter().fold(f32::NEG_INFINITY, |m, s| larger(*s, m));
    let p: Vec<f32> = s.iter().map(|s| exp(s - m)).collect();
    let z = sum_lanes(n, |i, sum| sum + p[i]);
    let value = |i: usize, d: usize| page.value(job.kv_head, i, d).widen();
    let column = |d: usize| (0..n).fold(0.0f32, |o, i| p[i].mul_add(value(i, d), o));
    Softmax { m, z, o: (0..q.len()).map(column).collect() }
}

fn combine(all: &mut Softmax, page: &Softmax) {
    let m = larger(page.m, all.m);
    let (c, e) = (exp(all.m - m), exp(page.m - m));
    all.m = m;
    all.z = all.z.mul_add(c, page.z * e);
    all.o.iter_mut().zip(&page.o).for_each(|(o, of_page)| *o = o.mul_add(c, of_page * e));
}
