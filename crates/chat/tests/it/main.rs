//! What the crate promises, tested from outside: messages, prompts and what follows them, personas, budgets
//! and the events of a model's output.
//!
//! One program, because each would be linked with all dependencies again.

mod budget;
mod fixtures;
mod follow_up;
mod grammar;
mod messages;
mod origin;
mod persona;
mod reader;
mod render;
mod transcripts;
