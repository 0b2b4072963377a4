//! What is asked of the model, whichever dialect it was asked in.

use serde_json::{Map, Value};
use tangelo_chat::Conversation;
use tangelo_core::{SamplingOverrides, TokenId};

/// A request that every dialect is translated to.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the answer continues.
    pub input: Input,
    /// The model's name as the client writes it; may name a persona.
    pub model: Option<String>,
    /// A persona by its own field.
    pub persona: Option<String>,
    /// A named state that the prompt begins with.
    pub state: Option<String>,
    /// Whether tools may, must or must not be called.
    pub tool_choice: ToolChoice,
    /// Whether several tools may be called in one answer.
    pub parallel_tool_calls: bool,
    /// What the answer's content must be like.
    pub format: Format,
    /// Whether and how long to think.
    pub thinking: Thinking,
    /// Further variables for the chat template.
    pub template_kwargs: Map<String, Value>,
    /// How to choose tokens, and when each answer ends.
    pub sampling: SamplingOverrides,
    /// Number of answers.
    pub n: usize,
    /// Tokens that each answer has at least.
    pub min_tokens: usize,
    /// Whether the model's own stop tokens are ignored.
    pub ignore_eos: bool,
    /// Whether log-probabilities are wanted, and of how many alternatives.
    pub logprobs: Option<usize>,
}

impl Request {
    /// A request for one answer, with everything else left to the model.
    pub fn new(input: Input) -> Request {
        Request {
            input,
            model: None,
            persona: None,
            state: None,
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            format: Format::Text,
            thinking: Thinking::default(),
            template_kwargs: Map::new(),
            sampling: SamplingOverrides::default(),
            n: 1,
            min_tokens: 0,
            ignore_eos: false,
            logprobs: None,
        }
    }
}

/// What an answer continues.
#[derive(Debug, Clone)]
pub enum Input {
    /// A conversation, rendered by the model's template.
    Chat(Conversation),
    /// A text as it is.
    Text(String),
    /// Tokens as they are.
    Tokens(Vec<TokenId>),
}

/// What is to become of tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// They may be known but not called.
    None,
    /// At least one is called.
    Required,
    /// This one is called.
    Named(String),
}

/// What the content of an answer must be like. Enforced while tokens are chosen, from the end of reasoning on.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Format {
    /// Anything.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON of a schema.
    JsonSchema {
        /// The schema.
        schema: Value,
        /// Whether the client called it strict. It is enforced either way.
        strict: bool,
    },
    /// A text that a regular expression matches as a whole.
    Regex(String),
    /// A text of a Lark grammar.
    Lark(String),
}

/// Whether and how long to think before answering.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thinking {
    /// `None` leaves it to the persona, then to the template.
    pub enabled: Option<bool>,
    /// Tokens after which reasoning is closed at the next end of a line.
    pub budget: Option<usize>,
}

/// How much is to be thought, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Not at all.
    None,
    /// As little as makes sense.
    Minimal,
    /// Little.
    Low,
    /// As usual.
    Medium,
    /// As long as it takes.
    High,
}

impl From<Effort> for Thinking {
    /// The model knows only on and off, so the words between become budgets: `high` is no bound at all.
    fn from(effort: Effort) -> Thinking {
        let (enabled, budget) = match effort {
            Effort::None => (false, None),
            Effort::Minimal => (true, Some(128)),
            Effort::Low => (true, Some(512)),
            Effort::Medium => (true, Some(2048)),
            Effort::High => (true, None),
        };
        Thinking { enabled: Some(enabled), budget }
    }
}
