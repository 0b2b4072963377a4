//! The definition.

use super::Head;
use crate::lanes::reference::sum_lanes;

/// See [`super`].
///
/// # Safety
/// No other thread may use the columns of y of this head.
pub(crate) unsafe fn head(job: &Head<'_>, state: &mut [f32]) {
    let n = job.group.len();
    for t in job.tokens.clone() {
        let (delta, a) = job.ssd.step(job.head, job.input.dt.row(t)[job.head]);
        let b = &job.input.B.row(t)[job.group.clone()];
        let c = &job.input.C.row(t)[job.group.clone()];
        for (column, s) in job.columns.clone().zip(state.chunks_exact_mut(n)) {
            let x = job.input.x.row(t)[column];
            let u = delta * x;
            for i in 0..n {
                s[i] = u.mul_add(b[i], a * s[i]);
            }
            let sum = sum_lanes(n, |i, sum| c[i].mul_add(s[i], sum));
            // SAFETY: the caller vouches that this column is this thread's.
            unsafe { job.y.part(t, column..column + 1)[0] = job.ssd.D[job.head].mul_add(x, sum) };
        }
    }
}
