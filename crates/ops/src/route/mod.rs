//! Choosing experts: the sigmoid router with a correction bias and group limit of the Nemotron 3 mixture layers
//! (after DeepSeek-V3, arXiv 2412.19437, section 2.1.2).
//!
//! s = sigmoid(logits);  choice = s + bias. Experts lie in `num_groups` equal groups; the `num_groups_kept`
//! groups with the largest sums of their two best choices stay. Of their experts the `num_chosen` with the
//! largest choice are taken; weights are s (without the bias), divided by (Σ + 10⁻²⁰) if `normalise`, times
//! `scale`. Ties go to the smaller index. Everything is scalar: a token has at most a few hundred experts.

#[cfg(test)]
mod tests;

use crate::math::sigmoid;

/// How to choose.
#[derive(Clone, Debug)]
pub struct Router {
    /// `e_score_correction_bias`, one per expert.
    pub bias: Vec<f32>,
    /// Experts per token.
    pub num_chosen: usize,
    /// Groups of experts.
    pub num_groups: usize,
    /// Groups that stay.
    pub num_groups_kept: usize,
    /// Whether the weights are divided by their sum.
    pub normalise: bool,
    /// Multiplies the weights.
    pub scale: f32,
}

/// An expert and the weight of its output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// Index of the expert.
    pub expert: usize,
    /// Weight of its output.
    pub weight: f32,
}

/// The experts of one token, by increasing index.
///
/// # Panics
/// If `logits` has not one entry per expert.
pub fn route(router: &Router, logits: &[f32]) -> Vec<Chosen> {
    assert_eq!(logits.len(), router.bias.len(), "route: one logit per expert");
    let score: Vec<f32> = logits.iter().map(|&x| sigmoid(x)).collect();
    let choice: Vec<f32> = score.iter().zip(&router.bias).map(|(s, b)| s + b).collect();
    let width = choice.len() / router.num_groups;
    let group_score = |group: &[f32]| best(group, 2).iter().map(|&i| group[i]).sum::<f32>();
    let groups: Vec<f32> = choice.chunks_exact(width).map(group_score).collect();
    let kept = best(&groups, router.num_groups_kept);
    let allowed = |i: &usize| kept.contains(&(i / width));
    let candidates: Vec<usize> = (0..choice.len()).filter(allowed).collect();
    let choices: Vec<f32> = candidates.iter().map(|&i| choice[i]).collect();
    let mut experts: Vec<usize> = best(&choices, router.num_chosen).iter().map(|&i| candidates[i]).collect();
    experts.sort_unstable();
    let sum: f32 = experts.iter().map(|&i| score[i]).sum();
    let divisor = if router.normalise { sum + 1e-20 } else { 1.0 };
    experts.iter().map(|&expert| Chosen { expert, weight: score[expert] / divisor * router.scale }).collect()
}

/// Indices of the `n` largest, largest first, ties by index.
fn best(values: &[f32], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order.truncate(n);
    order
}
