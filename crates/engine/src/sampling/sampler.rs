//! The sampler of one sequence: parameters, history and random numbers.

use tangelo_core::TokenId;
use tangelo_ops::logits::{Change, change, fetch, maxima};

use super::filters::{Candidates, floor};
use super::history::{History, Origin};
use super::logprobs::Logprobs;
use super::params::SamplingParams;
use super::peaks::Peaks;
use super::random::Random;
use crate::error::{Error, Result};
use crate::logits::Logits;
use crate::mask::TokenMask;

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
    changes: Vec<Change>,
    peaks: Peaks,
    candidates: Candidates,
    /// Tokens that may not be chosen for now, sorted.
    forbidden: Vec<TokenId>,
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
        let (peaks, candidates) = (Peaks::default(), Candidates::default());
        let (changed, changes, forbidden) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Sampler { params, history, random, changed, changes, peaks, candidates, forbidden })
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
        let changed = if is_changed { std::mem::take(&mut self.changed) } else { Vec::new() };
        let token = self.choose(if is_changed { &changed } else { logits });
        self.changed = changed;
        let token = token.ok_or(Error::NoCandidates)?;
        Ok(Sampled { token, logprobs: self.logprobs(logits, token) })
    }

    /// [`Sampler::sample`] among the tokens of a mask.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn sample_allowed(&mut self, logits: &[f32], allowed: &TokenMask) -> Result<Sampled> {
        scan(&mut self.peaks, logits)?;
        self.gather_changes();
        let mut changed = std::mem::take(&mut self.changed);
        changed.clear();
        changed.extend_from_slice(logits);
        apply(&self.changes, &mut changed);
        allowed.forbid_others(&mut changed);
        let token = scan(&mut self.peaks, &changed).map(|()| self.choose(&changed));
        self.changed = changed;
        let token = token?.ok_or(Error::NoCandidates)?;
        Ok(Sampled { token, logprobs: self.logprobs(logits, token) })
    }

    /// From now on these tokens are never chosen, in place of those forbidden before.
    pub fn forbid(&mut self, tokens: &[TokenId]) {
        self.forbidden = tokens.to_vec();
        self.forbidden.sort_unstable();
        self.forbidden.dedup();
    }

    /// [`Sampler::sample`] from logits that may be on a device. Of those, only what can be chosen comes to the host.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn sample_placed(&mut self, logits: &Logits) -> Result<Sampled> {
        let row = match logits {
            Logits::Host(logits) => return self.sample(logits),
            Logits::Device { row, .. } => row,
        };
        self.gather_changes();
        let changed = (!self.changes.is_empty()).then(|| change(row, &self.changes));
        let row = changed.as_ref().unwrap_or(row);
        if !self.peaks.set(&maxima(row)) {
            // Something is not finite: what and where is found on the host.
            return self.sample(logits.as_slice());
        }
        let floor = floor(&self.params, row.cols(), &mut self.peaks).unwrap_or(f32::NEG_INFINITY);
        let chunks: Vec<u32> = self.peaks.chunks_with(floor).collect();
        let mut near = std::mem::take(&mut self.changed);
        near.resize(row.cols(), 0.0);
        fetch(row, &chunks, &mut near);
        let token = self.choose(&near);
        self.changed = near;
        let token = token.ok_or(Error::NoCandidates)?;
        let logprobs = self.params.logprobs.and_then(|_| self.logprobs(logits.as_slice(), token));
        Ok(Sampled { token, logprobs })
    }

    /// A token of `logits` after penalties and bias, of which `peaks` has the maxima.
    fn choose(&mut self, logits: &[f32]) -> Option<TokenId> {
        let best = self.peaks.best(logits)?;
        if self.params.temperature == 0.0 {
            return Some(best);
        }
        self.candidates.select(&self.params, logits, &mut self.peaks);
        self.candidates.at(self.random.next_f64())
    }

    /// Puts the logits after penalties and bias into `changed`, and their maxima into `peaks`; false if they are the
    /// same as before and `changed` is left alone.
    fn change(&mut self, logits: &[f32]) -> Result<bool> {
        self.gather_changes();
        if self.changes.is_empty() {
            return Ok(false);
        }
        self.changed.clear();
        self.changed.extend_from_slice(logits);
        apply(&self.changes, &mut self.changed);
        // A penalty or bias near the end of the range may have overflowed.
        scan(&mut self.peaks, &self.changed)?;
        Ok(true)
    }

    /// Puts what penalties and biases do into `changes`, once per token.
    fn gather_changes(&mut self) {
        let biases = &self.params.logit_bias;
        let is_forbidden = |token: &TokenId| self.forbidden.binary_search(token).is_ok();
        let bias = |token: TokenId| match is_forbidden(&token) {
            true => f32::NEG_INFINITY,
            false => biases.get(&token).copied().unwrap_or(0.0),
        };
        self.changes.clear();
        self.changes.extend(self.history.changes().map(|c| Change { bias: bias(c.token), ..c }));
        let biased = biases.keys().filter(|token| !is_forbidden(token));
        let others = biased.chain(&self.forbidden).filter(|token| !self.history.has(**token));
        self.changes.extend(others.map(|&token| Change { bias: bias(token), ..Change::none(token) }));
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

/// Makes the changes to `logits`, (vocabulary).
fn apply(changes: &[Change], logits: &mut [f32]) {
    for change in changes {
        if let Some(logit) = logits.get_mut(change.token as usize) {
            *logit = change.apply(*logit);
        }
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
