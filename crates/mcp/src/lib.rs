//! Tools of MCP servers as tools of a conversation.
//!
//! A [`Config`] names servers: programs that speak over their standard input and output, or addresses that speak HTTP.
//! [`Servers`] connects to them, gives their tools to a model as [`tangelo_chat::Tool`]s whose names are unique, calls
//! them, and turns what they return into text. Which tools may be called without asking anybody is an [`Allowed`];
//! [`answer_calls`] runs the calls of an assistant message under it. [`blocking::Servers`] is the same for programs
//! without an async runtime.
//!
//! The protocol itself is the `rmcp` crate's. This crate doesn't know the model, HTTP servers or the terminal.
//! What a server says is a stranger's word: lengths are bounded, names are checked, and its hints about what a tool
//! does are shown to whoever decides, but never decide.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod allowed;
pub mod blocking;
mod calls;
mod config;
mod connection;
mod error;
mod expand;
mod group;
mod outcome;
mod servers;
mod tail;
mod tool;

pub use allowed::Allowed;
pub use calls::{answer_calls, result_text, tool_message};
pub use config::{Config, Secrets, ServerConfig, Transport};
pub use error::{Error, Result};
pub use outcome::ToolOutcome;
pub use servers::Servers;
pub use tool::{Hints, McpTool};
