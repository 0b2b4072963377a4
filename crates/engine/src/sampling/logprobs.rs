//! Log-probabilities of the model's own distribution: log-softmax of unchanged logits.

use tangelo_core::TokenId;

use super::exp::exp;
use super::filters::largest_first;

/// What the model thought of a token and of the alternatives.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Natural logarithm of the chosen token's probability.
    pub chosen: f32,
    /// The most probable tokens and their log-probabilities, best first, equals by id.
    pub top: Vec<(TokenId, f32)>,
}

impl Logprobs {
    /// For the logits (vocabulary) from which `token` was chosen, with the `alternatives` best tokens. The sum of
    /// exponentials is in f64, in the order of ids.
    pub(crate) fn new(logits: &[f32], token: TokenId, alternatives: usize) -> Logprobs {
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|&logit| exp(f64::from(logit) - largest)).sum();
        let normaliser = largest + sum.ln();
        let logprob = |token: TokenId| {
            let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
            (f64::from(logit) - normaliser) as f32
        };
        let best = best(logits, alternatives);
        Logprobs { chosen: logprob(token), top: best.into_iter().map(|t| (t, logprob(t))).collect() }
    }
}

/// The `n` tokens with the largest logits, best first, equals by id.
fn best(logits: &[f32], n: usize) -> Vec<TokenId> {
    let by_logit =
        |a: &TokenId, b: &TokenId| largest_first(logits[*a as usize], logits[*b as usize]).then(a.cmp(b));
    if n == 0 {
        return Vec::new();
    }
    let mut tokens: Vec<TokenId> = (0..).take(logits.len()).collect();
    if n < tokens.len() {
        tokens.select_nth_unstable_by(n, by_logit);
        tokens.truncate(n);
    }
    tokens.sort_unstable_by(by_logit);
    tokens
}
