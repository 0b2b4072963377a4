//! What a caller may ask of the sampler, and the ranges in which it makes sense.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

use tangelo_core::limits::{LOGIT_BIAS_MAX, LOGPROBS_MAX};
use tangelo_core::{SamplingOverrides, TokenId};

use crate::error::{Error, Result};

/// How to choose tokens; the default draws from the model's own distribution with the seed 0.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divisor of the logits; 0 always takes the largest.
    pub temperature: f32,
    /// How many of the most probable tokens stay; `None` for all.
    pub top_k: Option<usize>,
    /// Probability that the tokens that stay must reach together; 1 for all.
    pub top_p: f32,
    /// Least probability relative to that of the most probable token; 0 for all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or answer; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of every token that the answer contains.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token as many times as the answer contains it.
    pub frequency_penalty: f32,
    /// Number of latest tokens that the penalties look at; `None` for all.
    pub penalty_window: Option<usize>,
    /// Added to the logits of these tokens; -∞ forbids one.
    pub logit_bias: BTreeMap<TokenId, f32>,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Whether to report log-probabilities, and of how many alternatives; `Some(0)` reports the chosen token's only.
    pub logprobs: Option<usize>,
}

impl Default for SamplingParams {
    fn default() -> SamplingParams {
        SamplingParams {
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_window: None,
            logit_bias: BTreeMap::new(),
            seed: 0,
            logprobs: None,
        }
    }
}

impl SamplingParams {
    /// The most probable token, always.
    pub fn greedy() -> SamplingParams {
        SamplingParams { temperature: 0.0, ..SamplingParams::default() }
    }

    /// What is said, and for the rest the model's own distribution; the seed is a new one if none is said.
    pub fn new(said: &SamplingOverrides) -> SamplingParams {
        let plain = SamplingParams::default();
        SamplingParams {
            temperature: said.temperature.unwrap_or(plain.temperature),
            // Hugging Face writes 0 for "all".
            top_k: said.top_k.filter(|&k| k > 0),
            top_p: said.top_p.unwrap_or(plain.top_p),
            min_p: said.min_p.unwrap_or(plain.min_p),
            repetition_penalty: said.repetition_penalty.unwrap_or(plain.repetition_penalty),
            presence_penalty: said.presence_penalty.unwrap_or(plain.presence_penalty),
            frequency_penalty: said.frequency_penalty.unwrap_or(plain.frequency_penalty),
            penalty_window: said.penalty_window,
            logit_bias: said.logit_bias.clone().unwrap_or_default(),
            seed: said.seed.unwrap_or_else(new_seed),
            logprobs: None,
        }
    }

    /// Compares every parameter with its range and the biased tokens with the vocabulary.
    ///
    /// # Errors
    /// [`Error::Parameter`] for the first one outside.
    pub fn check(&self, vocab_size: usize) -> Result<()> {
        let float = |name, value: f32, is_good: bool, expected| {
            let found = value.to_string();
            if is_good { Ok(()) } else { Err(Error::Parameter { name, expected, found }) }
        };
        let t = self.temperature;
        float("temperature", t, t.is_finite() && t >= 0.0, "a number from 0 up")?;
        float("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1")?;
        float("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1")?;
        let r = self.repetition_penalty;
        float("repetition_penalty", r, r.is_finite() && r > 0.0, "a number above 0")?;
        for (name, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            float(name, value, value.is_finite(), "a finite number")?;
        }
        let count = |name, value: usize, is_good: bool, expected| {
            let found = value.to_string();
            if is_good { Ok(()) } else { Err(Error::Parameter { name, expected, found }) }
        };
        let (k, logprobs) = (self.top_k.unwrap_or(1), self.logprobs.unwrap_or(0));
        count("top_k", k, k > 0, "at least 1, or absent for all tokens")?;
        count("logprobs", logprobs, logprobs <= LOGPROBS_MAX, "at most 1024")?;
        let entries = self.logit_bias.len();
        count("logit_bias", entries, entries <= LOGIT_BIAS_MAX, "at most 65536 tokens long")?;
        for (&token, &bias) in &self.logit_bias {
            let token = token as usize;
            count("logit_bias", token, token < vocab_size, "about tokens of the vocabulary")?;
            float("logit_bias", bias, bias < f32::INFINITY, "finite, or -inf to forbid a token")?;
        }
        Ok(())
    }
}

/// A seed that no other run has, as far as one can tell: the standard library seeds its hash maps from the system. Readers
/// of JSON keep integers exact up to 2^53, and whoever is told this one will want to repeat it.
fn new_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 11
}
