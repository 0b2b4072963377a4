//! The parsers under test, one file each.
//!
//! A target takes any bytes, gives them to a parser and to what usually happens with the result, and returns
//! whether they were accepted. It must not panic, allocate much or run long; errors are fine.

use std::path::Path;

pub mod adapter;
pub mod config;
pub mod generation;
pub mod gguf;
pub mod index;
pub mod safetensors;
pub mod selftest;
pub mod state;
pub mod template;
pub mod tokenizer;
pub mod tool_calls;

/// A parser under test.
#[derive(Debug)]
pub struct Target {
    /// Name on the command line.
    pub name: &'static str,
    /// What is parsed.
    pub what: &'static str,
    /// Parses; returns whether the bytes were accepted.
    pub run: fn(&[u8]) -> bool,
    /// Well-formed inputs, all accepted.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that mean something to the parser.
    pub dictionary: &'static [&'static str],
}

/// All targets.
pub static TARGETS: &[Target] = &[
    config::TARGET,
    generation::TARGET,
    safetensors::TARGET,
    index::TARGET,
    gguf::TARGET,
    tokenizer::TARGET,
    template::TARGET,
    tool_calls::TARGET,
    state::TARGET,
    adapter::TARGET,
];

/// The target of that name; also one of those that test the fuzzer itself.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().chain(selftest::TARGETS).find(|t| t.name == name)
}

/// The contents of a file below `fixtures/`.
///
/// # Panics
/// If it is missing: without seeds a run would prove nothing.
pub fn fixture(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(path);
    std::fs::read(&path).unwrap_or_else(|e| panic!("the seed {} cannot be read: {e}", path.display()))
}

fn fixtures(paths: &[&str]) -> Vec<Vec<u8>> {
    paths.iter().map(|p| fixture(p)).collect()
}
