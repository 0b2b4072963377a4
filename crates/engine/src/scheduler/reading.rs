//! A prompt that is being read: from the state that was found for it, in pieces, to its end.

use tangelo_core::TokenId;
use tangelo_model::{LogitRows, Model, Observed, Segment, State};
use tangelo_ops::Cx;

use super::answering::Answering;
use super::job::{Branch, Done, Work};
use crate::error::Result;
use crate::guide::{Ended, Report};
use crate::sequence::{Advance, Kept, Sequence};
use crate::tree::{Owner, Reason};

/// What becomes of a prompt that has been read.
pub(super) enum Purpose {
    Answer(Vec<Branch>),
    Warm(Done<std::result::Result<Kept, Ended>>),
    /// An answer goes on whose state had to make room.
    Resume(Box<Answering>),
}

/// A prompt on its way into memory.
pub(super) struct Reading {
    /// Increases from each to the next.
    pub number: u64,
    pub owner: Owner,
    pub sequence: Sequence,
    pub prompt: Vec<TokenId>,
    /// Positions after which the state is kept, in increasing order, all before the end and beyond the sequence.
    pub cuts: Vec<usize>,
    pub report: Report,
    pub purpose: Purpose,
}

impl Reading {
    /// Tokens that may come in one forward, at most `most`: up to the next place where a state is kept.
    pub fn next_len(&self, period: usize, most: usize) -> usize {
        let at = self.sequence.position();
        let next_period = (at / period + 1) * period;
        let stop = self.cuts.first().copied().unwrap_or(usize::MAX).min(next_period).min(self.prompt.len());
        (stop - at).min(most)
    }

    /// The part of a batch that reads `len` more tokens.
    pub fn advance(&mut self, len: usize) -> Advance<'_> {
        let at = self.sequence.position();
        let wants_logits = at + len == self.prompt.len();
        Advance { sequence: &mut self.sequence, tokens: &self.prompt[at..at + len], wants_logits }
    }

    /// Whether the whole prompt is in memory, with the logits of its last token.
    pub fn is_done(&self) -> bool {
        self.sequence.position() == self.prompt.len() && self.sequence.placed_logits().is_some()
    }

    /// Why the state at this point is kept, if it is. Forgets the cut.
    pub fn reason_to_keep(&mut self, period: usize) -> Option<Reason> {
        let at = self.sequence.position();
        let is_cut = self.cuts.first() == Some(&at);
        self.cuts.retain(|&cut| cut > at);
        match is_cut {
            true => Some(Reason::Cut),
            false => (at.is_multiple_of(period) && at < self.prompt.len()).then_some(Reason::Period),
        }
    }

    /// Makes the state at `cut` be kept, if the reading has not passed it.
    pub fn add_cut(&mut self, cut: usize) {
        if cut > self.sequence.position()
            && cut < self.prompt.len()
            && let Err(place) = self.cuts.binary_search(&cut)
        {
            self.cuts.insert(place, cut);
        }
    }

    /// Whether anybody still wants the prompt read.
    pub fn is_wanted(&mut self) -> bool {
        match &mut self.purpose {
            Purpose::Answer(branches) => {
                let mut work = Work::Answer(std::mem::take(branches));
                let is_wanted = work.drop_unwanted();
                if let Work::Answer(left) = work {
                    *branches = left;
                }
                is_wanted
            }
            Purpose::Warm(_) => true,
            Purpose::Resume(answering) => answering.guide.is_wanted(),
        }
    }

    /// Number of answers that it will be.
    pub fn width(&self) -> usize {
        match &self.purpose {
            Purpose::Answer(branches) => branches.len(),
            Purpose::Warm(_) | Purpose::Resume(_) => 1,
        }
    }
}

impl Purpose {
    /// Ends it without a result.
    pub fn end(self, mut ended: impl FnMut() -> Ended) {
        match self {
            Purpose::Answer(branches) => {
                branches.into_iter().for_each(|mut branch| branch.guide.ended(ended()))
            }
            Purpose::Warm(done) => done(Err(ended())),
            Purpose::Resume(mut answering) => answering.guide.ended(ended()),
        }
    }
}

/// A prompt whose hidden states are being summed up.
pub(super) struct Embedding {
    prompt: Vec<TokenId>,
    state: State,
    sum: Vec<f64>,
    done: Done<Result<Vec<f32>>>,
}

impl Embedding {
    pub fn new(model: &Model, prompt: Vec<TokenId>, done: Done<Result<Vec<f32>>>) -> Embedding {
        Embedding { prompt, state: model.new_state(), sum: vec![0.0; model.config().hidden_size], done }
    }

    /// Reads at most `most` more tokens; gives itself back if there are more.
    pub fn step(mut self, model: &Model, cx: &Cx, most: usize) -> Option<Embedding> {
        let at = self.state.position();
        let tokens = &self.prompt[at..self.prompt.len().min(at + most.max(1))];
        let sum = &mut self.sum;
        // Summed token by token, so that the pieces do not show.
        let mut observe = |at: Observed, hidden: &tangelo_ops::Mat| {
            if at == Observed::Norm {
                (0..hidden.rows()).for_each(|row| {
                    sum.iter_mut().zip(hidden.row(row)).for_each(|(sum, &x)| *sum += f64::from(x));
                });
            }
        };
        let logits = LogitRows::All;
        let mut segments = [Segment { tokens, state: &mut self.state, logits }];
        match model.forward_observed(cx, &mut segments, &mut observe) {
            Err(error) => (self.done)(Err(error.into())),
            Ok(_) if self.state.position() < self.prompt.len() => return Some(self),
            Ok(_) => {
                let count = self.prompt.len() as f64;
                (self.done)(Ok(self.sum.iter().map(|sum| (sum / count) as f32).collect()));
            }
        }
        None
    }
}

/// The prompt being read for `owner` that has the most tokens in common with `prompt`, by its place, and how many.
pub(super) fn longest_common(
    readings: &[Reading],
    owner: Owner,
    prompt: &[TokenId],
) -> Option<(usize, usize)> {
    let common = |reading: &Reading| {
        reading.prompt.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1)
    };
    let of_owner = readings.iter().enumerate().filter(|(_, reading)| reading.owner == owner);
    of_owner.map(|(at, reading)| (at, common(reading))).max_by_key(|(_, common)| *common)
}
