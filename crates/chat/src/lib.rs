//! Conversations: text in, typed events out, and back.
//!
//! A [`Conversation`] is rendered by the model's own template to one prompt ([`Renderer`]), together with the places
//! where the model's state is worth keeping. What the model then writes is turned into typed events as it arrives
//! ([`StreamParser`]): reasoning, content, tool calls piece by piece. How a family of models writes tool calls is a
//! [`Dialect`], one file each. [`ThinkingBudget`] ends reasoning that has gone on for too long.
//!
//! Everything here is a pure function of its arguments. This crate doesn't know the model, sampling, sequences, HTTP
//! or the terminal; tokens appear only as ids.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod budget;
pub mod dialect;
pub mod error;
pub mod event;
mod fence;
pub mod follow_up;
pub mod message;
pub mod parser;
pub mod render;
pub mod schema;
pub mod stop;

pub use budget::ThinkingBudget;
pub use dialect::Dialect;
pub use error::{Error, Result};
pub use event::Event;
pub use follow_up::follow_ups;
pub use message::{Conversation, Message, Role, Tool, ToolCall};
pub use parser::StreamParser;
pub use render::{Cut, CutKind, PromptTokens, RenderOptions, Rendered, Renderer};
pub use stop::StopStrings;
