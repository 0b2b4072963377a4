//! The definition.

use crate::lanes::reference::sum_lanes;

/// See [`super`].
pub fn row(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let squares = sum_lanes(x.len(), |i, sum| x[i].mul_add(x[i], sum));
    let r = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for i in 0..x.len() {
        out[i] = x[i] * r * w[i];
    }
}
