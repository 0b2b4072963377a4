//! An answer on its way to a client, in pieces.

use std::ops::{Add, AddAssign};

use tangelo_chat::Event;
use tangelo_core::TokenId;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::error::ApiError;

/// A part of the answers to one request.
#[derive(Debug)]
pub enum Piece {
    /// The prompt is in memory.
    Started(Started),
    /// Something was said.
    Event {
        /// Which of the answers.
        choice: usize,
        /// What.
        event: Event,
        /// The tokens that have been chosen since the last piece of this answer, if their probabilities are wanted.
        tokens: Vec<TokenLogprob>,
    },
    /// An answer is complete.
    Finished {
        /// Which.
        choice: usize,
        /// Why.
        ending: Ending,
        /// What it cost.
        usage: ChoiceUsage,
        /// The tokens since the last piece, as above.
        tokens: Vec<TokenLogprob>,
    },
    /// Nothing more comes, because of this.
    Failed(ApiError),
}

/// How a prompt came to be in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Started {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of it that were found in the tree of states.
    pub cached_tokens: usize,
    /// Tokens that a stored path has in common with it.
    pub matched_tokens: usize,
}

/// Tokens of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChoiceUsage {
    /// All of them.
    pub answer_tokens: usize,
    /// Those of the reasoning.
    pub reasoning_tokens: usize,
}

/// Why an answer is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The model stopped.
    Stop,
    /// It came to this stop string.
    StopString(String),
    /// The model stopped after calling tools.
    ToolCalls,
    /// It has the most tokens that were allowed.
    Length,
    /// The context, or the memory for it, is full.
    ContextFull,
    /// Nobody wanted it, or the server is shutting down.
    Cancelled,
}

/// A token and what the model thought of it.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// Its id.
    pub id: TokenId,
    /// The bytes it stands for.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The most probable tokens, best first.
    pub top: Vec<TokenAlternative>,
}

/// A token that might have been chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenAlternative {
    /// Its id.
    pub id: TokenId,
    /// The bytes it stands for.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// What is known of an answer before its first token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Unique, letters and digits only.
    pub id: String,
    /// When it was asked for, in seconds since 1970.
    pub created_unix_s: i64,
    /// The model's name, or the persona's if one answers.
    pub model: String,
}

/// The answers to one request. Dropping it cancels them within one step of the scheduler.
#[derive(Debug)]
pub struct AnswerStream {
    facts: Facts,
    pieces: UnboundedReceiver<Piece>,
    /// Answers that are not complete yet.
    left: usize,
}

impl AnswerStream {
    pub(crate) fn new(facts: Facts, pieces: UnboundedReceiver<Piece>, answers: usize) -> AnswerStream {
        AnswerStream { facts, pieces, left: answers }
    }

    /// The next piece; `None` after the last one.
    pub async fn next(&mut self) -> Option<Piece> {
        if self.left == 0 {
            return None;
        }
        // Whoever makes the answer says how it ended; if nobody says anything, nobody makes it any more.
        let gone = || Piece::Failed(ApiError::internal("the model has stopped working: restart the server"));
        let piece = self.pieces.recv().await.unwrap_or_else(gone);
        match &piece {
            Piece::Finished { .. } => self.left -= 1,
            Piece::Failed(_) => self.left = 0,
            Piece::Started(_) | Piece::Event { .. } => {}
        }
        Some(piece)
    }

    /// What was known before the first token.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Add for Started {
    type Output = Started;

    fn add(self, other: Started) -> Started {
        Started {
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            cached_tokens: self.cached_tokens + other.cached_tokens,
            matched_tokens: self.matched_tokens + other.matched_tokens,
        }
    }
}

impl Add for ChoiceUsage {
    type Output = ChoiceUsage;

    fn add(self, other: ChoiceUsage) -> ChoiceUsage {
        ChoiceUsage {
            answer_tokens: self.answer_tokens + other.answer_tokens,
            reasoning_tokens: self.reasoning_tokens + other.reasoning_tokens,
        }
    }
}

impl AddAssign for ChoiceUsage {
    fn add_assign(&mut self, other: ChoiceUsage) {
        *self = *self + other;
    }
}
