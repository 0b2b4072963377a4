//! What the crate promises, tested from outside: messages, prompts, budgets and the events of a model's output.
//!
//! One program, because each would be linked with all dependencies again.

mod budget;
mod messages;
mod render;
mod transcripts;
