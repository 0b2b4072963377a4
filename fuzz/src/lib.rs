//! Hostile input for every parser: no panic, no huge allocation, no endless work, whatever the bytes.
//!
//! `cargo run -p fuzz` gives each target a few seconds of mutated seeds on stable Rust, always the same ones for
//! the same `--seed`, which is what CI runs. Each target runs in a process of its own, so that even a stack
//! overflow is caught; a failing input is saved and the command that reproduces it printed. Inputs that once
//! failed live in `fuzz/regressions/<target>/` and are tried first, by `cargo test -p fuzz` too.
//!
//! For long runs put a coverage-guided engine in front of the same functions, in a crate outside the workspace:
//! `fuzz_target!(|data: &[u8]| { fuzz::targets::gguf::target(data); })` for libFuzzer, with the seeds written by
//! `cargo run -p fuzz -- --write-seeds FOLDER` as its corpus.

#![deny(unsafe_code)]

pub mod alloc;
pub mod mutate;
pub mod runner;
pub mod targets;
pub mod watch;
