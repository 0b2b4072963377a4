//! From a request to what the scheduler is given: a prompt in tokens, and how each answer is chosen and read.
//!
//! Everything that a request asks for is either set up here or refused here, before the first token.

use tangelo_chat::budget::MARGIN_TOKENS_DEFAULT;
use tangelo_chat::dialect::CallGrammar;
use tangelo_chat::{Conversation, RenderOptions, StopStrings, StreamParser, ThinkingBudget, Tool};
use tangelo_core::{SamplingOverrides, TokenId};
use tangelo_engine::{Constraint, Grammar, Limits, SamplingParams};
use tangelo_formats::tokenizer::EncodeOptions;

use crate::app::Inner;
use crate::error::ApiError;
use crate::guide::Reading;
use crate::request::{Format, Input, Request, ToolChoice};

/// Tokens of an answer that are left for its content if it must be of a grammar, as part of all: the others may be
/// reasoning.
const CONTENT_SHARE: usize = 2;

/// A request that can be carried out.
pub struct Prepared {
    /// The prompt.
    pub prompt: Vec<TokenId>,
    /// Where states of it are worth keeping.
    pub cuts: Vec<usize>,
    /// How the tokens of each answer are chosen and read.
    pub answers: Vec<(SamplingParams, Limits, Reading)>,
    /// The conversation as it was rendered, for what comes after.
    pub turn: Option<Turn>,
}

/// A conversation that an answer belongs to.
#[derive(Clone, Debug)]
pub struct Turn {
    /// What was rendered.
    pub conversation: Conversation,
    /// How.
    pub options: RenderOptions,
}

/// A prompt, what it was made of, and how its answer begins.
#[derive(Debug)]
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<TokenId>,
    /// Where states of it are worth keeping.
    pub cuts: Vec<usize>,
    /// The conversation, if it is of one.
    pub turn: Option<Turn>,
    /// Whether the answer begins with reasoning.
    pub starts_in_reasoning: bool,
}

impl Inner {
    /// Checks a request and turns it into tokens. Takes as long as rendering and tokenising take.
    ///
    /// # Errors
    /// What the request asks for cannot be done; the error names the field.
    pub fn prepare(&self, request: &Request, id: &str) -> Result<Prepared, ApiError> {
        check(request)?;
        let prompt = self.prompt(request, true)?;
        let tools = prompt.turn.as_ref().map_or(&[][..], |turn| &turn.conversation.tools);
        let context = self.facts.context_tokens;
        if prompt.ids.len() >= context {
            let (prompt, context) = (prompt.ids.len(), context);
            return Err(tangelo_engine::Error::PromptTooLong { prompt, context }.into());
        }
        let room = context - prompt.ids.len();
        let server = SamplingOverrides { max_tokens: self.max_tokens, ..SamplingOverrides::default() };
        let sampling = request.sampling.clone().or(server).or(self.text.suggested.overrides());
        let max_tokens = sampling.max_tokens;
        let limits = Limits {
            stop_ids: if request.ignore_eos { Vec::new() } else { self.text.stop_ids.clone() },
            min_tokens: request.min_tokens,
            max_tokens,
            context,
        };
        let max_tokens = max_tokens.unwrap_or(room).min(room);
        let mut params = SamplingParams { logprobs: request.logprobs, ..SamplingParams::new(&sampling) };
        if request.tool_choice == ToolChoice::None && !tools.is_empty() {
            self.forbid_calls(&mut params);
        }
        params.check(self.facts.vocabulary)?;
        let mut answers = Vec::with_capacity(request.n);
        for choice in 0..request.n {
            let constraint = self.constraint(request, tools)?;
            let budget = self.budget(request, &prompt, constraint.is_some(), max_tokens)?;
            let may_call = request.tool_choice != ToolChoice::None;
            let parser = prompt.turn.as_ref().and(self.text.renderer.as_ref()).map(|renderer| {
                let tools = if may_call { tools } else { &[] };
                StreamParser::new(renderer.dialect(), tools, prompt.starts_in_reasoning)
                    .with_call_ids(format!("call_{id}_{choice}_"))
            });
            let reading = Reading {
                tokenizer: self.text.tokenizer.clone(),
                stops: StopStrings::new(sampling.stop.clone()),
                parser,
                budget,
                constraint,
                max_tokens,
                after: None,
            };
            let seed = params.seed.wrapping_add(choice as u64);
            answers.push((SamplingParams { seed, ..params.clone() }, limits.clone(), reading));
        }
        Ok(Prepared { prompt: prompt.ids, cuts: prompt.cuts, answers, turn: prompt.turn })
    }

    /// The tokens of the input. `is_answered`: a conversation ends where the assistant's next answer begins.
    ///
    /// # Errors
    /// It cannot be rendered or tokenised.
    pub fn prompt(&self, request: &Request, is_answered: bool) -> Result<Prompt, ApiError> {
        let plain = |ids| Prompt { ids, cuts: Vec::new(), turn: None, starts_in_reasoning: false };
        match &request.input {
            Input::Tokens(ids) => {
                self.facts.check_tokens(ids, "prompt")?;
                Ok(plain(ids.clone()))
            }
            Input::Text(text) => {
                let ids = self.text.tokenizer.encode(text, EncodeOptions::default());
                ids.map(plain)
                    .map_err(|error| ApiError::invalid(Some("prompt".to_owned()), error.to_string()))
            }
            Input::Chat(conversation) => {
                let options = RenderOptions {
                    add_generation_prompt: is_answered,
                    enable_thinking: request.thinking.enabled,
                    kwargs: request.template_kwargs.clone(),
                    ..RenderOptions::default()
                };
                let rendered = self.text.require_renderer()?.render(conversation, &options)?;
                let tokens = rendered.tokens(&self.text.tokenizer)?;
                Ok(Prompt {
                    ids: tokens.ids,
                    cuts: tokens.cuts.iter().map(|cut| cut.offset).collect(),
                    turn: Some(Turn { conversation: conversation.clone(), options }),
                    starts_in_reasoning: rendered.starts_in_reasoning,
                })
            }
        }
    }

