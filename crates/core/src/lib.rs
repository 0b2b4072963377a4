//! Words every other room uses: element types and their block layouts, number conversions, ids, limits, wishes
//! about answers.
//!
//! This crate knows no files, no threads, no text and no kernels.

#![forbid(unsafe_code)]

pub mod dtype;
pub mod float;
pub mod limits;
pub mod random;
pub mod sampling;

pub use dtype::DType;
pub use sampling::SamplingOverrides;

/// Index of a token in the vocabulary.
pub type TokenId = u32;
