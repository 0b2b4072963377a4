//! The sampler of one sequence: parameters, history and random numbers.

use tangelo_core::TokenId;

use super::filters::Candidates;
use super::history::{History, Origin};
use super::logprobs::Logprobs;
use super::params::SamplingParams;
use super::peaks::Peaks;
use super::random::Random;
use crate::error::{Error, Result};

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: TokenId,
    /// What the model thought of it, if the parameters ask for that.
    pub logprobs: Option<Logprobs>,
}

/// Chooses the tokens of one sequence. A clone makes the same choices from the same logits.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    history: History,
    random: Random,
    /// Logits after penalties and bias, and what is left of them; kept for their memory.
    changed: Vec<f32>,
    peaks: Peaks,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler for the answer to `prompt` by a model with `vocab_size` tokens.
    ///
    /// # Errors
    /// [`Error::Parameter`] if a parameter is outside its range.
    pub fn new(params: SamplingParams, prompt: &[TokenId], vocab_size: usize) -> Result<Sampler> {
        params.check(vocab_size)?;
        let mut history = History::new(&params);
        prompt.iter().for_each(|&token| history.push(token, Origin::Prompt));
        let random = Random::new(params.seed);
        let (changed, peaks, candidates) = (Vec::new(), Peaks::default(), Candidates::default());
        Ok(Sampler { params, history, random, changed, peaks, candidates })
    }

    /// The parameters.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Chooses the next token from the logits (vocabulary). It becomes part of the history only by
    /// [`Sampler::accept`], so that the owner may put another in its place.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for NaN or +∞ among the logits, [`Error::NoCandidates`] if all are -∞.
    pub fn sample(&mut self, logits: &[f32]) -> Result<Sampled> {
        scan(&mut self.peaks, logits)?;
        let is_changed = self.change(logits)?;
        let changed = if is_changed { &self.changed } else { logits };
        let token = match self.peaks.best(changed) {
            Some(best) if self.params.temperature == 0.0 => Some(best),
            Some(_) => {
                self.candidates.select(&self.params, changed, &mut self.peaks);
                self.candidates.at(self.random.next_f64())
            }
            None => None,
        };
        let token = token.ok_or(Error::NoCandidates)?;
        Ok(Sampled { token, logprobs: self.logprobs(logits, token) })
    }

    /// Puts the logits after penalties and bias into `changed`, and their maxima into `peaks`; false if they are the
    /// same as before and `changed` is left alone.
    fn change(&mut self, logits: &[f32]) -> Result<bool> {
        if self.history.is_empty() && self.params.logit_bias.is_empty() {
            return Ok(false);
        }
        self.changed.clear();
        self.changed.extend_from_slice(logits);
        self.history.apply(&mut self.changed);
        for (&token, &bias) in &self.params.logit_bias {
            if let Some(logit) = self.changed.get_mut(token as usize) {
                *logit += bias;
            }
        }
        // A penalty or bias near the end of the range may have overflowed.
        scan(&mut self.peaks, &self.changed)?;
        Ok(true)
    }

    /// Log-probabilities of `token` under `logits` (vocabulary), if the parameters ask for them.
    pub fn logprobs(&self, logits: &[f32], token: TokenId) -> Option<Logprobs> {
        self.params.logprobs.map(|alternatives| Logprobs::new(logits, token, alternatives))
    }

    /// Takes note that `token` is now part of the answer.
    pub fn accept(&mut self, token: TokenId) {
        self.history.push(token, Origin::Answer);
    }
}

/// Finds the maxima of `logits`. -∞ is a forbidden token and fine.
fn scan(peaks: &mut Peaks, logits: &[f32]) -> Result<()> {
    if peaks.scan(logits) {
        return Ok(());
    }
    match (0..).zip(logits).find(|(_, logit)| logit.is_nan() || **logit == f32::INFINITY) {
        Some((token, &value)) => Err(Error::NotFinite { token, value }),
        None => Ok(()),
    }
}