    /// Keeps the model from beginning a call, where that takes a token of its own.
    fn forbid_calls(&self, params: &mut SamplingParams) {
        let open = self.text.renderer.as_ref().and_then(|renderer| renderer.dialect().call_open());
        if let Some(token) = open.and_then(|open| self.text.tokenizer.id_of(open)) {
            params.logit_bias.insert(token, f32::NEG_INFINITY);
        }
    }

    /// The grammar that the content must be of.
    fn constraint(&self, request: &Request, tools: &[Tool]) -> Result<Option<Constraint>, ApiError> {
        let field = |name: &str| Some(name.to_owned());
        let calls = match &request.tool_choice {
            ToolChoice::None => None,
            ToolChoice::Auto if !tools.iter().any(Tool::is_strict) => None,
            choice => {
                let only = if let ToolChoice::Named(name) = choice { Some(name.as_str()) } else { None };
                if tools.is_empty() && *choice != ToolChoice::Auto {
                    let message = "`tool_choice` asks for a call, but there are no `tools` to call";
                    return Err(ApiError::invalid(field("tool_choice"), message));
                }
                if let Some(name) = only.filter(|name| !tools.iter().any(|tool| tool.name() == *name)) {
                    let message =
                        format!("`tool_choice` names the tool `{name}`, which is not one of `tools`");
                    return Err(ApiError::invalid(field("tool_choice"), message));
                }
                Some(CallGrammar {
                    only,
                    is_required: *choice != ToolChoice::Auto,
                    is_parallel: request.parallel_tool_calls,
                })
            }
        };
        let grammar = match (&request.format, calls) {
            (Format::Text, None) => return Ok(None),
            (Format::Text, Some(calls)) => {
                let is_token = |text: &str| {
                    self.text.tokenizer.id_of(text).is_some_and(|id| self.text.tokenizer.is_special(id))
                };
                let dialect = self.text.require_renderer()?.dialect();
                let Some(grammar) = dialect.call_grammar(tools, calls, &is_token) else {
                    let message =
                        "this model's template has no way to call tools, so a call cannot be required";
                    return Err(ApiError::invalid(field("tool_choice"), message));
                };
                return self.compile(&Grammar::Lark(grammar), "tools").map(Some);
            }
            (_, Some(_)) => {
                let message = "a call of a tool cannot be required, and strict tools not be offered, together with a \
                               format of the answer: leave one of them out";
                return Err(ApiError::invalid(field("response_format"), message));
            }
            (Format::JsonObject, None) => Grammar::JsonObject,
            (Format::JsonSchema { schema, .. }, None) => Grammar::JsonSchema(schema.clone()),
            (Format::Regex(expression), None) => Grammar::Regex(expression.clone()),
            (Format::Lark(grammar), None) => Grammar::Lark(grammar.clone()),
        };
        self.compile(&grammar, "response_format").map(Some)
    }

    fn compile(&self, grammar: &Grammar, field: &str) -> Result<Constraint, ApiError> {
        let grammars = self.text.grammars(self.facts.vocabulary)?;
        grammars
            .compile(grammar)
            .map_err(|error| ApiError::invalid(Some(field.to_owned()), format!("`{field}`: {error}")))
    }

    /// The budget of reasoning: what the client says, but no more than leaves room for a content that must be whole.
    fn budget(
        &self,
        request: &Request,
        prompt: &Prompt,
        is_constrained: bool,
        max_tokens: usize,
    ) -> Result<Option<ThinkingBudget>, ApiError> {
        let bound = is_constrained.then_some(max_tokens / CONTENT_SHARE / CONTENT_SHARE);
        let given = request.thinking.budget;
        let budget = match (given, bound) {
            (Some(given), Some(bound)) => Some(given.min(bound)),
            (given, bound) => given.or(bound),
        };
        let Some(budget) = budget.filter(|_| prompt.starts_in_reasoning) else { return Ok(None) };
        let margin = bound.map_or(MARGIN_TOKENS_DEFAULT, |bound| bound.min(MARGIN_TOKENS_DEFAULT));
        let dialect = self.text.require_renderer()?.dialect();
        let budget = ThinkingBudget::new(&self.text.tokenizer, dialect, budget, margin);
        budget.map(Some).map_err(|error| ApiError::internal(error.to_string()))
    }
}

/// Refuses what contradicts itself.
fn check(request: &Request) -> Result<(), ApiError> {
    if request.format != Format::Text && request.min_tokens > 0 {
        let message =
            "`min_tokens` cannot be given together with a format of the answer, which says where it ends";
        return Err(ApiError::invalid(Some("min_tokens".to_owned()), message));
    }
    if request.sampling.max_tokens.is_some_and(|max| max < request.min_tokens) {
        let message = "`min_tokens` is more than the most tokens of the answer";
        return Err(ApiError::invalid(Some("min_tokens".to_owned()), message));
    }
    Ok(())
}
