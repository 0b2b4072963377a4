//! Teaching models of the family: their forward with a tape, gradients, optimisers, data, runs that can be taken up again.
//!
//! The forward is made of the operations that the engine's is made of, so a model that is taught says the same bits here
//! and there. Everything is deterministic: the same recipe gives the same weights, however often it was interrupted and
//! however a batch was divided.

#![forbid(unsafe_code)]
#![allow(non_snake_case)] // A, B, C, D are the names of the Mamba papers.

pub mod adapter;
mod adapter_files;
mod batch;
mod caught;
mod disk;
mod error;
pub mod examples;
pub mod files;
mod init;
pub mod memory;
mod model_files;
mod network;
mod nodes;
pub mod optimiser;
mod params;
mod plot;
pub mod recipe;
mod run;
pub mod schedule;
mod tape;
pub mod tokenizer;

pub use batch::Batch;
pub use error::{Error, Result};
pub use init::{init, repair_embeddings};
pub use model_files::merge;
pub use network::Network;
pub use optimiser::Optimiser;
pub use params::{Gradients, Param, ParamId, Params};

pub use recipe::Recipe;
pub use run::{Progress, Report, Run};
pub use schedule::Schedule;
pub use tape::{Tape, Var};
