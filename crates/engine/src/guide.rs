//! What the owner of an answer has to do with it while it is made.
//!
//! The engine chooses tokens; what they mean is known elsewhere: which text they spell, whether a stop string has
//! appeared, whether reasoning has gone on for too long, whether the client has left. A [`Guide`] is asked between two
//! tokens. It runs on the thread that computes, so it must be quick and must not wait for anybody.

use tangelo_core::TokenId;

use crate::error::Error;
use crate::generation::{Finish, Token};
use crate::mask::TokenMask;

/// The owner of one answer.
pub trait Guide: Send {
    /// Whether anybody still wants the answer. Asked before every step, also while the answer waits for its turn.
    fn is_wanted(&self) -> bool {
        true
    }

    /// The prompt is in memory. Returns tokens that the answer begins with, which are not sampled; usually none.
    fn started(&mut self, report: &Report) -> Vec<TokenId> {
        let _ = report;
        Vec::new()
    }

    /// Which tokens may come next; `None` for all.
    ///
    /// # Errors
    /// If none may, with the reason; the answer fails with it.
    fn allowed(&mut self) -> Result<Option<&TokenMask>, Error> {
        Ok(None)
    }

    /// Takes the next token of the answer and says how to go on.
    fn token(&mut self, token: &Token) -> Flow;

    /// The answer is over. Called once, whatever happened, and nothing is called after it.
    fn ended(&mut self, ended: Ended);
}

/// How an answer goes on after a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// With the next token.
    Continue,
    /// With these tokens, which are not sampled. They are given to the guide like others.
    Force(Vec<TokenId>),
    /// It does not: it is complete.
    Stop,
}

/// How an answer ended.
#[derive(Debug)]
pub enum Ended {
    /// At a limit or a stop token.
    Finished(Finish),
    /// The guide said so.
    Stopped,
    /// Nobody wanted it any more, or the scheduler was told to drop everything.
    Cancelled,
    /// It could not go on.
    Failed(Error),
}

/// How a prompt came to be in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of it whose state was found, and not computed.
    pub cached_tokens: usize,
    /// Tokens that the prompt begins with like a stored path, at most one token less than the prompt. Those beyond
    /// `cached_tokens` were computed again because no state is kept nearer to where the prompts part.
    pub matched_tokens: usize,
    /// Whether the state came from a file.
    pub was_on_disk: bool,
}
