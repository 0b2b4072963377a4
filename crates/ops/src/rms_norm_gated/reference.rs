//! The definition.

use crate::lanes::reference::sum_lanes;
use crate::math::silu;

/// See [`super`].
pub fn group(y: &[f32], z: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    for i in 0..y.len() {
        out[i] = y[i] * silu(z[i]);
    }
    let squares = sum_lanes(out.len(), |i, sum| out[i].mul_add(out[i], sum));
    let r = 1.0 / (squares / out.len() as f32 + eps).sqrt();
    for i in 0..out.len() {
        out[i] = out[i] * r * w[i];
    }
}
