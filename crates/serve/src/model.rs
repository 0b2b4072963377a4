//! The model that is served: what answers are made with, and what is told about it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};
use tangelo_chat::{Conversation, Message, RenderOptions, Renderer, Role};
use tangelo_core::TokenId;
use tangelo_engine::{Error as EngineError, Grammars};
use tangelo_formats::tokenizer::Tokenizer;
use tangelo_formats::{Checkpoint, GenerationConfig, checkpoint};
use tangelo_model::{Demand, Model};

use crate::error::ApiError;

/// What is told about the model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// The name that requests use.
    pub name: String,
    /// When the server began to serve it, in seconds since 1970.
    pub created_unix_s: i64,
    /// Tells models apart: 64 hexadecimal digits that follow from the weights.
    pub identity: String,
    /// The kind of network.
    pub architecture: &'static str,
    /// `gguf` or `safetensors`.
    pub container: &'static str,
    /// The type of most weights, as the file calls it.
    pub dtype: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Most tokens of prompt and answer together.
    pub context_tokens: usize,
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// Bytes of those that lie on a device.
    pub device_bytes: u64,
    /// The source of the chat template; empty if there is none.
    pub template: String,
    /// Whether the template knows tools.
    pub has_tools: bool,
    /// Whether the template can switch reasoning on and off.
    pub has_thinking: bool,
}

/// What an answer is made with, apart from the weights.
#[derive(Debug)]
pub struct Text {
    /// Between text and tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// From conversations to text; absent if the model has no template.
    pub renderer: Option<Renderer>,
    /// How the model's authors suggest to sample.
    pub suggested: GenerationConfig,
    /// Tokens that end an answer.
    pub stop_ids: Vec<TokenId>,
    /// Built when first needed, or why it cannot be.
    grammars: OnceLock<Result<Grammars, String>>,
}

impl Text {
    /// What belongs to the model in `checkpoint`.
    pub fn new(checkpoint: &Checkpoint, tokenizer: Tokenizer, renderer: Option<Renderer>) -> Text {
        Text {
            tokenizer: Arc::new(tokenizer),
            renderer,
            suggested: checkpoint.generation().clone(),
            stop_ids: checkpoint.stop_token_ids(),
            grammars: OnceLock::new(),
        }
    }

    /// The renderer.
    ///
    /// # Errors
    /// The model has no chat template.
    pub fn require_renderer(&self) -> Result<&Renderer, ApiError> {
        self.renderer.as_ref().ok_or_else(|| {
            let message =
                "this model has no chat template, so it can only continue texts: use /v1/completions";
            ApiError::invalid(Some("messages".to_owned()), message)
        })
    }

    /// The compiler of grammars. Reads the whole vocabulary the first time.
    ///
    /// # Errors
    /// The vocabulary cannot be used for it.
    pub fn grammars(&self, vocabulary: usize) -> Result<&Grammars, ApiError> {
        let made = self.grammars.get_or_init(|| {
            let ids = 0..TokenId::try_from(vocabulary).unwrap_or(TokenId::MAX);
            let bytes = |id| self.tokenizer.token_bytes(id).unwrap_or_default().to_vec();
            let special: Vec<TokenId> = ids.clone().filter(|&id| self.tokenizer.is_special(id)).collect();
            let words: Vec<Vec<u8>> = ids.map(bytes).collect();
            Grammars::new(&words, &special, &self.stop_ids).map_err(|error: EngineError| error.to_string())
        });
        made.as_ref().map_err(|reason| {
            let message = format!("answers of this model cannot be constrained: {reason}");
            ApiError::invalid(Some("response_format".to_owned()), message)
        })
    }

    /// See [`template_identity`]; `None` without a template.
    pub fn template_identity(&self) -> Option<String> {
        self.renderer.as_ref().map(|renderer| template_identity(renderer.template().source()))
    }
}

/// Tells chat templates apart: 64 hexadecimal digits that follow from the source.
pub fn template_identity(source: &str) -> String {
    Sha256::digest(source).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl ModelFacts {
    /// The facts about `model`, which was loaded from `checkpoint`, under a name.
    pub fn new(
        name: String,
        checkpoint: &Checkpoint,
        model: &Model,
        text: &Text,
        context_tokens: usize,
        created_unix_s: i64,
    ) -> ModelFacts {
        let config = checkpoint.config();
        let renderer = text.renderer.as_ref();
        let device = Demand::of(checkpoint, model.kv_type(), 0, 0).on_device(model.placement()).weights;
        ModelFacts {
            name,
            created_unix_s,
            identity: model.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect(),
            architecture: "nemotron_h",
            container: match checkpoint.format() {
                checkpoint::Format::Gguf { .. } => "gguf",
                checkpoint::Format::Safetensors => "safetensors",
            },
            dtype: largest_type(checkpoint),
            parameters: config.num_parameters(),
            width: config.hidden_size,
            layers: config.blocks.len(),
            vocabulary: config.vocab_size,
            context_tokens,
            weight_bytes: checkpoint.tensors().map(|tensor| tensor.bytes.len() as u64).sum(),
            device_bytes: device,
            template: renderer.map(|renderer| renderer.template().source().to_owned()).unwrap_or_default(),
            has_tools: renderer.is_some_and(|renderer| renderer.dialect().call_open().is_some()),
            has_thinking: renderer.is_some_and(can_switch_thinking),
        }
    }

    /// Compares tokens that a client gives in `field` with the vocabulary.
    ///
    /// # Errors
    /// One of them is none of the model's.
    pub fn check_tokens(&self, tokens: &[TokenId], field: &str) -> Result<(), ApiError> {
        let is_unknown = |token: &&TokenId| usize::try_from(**token).is_ok_and(|id| id >= self.vocabulary);
        let Some(token) = tokens.iter().find(is_unknown) else { return Ok(()) };
        let last = self.vocabulary.saturating_sub(1);
        let message = format!("`{field}` has the token {token}, but the model's tokens end with {last}");
        Err(ApiError::invalid(Some(field.to_owned()), message))
    }
}

/// The type that most bytes of the weights have.
fn largest_type(checkpoint: &Checkpoint) -> String {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in checkpoint.tensors() {
        let sum = bytes.entry(&tensor.dtype_name).or_default();
        *sum = sum.saturating_add(tensor.bytes.len() as u64);
    }
    let largest = bytes.into_iter().max_by_key(|(_, bytes)| *bytes);
    largest.map(|(name, _)| name.to_owned()).unwrap_or_default()
}

/// Whether the template writes another prompt when reasoning is wanted than when it is not.
fn can_switch_thinking(renderer: &Renderer) -> bool {
    let conversation = Conversation { messages: vec![Message::new(Role::User, "?")], tools: Vec::new() };
    let prompt = |thinking| {
        let options = RenderOptions {
            add_generation_prompt: true,
            enable_thinking: Some(thinking),
            now_unix_s: Some(0),
            ..RenderOptions::default()
        };
        renderer.render(&conversation, &options).ok().map(|rendered| rendered.prompt)
    };
    prompt(true) != prompt(false)
}
