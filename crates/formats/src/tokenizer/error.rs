//! What can be wrong with a tokenizer, in one sentence each.

/// A tokenizer file that cannot be used, or a text that cannot be encoded with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file is not JSON of the expected shape.
    #[error("tokenizer.json is not a valid tokenizer file: {reason}")]
    Json {
        /// What the JSON reader said.
        reason: String,
    },
    /// The metadata of a GGUF file cannot be read.
    #[error(transparent)]
    Metadata(#[from] crate::error::Error),
    /// The file asks for something other than byte-level BPE.
    #[error("this tokenizer has {what} `{found}`; only byte-level BPE is supported ({expected})")]
    Unsupported {
        /// The part of the tokenizer.
        what: &'static str,
        /// What the file says.
        found: String,
        /// What it would have to say.
        expected: &'static str,
    },
    /// A GGUF file names a pre-tokenizer that is not in the table.
    #[error("tokenizer.ggml.pre is `{found}`, which is not known here; known are {known}")]
    UnknownPre {
        /// The name in the file.
        found: String,
        /// The names in the table, comma separated.
        known: String,
    },
    /// The vocabulary contradicts itself.
    #[error("the tokenizer's vocabulary is inconsistent: {reason}")]
    Vocabulary {
        /// What contradicts what.
        reason: String,
    },
    /// The tokenizer can produce ids that the model has no embedding for.
    #[error(
        "the tokenizer has {tokenizer} ids but the model's vocabulary has {model}; use the tokenizer that was \
         shipped with this model"
    )]
    VocabularyMismatch {
        /// One more than the tokenizer's largest id.
        tokenizer: usize,
        /// Rows of the model's embedding.
        model: usize,
    },
    /// A text could not be encoded.
    #[error("this text cannot be encoded: {reason}")]
    Encode {
        /// What the tokenizer said.
        reason: String,
    },
}

impl TokenizerError {
    /// A [`TokenizerError::Vocabulary`] with this reason.
    pub(super) fn vocabulary(reason: impl Into<String>) -> Self {
        Self::Vocabulary { reason: reason.into() }
    }
}
