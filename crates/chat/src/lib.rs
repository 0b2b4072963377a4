//! Conversations: text in, typed events out, and back.
//!
//! A [`Conversation`] is rendered by the model's own template to one prompt ([`Renderer`]), together with the places
//! where the model's state is worth keeping. What the model then writes is turned into typed events as it arrives
//! ([`StreamParser`]): reasoning, content, tool calls piece by piece. How a family of models writes tool calls is a
//! [`Dialect`], one file each. [`Reader`] does so from tokens on, and [`ThinkingBudget`] ends reasoning that has gone on for
//! too long. How a conversation will come back is foreseen by [`follow_ups`], and which part of it a token comes from is
//! found by [`origin_of_token`]. A [`Persona`] is what conversations begin with.
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
pub mod origin;
pub mod parser;
pub mod persona;
pub mod reader;
pub mod render;
pub mod schema;
pub mod stop;

pub use budget::ThinkingBudget;
pub use dialect::Dialect;
pub use error::{Error, Result};
pub use event::Event;
pub use follow_up::{beginning, follow_ups};
pub use message::{Conversation, Message, Role, Tool, ToolCall};
pub use origin::{Field, Origin, Part, origin_of_token};
pub use parser::StreamParser;
pub use persona::Persona;
pub use reader::Reader;
pub use render::{Cut, CutKind, PromptTokens, RenderOptions, Rendered, Renderer};
pub use stop::StopStrings;
