//! What can go wrong between token ids and token ids.

use std::path::PathBuf;

use tangelo_core::TokenId;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between token ids and token ids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The forward refused its input.
    #[error(transparent)]
    Model(#[from] tangelo_model::Error),
    /// A sequence met a model that did not make it.
    #[error("the sequence belongs to another model: start a new one")]
    WrongModel,
    /// Logits were needed where there are none.
    #[error("the sequence has no logits to sample from: prefill at least one token first")]
    NoLogits,
    /// A kept state of another path.
    #[error(
        "the kept state is not on the sequence's path (its {kept} tokens do not begin the sequence's {position}): \
         keep states of the sequence itself"
    )]
    NotOnPath {
        /// Tokens of the kept state.
        kept: usize,
        /// Tokens of the sequence.
        position: usize,
    },
    /// A prompt that leaves no room for an answer.
    #[error(
        "the prompt has {prompt} tokens, but the context holds {context} and the answer needs at least one: shorten \
         the prompt or raise --context"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// Nothing to begin with.
    #[error("the prompt has no tokens, so there is nothing to continue: give at least one")]
    EmptyPrompt,
    /// More answers to one prompt than may be made at once.
    #[error("{asked} answers to one prompt were asked for, but at most {most} can be made at once")]
    TooManyAnswers {
        /// Answers asked for.
        asked: usize,
        /// Answers at once.
        most: usize,
    },
    /// Nobody wanted the result any more.
    #[error("the work was cancelled before it was done")]
    Cancelled,
    /// A forward that others shared has failed.
    #[error("the step that this answer was part of has failed: {reason}")]
    Step {
        /// What the model or the device said.
        reason: String,
    },
    /// A context that the model was not made for.
    #[error("a context of {context} tokens was asked for, but this model is made for at most {max}")]
    ContextTooLong {
        /// Tokens asked for.
        context: usize,
        /// `max_position_embeddings` of the configuration.
        max: usize,
    },
    /// A context that the machine cannot hold.
    #[error(
        "a context of {context} tokens needs {needed} bytes of state, but {available} bytes of memory are available: \
         use --context {fits} or less"
    )]
    NotEnoughMemory {
        /// Tokens asked for.
        context: usize,
        /// Bytes for them.
        needed: u64,
        /// Bytes there are.
        available: u64,
        /// The longest context that fits.
        fits: usize,
    },
    /// Weights that the machine cannot hold.
    #[error(
        "the weights take {needed} bytes of memory, but {available} bytes are available: close other programs or choose \
         a smaller file"
    )]
    WeightsTooLarge {
        /// Bytes of the weights.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// A sampling parameter outside its range.
    #[error("the sampling parameter {name} must be {expected}, found {found}")]
    Parameter {
        /// Name of the field.
        name: &'static str,
        /// The range.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// Logits that no distribution can be made of.
    #[error("the model gave token {token} the logit {value}: its weights are damaged or overflow")]
    NotFinite {
        /// The token.
        token: TokenId,
        /// NaN or +∞.
        value: f32,
    },
    /// Nothing is left to choose from.
    #[error("every token has the logit -inf, so none can be chosen: remove some of the logit bias")]
    NoCandidates,
    /// A grammar that cannot be followed.
    #[error("the answer cannot be constrained: {reason}")]
    Grammar {
        /// Why.
        reason: String,
    },
    /// A state file that is not what it should be.
    #[error("{}: {problem}", path.display())]
    StateFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        problem: crate::state_file::Problem,
    },
    /// The file system refused.
    #[error("{} cannot be {action}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// Why.
        cause: std::io::Error,
    },
}
