//! Penalties for tokens that have been there before.
//!
//! For a token that occurs in the window, with logit l, count n over prompt and answer and count m over the answer:
//!
//! ```text
//! l ← l / r  if l > 0,  l · r  otherwise          repetition, if n > 0 (Keskar et al. 2019, arXiv 1909.05858, 4.1)
//! l ← l − m · frequency − [m > 0] · presence       OpenAI's definition, over what was generated
//! ```
//!
//! Repetition looks at the prompt too, as in Hugging Face transformers; the other two do not, as in OpenAI's API and
//! in vLLM.

use std::collections::{HashMap, VecDeque};

use tangelo_core::TokenId;
use tangelo_ops::logits::Change;

use super::params::SamplingParams;

/// Where a token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was given.
    Prompt,
    /// It is part of the answer.
    Answer,
}

/// How often a token occurs in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    anywhere: u32,
    answer: u32,
}

/// The tokens that penalties look at. Nothing is recorded if there are no penalties.
#[derive(Clone, Debug)]
pub struct History {
    repetition: f32,
    presence: f32,
    frequency: f32,
    window: Option<usize>,
    /// The tokens of the window, oldest first; empty without a window, because then nothing ever leaves.
    recent: VecDeque<(TokenId, Origin)>,
    counts: HashMap<TokenId, Count>,
}

impl History {
    /// An empty history under the penalties of `params`.
    pub fn new(params: &SamplingParams) -> History {
        History {
            repetition: params.repetition_penalty,
            presence: params.presence_penalty,
            frequency: params.frequency_penalty,
            window: params.penalty_window,
            recent: VecDeque::new(),
            counts: HashMap::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.repetition == 1.0 && self.presence == 0.0 && self.frequency == 0.0
    }

    /// Takes note of the next token.
    pub fn push(&mut self, token: TokenId, origin: Origin) {
        if self.is_idle() {
            return;
        }
        let count = self.counts.entry(token).or_default();
        count.anywhere += 1;
        count.answer += u32::from(origin == Origin::Answer);
        if let Some(window) = self.window {
            self.recent.push_back((token, origin));
            if self.recent.len() > window {
                self.forget_oldest();
            }
        }
    }

    fn forget_oldest(&mut self) {
        let Some((token, origin)) = self.recent.pop_front() else { return };
        let Some(count) = self.counts.get_mut(&token) else { return };
        count.anywhere -= 1;
        count.answer -= u32::from(origin == Origin::Answer);
        if *count == Count::default() {
            self.counts.remove(&token);
        }
    }

    /// Whether a token has a change.
    pub fn has(&self, token: TokenId) -> bool {
        self.counts.contains_key(&token)
    }

    /// What it does to the logits, one change per token in no particular order.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        self.counts.iter().map(|(&token, count)| {
            let penalty = count.answer as f32 * self.frequency + self.presence;
            let penalty = if count.answer > 0 { penalty } else { 0.0 };
            Change { repetition: self.repetition, penalty, ..Change::none(token) }
        })
    }
}
