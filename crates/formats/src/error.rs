//! What can go wrong with a file, said in one sentence each: what was expected, what was found, what to do.
//!
//! Parsers work on bytes and do not know where those came from; whoever opened the file adds the path with
//! [`Error::in_file`]. Causes are part of the sentence and are therefore not repeated through
//! [`std::error::Error::source`].

use std::path::{Path, PathBuf};

use tangelo_core::DType;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything this crate refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to open, map, read or write a file.
    #[error("cannot {action} {path}: {cause}")]
    Io {
        /// Verb: `open`, `map`, `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// Writing to a stream failed (full disk, closed pipe).
    #[error("cannot write {what}: {cause}")]
    Write {
        /// What was being written.
        what: String,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// Any other error of this list, with the file it is about.
    #[error("{path}: {cause}")]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: Box<Error>,
    },
    /// A folder that is no adapter, or one that does more than can be computed here, or is for another model.
    #[error("the adapter cannot be used: {problem}")]
    Adapter {
        /// Why.
        problem: String,
    },
    /// The path is neither a model file nor a model folder.
    #[error("{path} is not a model: {problem}")]
    NotAModel {
        /// The path as it was given.
        path: PathBuf,
        /// What is missing, and what would be accepted.
        problem: String,
    },
    /// A size or count is above its bound in [`tangelo_core::limits`].
    #[error(
        "{what} is {found}, above the limit of {limit}; the file is damaged or not meant for this program"
    )]
    TooLarge {
        /// What was counted.
        what: String,
        /// The number found.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// Text that should be JSON is not.
    #[error("{what} is not valid JSON: {cause}")]
    Json {
        /// Which text.
        what: &'static str,
        /// Parser message with line and column.
        cause: serde_json::Error,
    },
    /// A key of a configuration is missing, has the wrong type or an impossible value.
    #[error("configuration key `{key}` {problem}")]
    Config {
        /// The key as written in the file.
        key: String,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// The file describes a model this program cannot run.
    #[error("unsupported architecture `{found}`: this program runs `nemotron_h` and `nemotron_h_moe` models")]
    UnsupportedArchitecture {
        /// What the file says it is.
        found: String,
    },
    /// The bytes are not a well-formed GGUF file.
    #[error("invalid GGUF at byte {offset}: {problem}")]
    Gguf {
        /// Offset in the file of the value at fault.
        offset: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A GGUF metadata value has another type than its key requires.
    #[error("GGUF metadata `{key}` should be {expected}, found {found}")]
    GgufType {
        /// The key.
        key: String,
        /// The type wanted.
        expected: &'static str,
        /// The type found.
        found: String,
    },
    /// The bytes are not a well-formed safetensors file.
    #[error("invalid safetensors header: {problem}")]
    Safetensors {
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor is absent.
    #[error(
        "tensor `{name}` is missing; the checkpoint is incomplete or is not of the model its configuration describes: download it again"
    )]
    MissingTensor {
        /// Checkpoint name.
        name: String,
    },
    /// A tensor is present with a shape that the configuration does not imply.
    #[error("tensor `{name}` has shape {found:?}, the configuration requires {expected:?}")]
    TensorShape {
        /// Checkpoint name.
        name: String,
        /// Shape that follows from the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has an element type that cannot be used.
    #[error(
        "tensor `{name}` has elements of type {found}, which this program cannot read; supported types are F32, F16, BF16, F8_E4M3 and ggml's Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL"
    )]
    UnsupportedDType {
        /// Checkpoint name, or the name in the file.
        name: String,
        /// The type as the file spells it.
        found: String,
    },
    /// The bytes of a tensor do not fit its dtype and shape.
    #[error("a tensor of type {dtype} and shape {shape:?} cannot be made of {bytes} bytes")]
    TensorSize {
        /// Element type.
        dtype: DType,
        /// Shape, row-major.
        shape: Vec<usize>,
        /// Bytes given.
        bytes: usize,
    },
    /// Values were asked of a quantised tensor as if it were plain floats.
    #[error(
        "a {dtype} tensor holds quantised blocks and has no plain values; decode it with the operations crate"
    )]
    NotFloat {
        /// Element type.
        dtype: DType,
    },
    /// A writer was given tensors in another order, or other bytes, than it announced in the header.
    #[error("cannot write tensor `{name}`: {problem}")]
    WrongTensorWritten {
        /// Name in the file.
        name: String,
        /// What differs from the header.
        problem: String,
    },
    /// A tokenizer cannot be read or does not fit its model.
    #[error("tokenizer: {problem}")]
    Tokenizer {
        /// What is wrong and what to do.
        problem: String,
    },
    /// A chat template cannot be compiled or rendered.
    #[error("chat template: {problem}")]
    Template {
        /// What is wrong and where.
        problem: String,
    },
}

impl Error {
    /// The same error, saying which file it is about. An error that already names its file is unchanged.
    pub fn in_file(self, path: &Path) -> Error {
        match self {
            Error::Io { .. } | Error::InFile { .. } | Error::NotAModel { .. } => self,
            cause => Error::InFile { path: path.to_path_buf(), cause: Box::new(cause) },
        }
    }

    /// Shorthand for [`Error::Config`].
    pub(crate) fn config(key: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Config { key: key.into(), problem: problem.into() }
    }
}

/// A string from a file, shortened and with its unprintable characters escaped, so that it can stand in a message.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_BYTES_MAX: usize = 80;
    let mut short = String::new();
    for c in text.chars() {
        if short.len() >= SHOWN_BYTES_MAX {
            short.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => short.push(c),
            c => short.extend(c.escape_debug()),
        }
    }
    short
}
