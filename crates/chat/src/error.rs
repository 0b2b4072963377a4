//! What can be wrong with a conversation or a persona, in one sentence each.

use tangelo_formats::template::TemplateError;
use tangelo_formats::tokenizer::TokenizerError;

/// Why a conversation could not be rendered, or a persona not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tool definition is not of the expected shape.
    #[error(
        "tool definition {index} {problem}; expected {{\"type\": \"function\", \"function\": {{\"name\": ...}}}}"
    )]
    Tool {
        /// Position in the list, from 0.
        index: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A file of a persona cannot be used.
    #[error("the persona {problem}{}", line.map(|line| format!(" (line {line})")).unwrap_or_default())]
    Persona {
        /// Where, from 1, if that is known.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
    },
    /// The template is missing, invalid, or refused the conversation.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The prompt cannot be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// The result of a fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
