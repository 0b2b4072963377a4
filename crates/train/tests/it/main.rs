//! The trainer against the engine, against transformers, and against itself.

mod adapters;
mod examples;
mod fixtures;
mod network;
mod runs;
