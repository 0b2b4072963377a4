//! What can go wrong.

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
    /// A file that cannot be read or written.
    #[error(transparent)]
    Format(#[from] tangelo_formats::Error),
    /// The system has no memory for a weight.
    #[error("there is no memory for the tensor `{name}`: {cause}")]
    NoMemory {
        /// Its name.
        name: String,
        /// What the system says.
        cause: tangelo_ops::matmul::PackError,
    },
}

/// A result with an [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
