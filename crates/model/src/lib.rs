//! The Nemotron-H family: a stack of Mamba-2, attention, MLP and mixture-of-experts blocks, one mixer per block
//! (arXiv 2504.03624, 2508.14444, 2512.20848).
//!
//! ```text
//! h = embeddings[ids]
//! for each block:  h = h + mixer(rms_norm(h))
//! logits = lm_head · rms_norm(h)
//! ```
//!
//! There is no positional embedding anywhere. [`Model::forward`] is the only forward: prefill, continuation and
//! decoding are the same call with different lengths, for one sequence or many. Its result for a token depends
//! on the tokens before it and on nothing else, bit for bit (see `tangelo_ops` for the order of arithmetic).
//!
//! This crate knows no files (weights come from a [`tangelo_formats::Checkpoint`] as named tensors), no text and
//! no scheduling.
//!
//! Legend, used throughout: l tokens · d model width · i = h·p inner width of Mamba · h heads · p head width ·
//! g groups sharing B and C · n state width · k convolution width · H query heads · K key/value heads · D head
//! width of attention · f width of an MLP · e experts. Fields are named as in the checkpoints.

#![forbid(unsafe_code)]
#![allow(non_snake_case)] // A, B, C, D, xBC are the names of the Mamba papers.

mod attention;
mod error;
mod linear;
mod load;
mod mamba2;
mod mlp;
mod model;
mod moe;
mod placement;
mod state;

pub use error::{Error, Result};
pub use linear::Linear;
pub use mamba2::MambaState;
pub use model::{LogitRows, Model, Observed, Segment};
pub use placement::{Bytes, Demand, Placement};
pub use state::{LayerState, State, StateTensor};
pub use tangelo_formats::config;
pub use tangelo_ops::{Cx, CxError, Mat};
