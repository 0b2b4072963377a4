//! The definition.

use super::Head;
use crate::lanes::reference::sum_lanes;

/// See [`super`].
///
/// # Safety
/// No other thread may use the columns of y of this head.
pub(crate) unsafe fn head(job: &Head<'_>, state: &mut [f32]) {
    let (n, h) = (job.n, job.steps.cols() / 2);
    for t in 0..job.input.x.rows() {
        let (delta, a) = (job.steps.row(t)[job.head], job.steps.row(t)[h + job.head]);
        let b = &job.input.B.row(t)[job.group..job.group + n];
        let c = &job.input.C.row(t)[job.group..job.group + n];
        for p in 0..job.p {
            let column = job.head * job.p + p;
            let x = job.input.x.row(t)[column];
            let u = delta * x;
            let s = &mut state[p * n..(p + 1) * n];
            for i in 0..n {
                s[i] = u.mul_add(b[i], a * s[i]);
            }
            let sum = sum_lanes(n, |i, sum| c[i].mul_add(s[i], sum));
            // SAFETY: the caller vouches that this column is this thread's.
            unsafe { job.y.part(t, column..column + 1)[0] = job.skip.mul_add(x, sum) };
        }
    }
}
