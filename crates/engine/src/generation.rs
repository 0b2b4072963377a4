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
use crate::mask::TokenMask;
use crate::sampling::{Logprobs, Sampled, Sampler, SamplingParams};
use crate::sequence::{Advance, Sequence};

/// When to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens that end the answer; they are not part of it.
    pub stop_ids: Vec<TokenId>,
    /// Tokens that the answer has at least: before, no stop token is chosen.
    pub min_tokens: usize,
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
        let mut sampler = Sampler::new(params, sequence.tokens(), vocab_size)?;
        if limits.min_tokens > 0 {
            sampler.forbid(&limits.stop_ids);
        }
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
        if self.is_over() {
            return self.choose(None);
        }
        if let Some(token) = self.pending() {
            self.sequence.decode(model, cx, token)?;
            self.is_pending = false;
        }
        self.choose(None)
    }

    /// Whether no token follows, because a limit is reached or a stop token was chosen.
    pub fn is_over(&mut self) -> bool {
        if self.finished.is_none() {
            self.finished = self.limit_reached();
        }
        self.finished.is_some()
    }

    /// The token of the answer that the model has not seen yet.
    pub fn pending(&self) -> Option<TokenId> {
        self.answer.last().copied().filter(|_| self.is_pending)
    }

    /// The part of a batch that shows the pending token to the model; `None` if there is none. The caller gives it to
    /// [`crate::advance`].
    pub fn advance(&mut self) -> Option<Advance<'_>> {
        if !std::mem::take(&mut self.is_pending) {
            return None;
        }
        let tokens = self.answer.last().map(std::slice::from_ref)?;
        Some(Advance { sequence: &mut self.sequence, tokens, wants_logits: true })
    }

    /// The next token out of those that are allowed, or the end. Nothing may be pending, unless the answer is over.
    ///
    /// # Errors
    /// [`Error::NoLogits`] if the model has yet to see the last token; if no token can be chosen.
    pub fn choose(&mut self, allowed: Option<&TokenMask>) -> Result<Step> {
        if self.is_over()
            && let Some(finish) = self.finished
        {
            return Ok(Step::Finished(finish));
        }
        if self.is_pending {
            return Err(Error::NoLogits);
        }
        let token = self.choose_token(allowed)?;
        if !token.is_forced && self.limits.stop_ids.contains(&token.id) {
            let finish = Finish::StopToken(token.id);
            self.finished = Some(finish);
            return Ok(Step::Finished(finish));
        }
        self.sampler.accept(token.id);
        self.answer.push(token.id);
        if self.answer.len() == self.limits.min_tokens {
            self.sampler.forbid(&[]);
        }
        self.is_pending = true;
        Ok(Step::Token(token))
    }

    fn choose_token(&mut self, allowed: Option<&TokenMask>) -> Result<Token> {
        let logits = self.sequence.placed_logits().ok_or(Error::NoLogits)?;
        match self.forced.pop_front() {
            Some(id) => {
                Ok(Token { id, logprobs: self.sampler.logprobs(logits.as_slice(), id), is_forced: true })
            }
            None => {
                let Sampled { token, logprobs } = match allowed {
                    None => self.sampler.sample_placed(logits)?,
                    Some(mask) => self.sampler.sample_allowed(logits.as_slice(), mask)?,
                };
                Ok(Token { id: token, logprobs, is_forced: false })
            }
        }
    }

    /// Whether the next token is forced.
    pub fn is_forced(&self) -> bool {
        !self.forced.is_empty()
    }

    /// Takes the state out, so that its memory can be used otherwise. Before the next step, [`Generation::resume`] must
    /// bring back a sequence of the same tokens.
    pub fn suspend(&mut self, model: &Model) -> Sequence {
        std::mem::replace(&mut self.sequence, Sequence::new(model))
    }

    /// Undoes [`Generation::suspend`].
    pub fn resume(&mut self, sequence: Sequence) {
        self.sequence = sequence;
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
