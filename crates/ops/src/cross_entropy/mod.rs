//! Cross entropy of a softmax, and its gradient in place of the logits.
//!
//! ```text
//! m = max l;   z = laned sum of exp(l[i] − m);   loss = ln z + m − l[target]
//! dl[i] = weight · exp(l[i] − m) / z, less the weight for the target
//! ```

pub mod reference;

use crate::device::{Cx, Mat, SharedRows};
use crate::lanes::{LANES, Lanes, load_at, over_lanes, store_at};
use crate::math::exp_lanes;

/// What should follow a row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The token.
    pub token: u32,
    /// Multiplies the gradient; 0 for a row that teaches nothing.
    pub weight: f32,
}

/// One row; returns its loss in `loss`.
type Kernel = unsafe fn(logits: &mut [f32], target: Target, loss: &mut f32);

over_lanes! {
    /// Best first.
    static IMPLS: Kernel = row(logits: &mut [f32], target: Target, loss: &mut f32), reference::row
}

/// Rows worth a thread of their own.
const ROWS_PER_PART: usize = 8;

/// Makes of every row of logits the gradient of its loss, and returns the losses, not weighted, in nats.
///
/// # Shapes
/// `logits` (l, vocabulary), `targets` and the result (l).
///
/// # Panics
/// If there is not a target for every row, or one is outside the vocabulary.
pub fn cross_entropy(cx: &Cx, logits: &mut Mat, targets: &[Target]) -> Vec<f32> {
    let (l, vocabulary) = (logits.rows(), logits.cols());
    assert_eq!(targets.len(), l, "cross_entropy: one target per row");
    assert!(targets.iter().all(|t| (t.token as usize) < vocabulary), "cross_entropy: of {vocabulary} tokens");
    let mut losses = vec![0.0; l];
    let mut view = logits.view_mut();
    let (logits, of_rows, kernel) = (view.share(), SharedRows::new(&mut losses, 1), cx.choose(IMPLS));
    cx.run_ranges(l, ROWS_PER_PART, &|rows| {
        for r in rows {
            // SAFETY: each row belongs to one part; `choose` returns what this machine can run.
            unsafe { kernel(logits.part(r, 0..vocabulary), targets[r], &mut of_rows.part(r, 0..1)[0]) }
        }
    });
    losses
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn row<V: Lanes>(logits: &mut [f32], target: Target, loss: &mut f32) {
    let of_target = logits[target.token as usize];
    // SAFETY: the caller vouches; slices bound every access.
    unsafe {
        let whole = logits.len() - logits.len() % LANES;
        let mut max = V::splat(f32::NEG_INFINITY);
        for at in (0..whole).step_by(LANES) {
            max = load_at::<V>(logits, at).max(max);
        }
        let max = logits[whole..].iter().fold(max.fold_max(), |max, l| if *l > max { *l } else { max });
        let mut sum = V::splat(0.0);
        for at in (0..logits.len()).step_by(LANES) {
            store_at(exp_lanes(load_at::<V>(logits, at).add(V::splat(-max))), logits, at);
            sum = sum.add(load_at::<V>(logits, at)); // zeros behind the end
        }
        let z = sum.fold_add();
        let scale = V::splat(target.weight / z);
        for at in (0..logits.len()).step_by(LANES) {
            store_at(load_at::<V>(logits, at).mul(scale), logits, at);
        }
        logits[target.token as usize] -= target.weight;
        *loss = z.ln() + max - of_target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_gradient, assert_same_bits, on_every_simd};

    #[test]
    fn loss_and_gradient_are_those_of_the_formula() {
        on_every_simd(|cx, rng| {
            for vocabulary in [1, 2, 15, 16, 17, 100, 512] {
                let l = 20;
                let logits = rng.uniform(l * vocabulary, 4.0);
                let target =
                    |_| Target { token: rng.below(vocabulary) as u32, weight: 0.5 + rng.below(3) as f32 };
                let targets: Vec<Target> = (0..l).map(target).collect();
                let mut gradient = Mat::from_vec(l, vocabulary, logits.clone());
                let losses = cross_entropy(cx, &mut gradient, &targets);
                let mut expected = logits.clone();
                for (r, row) in expected.chunks_exact_mut(vocabulary).enumerate() {
                    let mut loss = 0.0;
                    reference::row(row, targets[r], &mut loss);
                    assert_eq!(loss.to_bits(), losses[r].to_bits(), "{}", cx.simd());
                }
                assert_same_bits(gradient.data(), &expected, "the gradient");
                let loss = |row: &[f64], target: &Target| {
                    row.iter().map(|l| l.exp()).sum::<f64>().ln() - row[target.token as usize]
                };
                let weighted = |all: &[f64]| {
                    let rows = all.chunks_exact(vocabulary).zip(&targets);
                    rows.map(|(row, target)| f64::from(target.weight) * loss(row, target)).sum::<f64>()
                };
                for ((row, target), got) in logits.chunks_exact(vocabulary).zip(&targets).zip(&losses) {
                    let row: Vec<f64> = row.iter().map(|l| f64::from(*l)).collect();
                    assert!((loss(&row, target) - f64::from(*got)).abs() < 1e-5);
                }
                if vocabulary > 1 {
                    assert_gradient(weighted, &logits, gradient.data(), &format!("{vocabulary} tokens"));
                }
            }
        });
    }

    #[test]
    fn large_logits_do_not_overflow_and_no_weight_is_no_gradient() {
        on_every_simd(|cx, _| {
            let mut logits = Mat::from_vec(2, 3, vec![1000.0, 0.0, -1000.0, 5.0, 6.0, 7.0]);
            let targets = [Target { token: 0, weight: 1.0 }, Target { token: 1, weight: 0.0 }];
            let losses = cross_entropy(cx, &mut logits, &targets);
            assert!(losses[0].abs() < 1e-6 && logits.data().iter().all(|d| *d == 0.0), "{logits:?}");
        });
    }
}
