//! What can go wrong between a checkpoint and a forward.

use tangelo_core::{DType, TokenId};
use tangelo_ops::matmul::PackError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between a checkpoint and a forward.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint could not give a tensor.
    #[error(transparent)]
    Formats(#[from] tangelo_formats::Error),
    /// A tensor does not have the shape the configuration asks for.
    #[error(
        "tensor {name} has shape {got:?}, but the configuration asks for {want:?}: the files do not belong together"
    )]
    Shape {
        /// Checkpoint name.
        name: String,
        /// Shape by the configuration.
        want: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// The bytes of a weight do not fit its shape.
    #[error("tensor {name}: {source}")]
    Weight {
        /// Checkpoint name.
        name: String,
        /// What does not fit.
        source: tangelo_ops::matmul::WeightError,
    },
    /// The system has no memory for a weight.
    #[error(
        "no memory for tensor {name}: {cause}; a model takes about the size of its file: close other programs or \
         choose a smaller file"
    )]
    NoMemory {
        /// Checkpoint name.
        name: String,
        /// What the system or the device says.
        cause: PackError,
    },
    /// The device failed, before or during this call; what was on it is lost.
    #[error(transparent)]
    Device(#[from] tangelo_ops::GpuError),
    /// A parameter that must be a plain float is stored in blocks.
    #[error(
        "tensor {name} is stored as {dtype}, but must be F32, F16 or BF16: convert the model again without quantising it"
    )]
    NotPlain {
        /// Checkpoint name.
        name: String,
        /// Stored type.
        dtype: DType,
    },
    /// An FP8 weight without its scale.
    #[error(
        "{name} is missing, and FP8 weights mean nothing without it: only ModelOpt's FP8 with one scale per tensor \
         can be read, not scales per block (weight_scale_inv)"
    )]
    NoScale {
        /// Checkpoint name of the scale.
        name: String,
    },
    /// An FP8 scale that is not a positive number.
    #[error("{name} is {scale}, but a scale must be a positive number: the file is damaged")]
    Scale {
        /// Checkpoint name.
        name: String,
        /// Its value.
        scale: f32,
    },
    /// A configuration without what one of its blocks needs.
    #[error(
        "the configuration has mixture-of-experts blocks but none of their sizes: add n_routed_experts and its kin"
    )]
    NoExperts,
    /// A token outside the vocabulary.
    #[error(
        "token id {token} is outside the model's vocabulary of {vocab_size}: the tokenizer belongs to another model"
    )]
    Token {
        /// The id.
        token: TokenId,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A segment that asks for the logits of its last token but has none.
    #[error("logits of the last token were asked for, but there is no token: give at least one")]
    NoTokens,
    /// A stored state does not fit this model.
    #[error("the stored state does not fit this model: {what}; it was saved from another model")]
    State {
        /// What does not fit.
        what: String,
    },
}
