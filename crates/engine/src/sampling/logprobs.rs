//! Log-probabilities of the model's own distribution: log-softmax of unchanged logits.

use tangelo_core::TokenId;

use super::exp::exp;
use super::filters::{best, token};
use super::peaks::Peaks;
use super::sum;

/// What the model thought of a token and of the alternatives.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Natural logarithm of the chosen token's probability.
    pub chosen: f32,
    /// The most probable tokens that are possible at all and their log-probabilities, best first, equals by id.
    pub top: Vec<(TokenId, f32)>,
}

impl Logprobs {
    /// For the logits (vocabulary) from which `chosen` was chosen, with the `alternatives` best tokens. The sum of
    /// exponentials is in f64, in a fixed order (`sum.rs`).
    pub(crate) fn new(logits: &[f32], chosen: TokenId, alternatives: usize) -> Logprobs {
        let mut peaks = Peaks::default();
        peaks.scan(logits);
        let largest = f64::from(peaks.largest());
        let mut total = 0.0;
        for logits in logits.chunks(sum::BLOCK) {
            let mut weights = [0.0; sum::BLOCK];
            for (weight, &logit) in weights.iter_mut().zip(logits) {
                *weight = exp(f64::from(logit) - largest);
            }
            total += sum::block(&weights);
        }
        let normaliser = largest + total.ln();
        let logprob = |logit: f32| (f64::from(logit) - normaliser) as f32;
        let mut found = Vec::new();
        if alternatives > 0 {
            best(&mut peaks, logits, alternatives, &mut found);
        }
        let chosen = logits.get(chosen as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let top =
            found.into_iter().map(|rank| (token(rank), logprob(logits[token(rank) as usize]))).collect();
        Logprobs { chosen: logprob(chosen), top }
    }
}
