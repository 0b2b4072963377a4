//! Files of models, tested from outside: what they hold, what they must agree with, and what must be refused.
//!
//! One program, because each would be linked with all dependencies again.

mod checkpoints;
mod common;
mod configs;
mod containers;
mod hostile_gguf;
mod hostile_safetensors;
mod mutations;
mod template;
mod tokenizer;
