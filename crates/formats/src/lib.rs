//! Files into values: safetensors, GGUF, `config.json`, tokenizers and chat templates.
//!
//! Bytes come in, checked values go out. Every parser is a pure function over a byte slice or a string, so
//! that it can be fuzzed, and none of them trusts its input: a number found in a file is compared with
//! [`tangelo_core::limits`] and with the size of the file before anything is allocated or indexed, and what
//! does not fit is an [`Error`] that names the place and the remedy. Tensors are never copied: a
//! [`StoredTensor`] is a dtype, a shape and a range of the memory-mapped file.
//!
//! [`Checkpoint::open`] is the door: whatever the container, a checkpoint is seen through the tensor names
//! that NVIDIA's safetensors files use (`backbone.layers.0.mixer.in_proj.weight`). The one table that maps
//! GGUF names to them is [`gguf::names`].
//!
//! This crate knows no arithmetic on weights (decoding a quantised block is the business of the operations),
//! no sampling and no network.

// The one exception is the memory map in `bytes`.
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod adapter;
pub mod bytes;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod generation;
pub mod gguf;
mod json;
pub mod safetensors;
pub mod template;
pub mod tensor;
pub mod tokenizer;
mod write;

pub use adapter::Adapter;
pub use bytes::Bytes;
pub use checkpoint::{Checkpoint, Format, TokenizerSource};
pub use config::{AttentionConfig, BlockKind, Config, MambaConfig, MlpConfig, MoeConfig, TensorSpec};
pub use error::{Error, Result};
pub use generation::GenerationConfig;
pub use tensor::StoredTensor;
