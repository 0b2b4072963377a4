//! Sequences of tokens over a model: prefill, decoding, ragged batches, forks, sampling and state files.
//!
//! ```text
//! Sequence  ──prefill(tokens)──▶  logits of the last token  ──Sampler──▶  token  ──decode──▶  …
//!     │ keep, rollback, fork, save, restore
//! ```
//!
//! A [`Sequence`] is a path of tokens and the model's state after them. Whatever made the state (one prefill,
//! chunks, single steps, a batch with others, a fork, a rollback, a file), its logits are the same bits:
//! `tests/it/laws.rs` holds the crate to that. [`Generation`] is the loop of sampling and decoding, one token per call,
//! so that its owner may stop it, look at it, or push tokens into it.
//!
//! This crate knows token ids only: no text, no templates, no network, and no clock, so that equal calls give equal
//! answers.

#![forbid(unsafe_code)]

mod atomic;
mod capacity;
mod constraint;
mod error;
mod generation;
mod guide;
mod logits;
mod mask;
pub mod sampling;
pub mod scheduler;
mod sequence;
pub mod state_file;
mod tree;

pub use capacity::{available_bytes, check_context, check_weights, context_bytes, default_context};
pub use constraint::{Constraint, Grammar, Grammars};
pub use error::{Error, Result};
pub use generation::{Finish, Generation, Limits, Step, Token};
pub use guide::{Ended, Flow, Guide, Report};
pub use logits::Logits;
pub use mask::TokenMask;
pub use sampling::{Logprobs, Sampler, SamplingParams};
pub use scheduler::Scheduler;
pub use sequence::{Advance, CHUNK_TOKENS, Kept, Sequence, advance};
pub use tree::{Explanation, Folder, Found, Owner, PERIOD, Reason, StateTree, TreeStats};
