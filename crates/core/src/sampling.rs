//! How an answer is to be made, as far as somebody says so: a request, a command line, a persona, a model's authors.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::TokenId;

/// How tokens are chosen and when an answer ends; what is absent is left to whoever is asked next.
///
/// A file may give all but the biases, under the names of the fields. Ranges are checked by the sampler, whatever a value
/// comes from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingOverrides {
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: Option<f32>,
    /// How many of the most probable tokens stay; 0 for all.
    pub top_k: Option<usize>,
    /// Probability that the tokens that stay reach together.
    pub top_p: Option<f32>,
    /// Least probability relative to the best.
    pub min_p: Option<f32>,
    /// Divides the logits of tokens of prompt and answer.
    pub repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens of the answer.
    pub presence_penalty: Option<f32>,
    /// The same, once for each time.
    pub frequency_penalty: Option<f32>,
    /// Tokens that the penalties look back.
    pub penalty_window: Option<usize>,
    /// Added to the logits of these tokens.
    #[serde(skip)]
    pub logit_bias: Option<BTreeMap<TokenId, f32>>,
    /// Seed of the random numbers.
    pub seed: Option<u64>,
    /// Most tokens of an answer, reasoning included.
    pub max_tokens: Option<usize>,
    /// Texts that end an answer; none if it is empty.
    pub stop: Vec<String>,
}

impl SamplingOverrides {
    /// What is said here, and for the rest what is said there.
    #[must_use]
    pub fn or(self, other: SamplingOverrides) -> SamplingOverrides {
        SamplingOverrides {
            temperature: self.temperature.or(other.temperature),
            top_k: self.top_k.or(other.top_k),
            top_p: self.top_p.or(other.top_p),
            min_p: self.min_p.or(other.min_p),
            repetition_penalty: self.repetition_penalty.or(other.repetition_penalty),
            presence_penalty: self.presence_penalty.or(other.presence_penalty),
            frequency_penalty: self.frequency_penalty.or(other.frequency_penalty),
            penalty_window: self.penalty_window.or(other.penalty_window),
            logit_bias: self.logit_bias.or(other.logit_bias),
            seed: self.seed.or(other.seed),
            max_tokens: self.max_tokens.or(other.max_tokens),
            stop: if self.stop.is_empty() { other.stop } else { self.stop },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_first_wins() {
        let first =
            SamplingOverrides { temperature: Some(0.5), stop: vec!["a".into()], ..Default::default() };
        let second = SamplingOverrides {
            temperature: Some(0.9),
            max_tokens: Some(7),
            stop: vec!["b".into()],
            ..Default::default()
        };
        let both = first.clone().or(second.clone());
        assert_eq!(
            (both.temperature, both.max_tokens, both.stop),
            (Some(0.5), Some(7), vec!["a".to_owned()])
        );
        assert_eq!(SamplingOverrides::default().or(second.clone()), second);
        assert_eq!(first.clone().or(SamplingOverrides::default()), first);
    }
}
