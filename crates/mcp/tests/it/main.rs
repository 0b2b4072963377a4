//! `tangelo-mcp` against servers written by hand.
//!
//! One program of tests, because each would be linked with all dependencies again.

mod config;
mod http;
mod official;
#[path = "server/protocol.rs"]
mod protocol;
mod stdio;
mod support;
