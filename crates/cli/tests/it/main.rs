//! The program `tangelo`, run as its users run it, command by command.
//!
//! One program of tests, because each would be linked with all dependencies again.

mod bench;
mod chat;
mod convert;
mod device;
mod fake_hub;
mod generate;
mod hub;
mod logits;
mod mcp;
mod perplexity;
mod pocket;
mod program;
mod shape4b;
mod show;
mod synth;
mod teach;
mod tokenize;
