//! The trainer against the engine, against transformers, and against itself.

mod fixtures;
mod network;
mod runs;
