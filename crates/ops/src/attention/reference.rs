//! The definition: every query on its own.

use super::page::{Element, Page, PageOf};
use super::{Job, PAGE};
use crate::lanes::LANES;
use crate::lanes::reference::{fold, sum_lanes};
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

/// Running maximum and sum.
struct Softmax {
    m: f32,
    z: f32,
}

fn query(job: &Job<'_>, t: usize, q: &[f32], o: &mut [f32]) {
    let mut softmax = Softmax { m: f32::NEG_INFINITY, z: 0.0 };
    o.fill(0.0);
    for b in 0..job.num_blocks(t) {
        let n = job.visible(t, b);
        match job.cache.page(b) {
            Page::F32(page) => block(job, page, q, n, &mut softmax, o),
            Page::F16(page) => block(job, page, q, n, &mut softmax, o),
        }
    }
    o.iter_mut().for_each(|o| *o /= softmax.z);
}

fn block<E: Element>(
    job: &Job<'_>,
    page: &PageOf<E>,
    q: &[f32],
    n: usize,
    softmax: &mut Softmax,
    o: &mut [f32],
) {
    debug_assert!(n <= PAGE);
    let score = |i: usize| {
        let dot = q.iter().enumerate();
        let dot = dot.fold(0.0f32, |s, (d, q)| q.mul_add(page.key(job.kv_head, i, d).widen(), s));
        dot * job.scale
    };
    let s: Vec<f32> = (0..n).map(score).collect();
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for i in 0..n {
        lanes[i % LANES] = larger(s[i], lanes[i % LANES]);
    }
    let m = larger(fold(lanes, larger), softmax.m);
    let c = exp(softmax.m - m);
    let p: Vec<f32> = s.iter().map(|s| exp(s - m)).collect();
    let z = softmax.z.mul_add(c, sum_lanes(n, |i, sum| sum + p[i]));
    for (d, o) in o.iter_mut().enumerate() {
        *o = (0..n).fold(*o * c, |o, i| p[i].mul_add(page.value(job.kv_head, i, d).widen(), o));
    }
    *softmax = Softmax { m, z };
}
