//! What can go wrong.

use std::path::PathBuf;

/// Why something cannot be taught.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model with something that has no gradient here.
    #[error("{what} cannot be trained; models of M, * and - blocks can")]
    NotTrainable {
        /// What the model has.
        what: String,
    },
    /// A tensor that is not what the configuration says.
    #[error("the tensor `{name}` has the shape {got:?}, expected {want:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The configuration's.
        want: Vec<usize>,
        /// The file's.
        got: Vec<usize>,
    },
    /// A model in a form that has lost what training needs.
    #[error("the tensor `{name}` is {dtype}, which cannot be trained: start from F32, F16 or BF16 weights")]
    Quantised {
        /// Its name.
        name: String,
        /// Its type.
        dtype: tangelo_core::DType,
    },
    /// A recipe that is none.
    #[error("the recipe cannot be followed: {problem}")]
    Recipe {
        /// What is wrong with it.
        problem: String,
    },
    /// A row of a data set that nothing can be learned from.
    #[error("line {line} of {}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Its line, from 1 on.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Rows with nothing to predict.
    #[error(
        "there is nothing to learn: expected a text of two tokens, or a conversation with an answer that fits into `batch.context`"
    )]
    TooShort,
    /// A data set that is empty.
    #[error("{} has no rows: expected a JSON object with `messages` or `text` per line", path.display())]
    NoRows {
        /// The first file.
        path: PathBuf,
    },
    /// A run would overwrite something.
    #[error("{} is not empty: give another folder, or --resume to go on with the run in it", folder.display())]
    FolderInUse {
        /// Where.
        folder: PathBuf,
    },
    /// A file that a model needs to be taught.
    #[error("{} does not exist: a model that is taught needs its tokenizer", path.display())]
    NoFile {
        /// Which.
        path: PathBuf,
    },
    /// A file or folder that the system refuses.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A parquet file that cannot be read.
    #[error("{}: expected a parquet file with a column `messages` or `text`, found: {cause}", path.display())]
    Parquet {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        cause: parquet::errors::ParquetError,
    },
    /// An adapter that cannot be put into weights.
    #[error(
        "the adapter {} holds first states, which no weight can stand for: use it with --adapter instead of merging it",
        path.display()
    )]
    StatesNotMerged {
        /// The adapter.
        path: PathBuf,
    },
    /// A checkpoint that does not belong to the run.
    #[error("{} has no fitting `{name}`, so the run cannot go on from this checkpoint", path.display())]
    NoTensor {
        /// Which tensor.
        name: String,
        /// In which file.
        path: PathBuf,
    },
    /// Data that is no longer what a run began with.
    #[error(
        "the data has {found} rows and had {expected} when the run began, and their order depends on that: bring it back, or \
         begin a new run with the checkpoint as `model.from`"
    )]
    OtherData {
        /// Rows of the run.
        expected: u64,
        /// Rows that there are.
        found: u64,
    },
    /// The run has gone astray.
    #[error(
        "the loss or its gradient is {loss} in step {step}: the last checkpoint is as it was; begin again, or go on from it \
         (`--resume`), with a lower `--set optimiser.lr=` or a longer `--set schedule.warmup=`"
    )]
    NotFinite {
        /// The step.
        step: u64,
        /// What it was.
        loss: f64,
    },
    /// A tokenizer that cannot be learned.
    #[error("the tokenizer cannot be learned: {cause}")]
    Tokenizer {
        /// Why.
        cause: String,
    },
    /// A template with which nobody can tell where an answer begins.
    #[error(
        "the chat template writes a complete answer otherwise than it asks for one, so it cannot be learned from"
    )]
    TemplateParts,
    /// A conversation that cannot be written.
    #[error(transparent)]
    Chat(#[from] tangelo_chat::Error),
    /// A text that cannot be encoded.
    #[error(transparent)]
    Encode(#[from] tangelo_formats::tokenizer::TokenizerError),
    /// A file that cannot be read or written.
    #[error(transparent)]
    Format(#[from] tangelo_formats::Error),
}

/// A result with an [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
