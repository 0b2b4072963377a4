//! The definition.

use super::Conv;
use crate::math::silu;

/// See [`super`].
pub fn token(conv: &Conv, history: &[&[f32]], from: usize, out: &mut [f32]) {
    for (i, y) in out.iter_mut().enumerate() {
        let channel = from + i;
        let mut sum = conv.bias[channel];
        for (j, x) in history.iter().enumerate() {
            sum = conv.weight[j * conv.channels() + channel].mul_add(x[i], sum);
        }
        *y = silu(sum);
    }
}
