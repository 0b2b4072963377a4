//! Words every other room uses: element types and their block layouts, number conversions, ids, limits.
//!
//! This crate knows no files, no threads, no text and no kernels.

#![forbid(unsafe_code)]

pub mod dtype;
pub mod float;
pub mod limits;

pub use dtype::DType;

/// Index of a token in the vocabulary.
pub type TokenId = u32;
