//! The definition.

use super::Target;
use crate::lanes::reference::sum_lanes;
use crate::math::exp;

/// See [`super`].
pub(crate) fn row(logits: &mut [f32], target: Target, loss: &mut f32) {
    let of_target = logits[target.token as usize];
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, l| if *l > max { *l } else { max });
    logits.iter_mut().for_each(|l| *l = exp(*l - max));
    let z = sum_lanes(logits.len(), |i, sum| sum + logits[i]);
    let scale = target.weight / z;
    logits.iter_mut().for_each(|l| *l *= scale);
    logits[target.token as usize] -= target.weight;
    *loss = z.ln() + max - of_target;
}
