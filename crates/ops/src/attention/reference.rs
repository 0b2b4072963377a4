//! The definition: every query on its own.

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
            let o = unsafe { job.out.part(t, job.columns(head)) };
            query(job, t, &job.q.row(t)[job.columns(head)], o);
        }
    }
}

fn query(job: &Job<'_>, t: usize, q: &[f32], o: &mut [f32]) {
    let (mut m, mut z) = (f32::NEG_INFINITY, 0.0f32);
    o.fill(0.0);
    for b in 0..job.num_blocks(t) {
        let page = job.cache.page(b);
        let (keys, values) = (page.keys(job.kv_head, q.len()), page.values(job.kv_head, q.len()));
        let n = job.visible(t, b);
        let score = |i: usize| {
            let dot = q.iter().enumerate().fold(0.0f32, |s, (d, q)| q.mul_add(keys[d * PAGE + i], s));
            dot * job.scale
        };
        let s: Vec<f32> = (0..n).map(score).collect();
        let larger = |a: f32, b: f32| if a > b { a } else { b };
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for i in 0..n {
            lanes[i % LANES] = larger(s[i], lanes[i % LANES]);
        }
        let new = larger(fold(lanes, larger), m);
        let c = exp(m - new);
        let p: Vec<f32> = s.iter().map(|s| exp(s - new)).collect();
        z = z.mul_add(c, sum_lanes(n, |i, sum| sum + p[i]));
        for (d, o) in o.iter_mut().enumerate() {
            *o = (0..n).fold(*o * c, |o, i| p[i].mul_add(values[i * q.len() + d], o));
        }
        m = new;
    }
    o.iter_mut().for_each(|o| *o /= z);
}
