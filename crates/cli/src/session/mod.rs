//! An opened model with all that an answer needs: weights, tokenizer, template, limits and the context to compute in.
//!
//! `generate` and `chat` differ in where prompts come from and where answers go; what lies between is here.

mod answer;
mod args;

use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use indicatif::ProgressBar;
use tangelo_chat::RenderOptions;
use tangelo_core::TokenId;
use tangelo_core::limits::TEMPLATE_BYTES_MAX;
use tangelo_engine::{Error as EngineError, Limits, Sequence, check_context, default_context};
use tangelo_formats::template::ChatTemplate;
use tangelo_formats::tokenizer::Tokenizer;
use tangelo_formats::{GenerationConfig, TokenizerSource};
use tangelo_model::Model;
use tangelo_ops::Cx;

pub use answer::{Answer, Ending, Plan, answer};
pub use args::{ChatArgs, ModelArgs, SamplingArgs, parse_count, read_tools, sampling_params};

use crate::args::chunk_tokens;
use crate::{model, progress};

/// Time between two pictures of the spinner.
const SPINNER_TICK: Duration = Duration::from_millis(100);

/// Whether the user wants the work to stop.
pub type Interrupted<'a> = &'a dyn Fn() -> bool;

/// An opened model.
#[derive(Debug)]
pub struct Session {
    /// The weights.
    pub model: Model,
    /// Where the arithmetic runs.
    pub cx: Cx,
    /// How the authors suggest to sample.
    pub suggested: GenerationConfig,
    /// Most tokens of prompt and answer together.
    pub context: usize,
    tokenizer: Option<Arc<Tokenizer>>,
    stop_ids: Vec<TokenId>,
    template: Option<String>,
    chunk: usize,
}

impl Session {
    /// Opens the model and checks that the context fits in memory.
    ///
    /// # Errors
    /// If the model cannot be opened, its tokenizer is damaged, or the context is too long.
    pub fn open(args: &ModelArgs) -> Result<Session> {
        let spinner = spinner(format!("opening {}", args.model));
        let cx = args.run.cx()?;
        let chunk = args.chunk.unwrap_or_else(|| chunk_tokens(&cx));
        let checkpoint = model::open_with(&args.model, args.adapter.as_deref())?;
        let model = model::load(&cx, &checkpoint, &args.run, args.context, chunk)?;
        let available = model::bytes_for_state(&cx, &model);
        let context = match args.context {
            Some(context) => {
                check_context(&model, context, available)?;
                context
            }
            None => default_context(&model, available),
        };
        let tokenizer = match checkpoint.tokenizer_source() {
            TokenizerSource::Missing => None,
            _ => Some(Arc::new(model::tokenizer(&checkpoint)?)),
        };
        let session = Session {
            cx,
            suggested: checkpoint.generation().clone(),
            context,
            tokenizer,
            stop_ids: checkpoint.stop_token_ids(),
            template: checkpoint.chat_template()?,
            chunk,
            model,
        };
        spinner.finish_and_clear();
        Ok(session)
    }

    /// The tokenizer, if the model has one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_deref()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If the model has none.
    pub fn require_tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer().ok_or_else(|| {
            anyhow!(
                "the model has no tokenizer, so it cannot read text: put its tokenizer.json beside the weights, or give \
                 `generate` token ids with --ids"
            )
        })
    }

    /// The source of the model's own chat template, if it has one.
    pub fn own_template(&self) -> Option<String> {
        self.template.clone()
    }

    /// The user's chat template, or else the model's.
    ///
    /// # Errors
    /// If there is neither, or it cannot be compiled.
    pub fn chat_template(&self, args: &ChatArgs) -> Result<ChatTemplate> {
        let source = match &args.chat_template {
            Some(path) => {
                let bytes = model::read(path, TEMPLATE_BYTES_MAX as u64)?;
                let text = String::from_utf8(bytes);
                Some(text.with_context(|| format!("{} is not a text", path.display()))?)
            }
            None => self.template.clone(),
        };
        Ok(ChatTemplate::require(source)?)
    }

    /// When an answer ends: at the model's stop tokens, after `max_tokens`, or when the context is full.
    pub fn limits(&self, max_tokens: Option<usize>) -> Limits {
        Limits { stop_ids: self.stop_ids.clone(), min_tokens: 0, max_tokens, context: self.context }
    }

    /// Whether a prompt of `tokens` tokens leaves room for an answer; asked before any work is done.
    ///
    /// # Errors
    /// If it does not.
    pub fn check_prompt(&self, tokens: usize) -> Result<()> {
        if tokens >= self.context {
            return Err(EngineError::PromptTooLong { prompt: tokens, context: self.context }.into());
        }
        Ok(())
    }

    /// Appends prompt tokens, with a bar if there are many. Returns whether it got to the end before it was
    /// interrupted.
    ///
    /// # Errors
    /// If a token is outside the vocabulary.
    pub fn prefill(
        &self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        interrupted: Interrupted<'_>,
    ) -> Result<bool> {
        let bar = if tokens.len() > self.chunk {
            progress::bar("reading the prompt", tokens.len() as u64, progress::Unit::Tokens)
        } else {
            ProgressBar::hidden()
        };
        let mut on_chunk = |done: usize| {
            bar.set_position(done as u64);
            if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let flow = sequence.prefill_with(&self.model, &self.cx, tokens, self.chunk, &mut on_chunk);
        bar.finish_and_clear();
        Ok(flow?.is_continue())
    }
}

/// Options for rendering a prompt that the model is to answer.
pub fn to_answer(thinking: Option<bool>, now_unix_s: Option<i64>) -> RenderOptions {
    RenderOptions {
        add_generation_prompt: true,
        enable_thinking: thinking,
        now_unix_s,
        ..RenderOptions::default()
    }
}

/// A sign of life on standard error, if that is a terminal.
fn spinner(message: String) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(SPINNER_TICK);
    spinner
}
