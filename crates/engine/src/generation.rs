//! The loop of sampling and decoding, one token per call.
//!
//! A step chooses a token from the logits of the last one and hands it out at once; the forward that it needs runs at
//! the beginning of the next step. So a token is seen as early as possible, and the last one of an answer, which
//! nobody continues, costs nothing. Tokens may be forced: they take the place of sampled ones, as when a budget of
//! reasoning is used up.

use std::collections::VecDeque;

use tangelo_core::TokenId;
use tangelo_model::Model;
use tangelo_ops::Cx;

use crate::error::{Error, Result};
use crate::sampling::{Logprobs, Sampled, Sampler, SamplingParams};
use crate::sequence::Sequence;

/// When to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens that end the answer; they are not part of it.
    pub stop_ids: Vec<TokenId>,
    /// Most tokens of the answer; `None` for as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Most tokens of prompt and answer together.
    pub context: usize,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// This stop token was chosen.
    StopToken(TokenId),
    /// The answer has the most tokens that were allowed.
    Length,
    /// Prompt and answer fill the context.
    ContextFull,
}

/// A token of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// What the model thought of it, if the parameters ask for that.
    pub logprobs: Option<Logprobs>,
    /// Whether it was forced instead of sampled.
    pub is_forced: bool,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The answer goes on with this token.
    Token(Token),
    /// The answer is complete; further steps say the same.
    Finished(Finish),
}

/// An answer in the making. A clone goes on independently, with the same tokens if nothing differs.
#[derive(Clone, Debug)]
pub struct Generation {
    sequence: Sequence,
    sampler: Sampler,
    limits: Limits,
    /// The answer so far; its last token is not in the sequence yet if `is_pending`.
    answer: Vec<TokenId>,
    is_pending: bool,
    forced: VecDeque<TokenId>,
    finished: Option<Finish>,
}

impl Generation {
    /// The answer that begins after `sequence`, whose tokens count as the prompt.
    ///
    /// # Errors
    /// [`Error::NoLogits`] if the sequence is empty or its prefill was interrupted, [`Error::PromptTooLong`] if it
    /// leaves no room in the context, [`Error::Parameter`].
    pub fn new(sequence: Sequence, params: SamplingParams, limits: Limits) -> Result<Generation> {
        let (prompt, context) = (sequence.position(), limits.context);
        let vocab_size = sequence.placed_logits().ok_or(Error::NoLogits)?.len();
        if prompt >= context {
            return Err(Error::PromptTooLong { prompt, context });
        }
        let sampler = Sampler::new(params, sequence.tokens(), vocab_size)?;
        let (answer, forced) = (Vec::new(), VecDeque::new());
        Ok(Generation { sequence, sampler, limits, answer, is_pending: false, forced, finished: None })
    }

    /// Puts tokens into the answer before anything else is sampled. They count like sampled ones, but do not stop the
    /// answer.
    pub fn force(&mut self, tokens: &[TokenId]) {
        self.forced.extend(tokens);
    }

    /// The next token, or the end.
    ///
    /// # Errors
    /// If the model is not the sequence's, a forced token is outside the vocabulary, or no token can be chosen.
    pub fn step(&mut self, model: &Model, cx: &Cx) -> Result<Step> {
        if self.finished.is_none() {
            self.finished = self.limit_reached();
        }
        if let Some(finish) = self.finished {
            return Ok(Step::Finished(finish));
        }
        if self.is_pending
            && let Some(&last) = self.answer.last()
        {
            self.sequence.decode(model, cx, last)?;
            self.is_pending = false;
        }
        let token = self.choose()?;
        if !token.is_forced && self.limits.stop_ids.contains(&token.id) {
            let finish = Finish::StopToken(token.id);
            self.finished = Some(finish);
            return Ok(Step::Finished(finish));
        }
        self.sampler.accept(token.id);
        self.answer.push(token.id);
        self.is_pending = true;
        Ok(Step::Token(token))
    }

    fn choose(&mut self) -> Result<Token> {
        let logits = self.sequence.placed_logits().ok_or(Error::NoLogits)?;
        match self.forced.pop_front() {
            Some(id) => {
                Ok(Token { id, logprobs: self.sampler.logprobs(logits.as_slice(), id), is_forced: true })
            }
            None => {
                let Sampled { token, logprobs } = self.sampler.sample_placed(logits)?;
                Ok(Token { id: token, logprobs, is_forced: false })
            }
        }
    }

    fn limit_reached(&self) -> Option<Finish> {
        let used = self.sequence.position() + usize::from(self.is_pending);
        if self.limits.max_tokens.is_some_and(|max| self.answer.len() >= max) {
            Some(Finish::Length)
        } else if used >= self.limits.context {
            Some(Finish::ContextFull)
        } else {
            None
        }
    }

    /// The answer so far, without the stop token.
    pub fn answer(&self) -> &[TokenId] {
        &self.answer
    }

    /// The sequence as far as the model has run: without the last token of the answer.
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// Hands the sequence back; see [`Generation::sequence`].
    pub fn into_sequence(self) -> Sequence {
        self.sequence
    }
}
