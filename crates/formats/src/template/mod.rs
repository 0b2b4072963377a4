//! Chat templates: the Jinja program inside a model's files that writes a conversation as one prompt.
//!
//! Templates are written for Hugging Face's `apply_chat_template`, so the environment here is that one
//! (`transformers/utils/chat_template_utils.py`): `trim_blocks` and `lstrip_blocks`, `break` and `continue`,
//! `raise_exception`, `strftime_now`, a `tojson` that is Python's `json.dumps(ensure_ascii=False)`, Python's string
//! and dictionary methods, and values that print as Python prints them (`python.rs`).
//!
//! A template comes from a file and is not trusted: its length, its work (fuel), its depth and the length of what
//! it renders are bounded, and it can reach nothing but its arguments and the clock.
//!
//! This module doesn't know what a message is; the crate `tangelo-chat` does.
//!
//! Known gaps. Inside a list that is printed whole, Python escapes invisible Unicode characters beyond the control
//! characters (`\u200d`), and here they are printed. A template that nests a list in itself thousands of times through
//! a namespace overflows the stack when the engine prints or frees it; the engine has no limit for that.

mod clock;
mod guard;
mod python;

use std::io;

pub use clock::rfc3339;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde_json::Value as Json;
use tangelo_core::limits::{RENDERED_BYTES_MAX, TEMPLATE_BYTES_MAX};

/// The only template of an environment.
const NAME: &str = "chat_template";

/// Fuel for any rendering. One unit is one instruction or 64 bytes of data, so this also bounds the memory that a
/// hostile template can take to about 256 MB.
const FUEL_BASE: u64 = 4_000_000;
/// More fuel for every byte of the conversation: the published templates need less than one.
const FUEL_PER_BYTE: u64 = 16;

/// A template that cannot be used, or a conversation that it refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The model's files hold no template.
    #[error(
        "this model has no chat template, so it cannot hold a conversation; use `generate --raw` to continue a text, \
         or supply a template file"
    )]
    Missing,
    /// The template is too long.
    #[error("the chat template has {found} bytes, but at most {limit} are accepted")]
    TooLong {
        /// Length of the template, in bytes.
        found: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// The template is not valid Jinja.
    #[error("the chat template cannot be compiled: {reason}")]
    Syntax {
        /// What the compiler said.
        reason: String,
    },
    /// The template itself refused the conversation by `raise_exception`.
    #[error("the chat template refuses this conversation: {message}")]
    Refused {
        /// The template's own words.
        message: String,
    },
    /// The template failed.
    #[error("the chat template failed on this conversation: {reason}")]
    Failed {
        /// What went wrong and where.
        reason: String,
    },
    /// The template used up its allowance of work.
    #[error("the chat template was stopped: it did more work than a conversation of this size can need")]
    Exhausted,
    /// The prompt is too long.
    #[error("the rendered prompt is longer than {limit} bytes; shorten the conversation")]
    PromptTooLong {
        /// The most that is accepted.
        limit: usize,
    },
}

/// What a template is given.
#[derive(Debug, Clone, Copy)]
pub struct TemplateContext<'a> {
    /// The conversation: an array of objects with `role`, `content`, ...
    pub messages: &'a Json,
    /// Tool definitions: an array, or `None`, which the template sees as Python's `None`.
    pub tools: Option<&'a Json>,
    /// Whether the prompt should end where the assistant's answer begins.
    pub add_generation_prompt: bool,
    /// Further variables (`enable_thinking`, `bos_token`, ...). They win over the three above.
    pub kwargs: &'a serde_json::Map<String, Json>,
    /// What `strftime_now` prints, in seconds since 1970 in the zone that the caller wants to show; `None` reads the
    /// system's clock (UTC). A fixed value keeps prompts equal from day to day, and therefore cached.
    pub now_unix_s: Option<i64>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`TemplateError::TooLong`], [`TemplateError::Syntax`].
    pub fn new(source: String) -> Result<Self, TemplateError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong { found: source.len(), limit: TEMPLATE_BYTES_MAX });
        }
        if let Some(reason) = guard::refusal(&source) {
            return Err(TemplateError::Syntax { reason });
        }
        let mut environment = environment().map_err(|error| syntax(&error))?;
        environment.add_template_owned(NAME, source.clone()).map_err(|error| syntax(&error))?;
        Ok(Self { environment, source })
    }

    /// Compiles the template of a model, if it has one.
    ///
    /// # Errors
    /// [`TemplateError::Missing`] for `None`: another model's template is never used instead, because it would
    /// silently give wrong prompts. Else as [`ChatTemplate::new`].
    pub fn require(source: Option<String>) -> Result<Self, TemplateError> {
        Self::new(source.ok_or(TemplateError::Missing)?)
    }

    /// The text of the template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation to a prompt.
    ///
    /// # Errors
    /// The template refuses it, fails on it, does too much work, or writes more than
    /// [`RENDERED_BYTES_MAX`] bytes.
    pub fn render(&self, context: &TemplateContext<'_>) -> Result<String, TemplateError> {
        let inputs =
            [Some(context.messages), context.tools].into_iter().flatten().chain(context.kwargs.values());
        let bytes = inputs.map(python::size_bytes).fold(0u64, u64::saturating_add);
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL_BASE.saturating_add(bytes.saturating_mul(FUEL_PER_BYTE))));
        let now = context.now_unix_s;
        environment.add_function("strftime_now", move |format: &str| clock::strftime(format, now));

        let mut prompt = BoundedBuffer::default();
        environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(variables(context), &mut prompt).map(drop))
            .map_err(|error| failure(&error, &prompt))?;
        String::from_utf8(prompt.bytes).map_err(|error| TemplateError::Failed { reason: error.to_string() })
    }
}

fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(python::method);
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("trim", python::trim);
    environment.add_test("iterable", python::is_iterable);
    environment.add_function("raise_exception", raise_exception);
    Ok(environment)
}

fn variables(context: &TemplateContext<'_>) -> Value {
    let fixed = [
        ("messages", python::value(context.messages)),
        ("tools", context.tools.map_or_else(|| Value::from(()), python::value)),
        ("documents", Value::from(())),
        ("add_generation_prompt", Value::from(context.add_generation_prompt)),
    ];
    let extra = context.kwargs.iter().map(|(name, value)| (name.as_str(), python::value(value)));
    Value::from_pairs(fixed.into_iter().chain(extra))
}

/// Marks an error as the template's own refusal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

fn syntax(error: &Error) -> TemplateError {
    TemplateError::Syntax { reason: describe(error) }
}

fn failure(error: &Error, prompt: &BoundedBuffer) -> TemplateError {
    if prompt.overflowed {
        return TemplateError::PromptTooLong { limit: RENDERED_BYTES_MAX };
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return TemplateError::Refused { message: message.clone() };
        }
        if inner.downcast_ref::<Error>().is_some_and(|inner| inner.kind() == ErrorKind::OutOfFuel) {
            return TemplateError::Exhausted;
        }
        cause = inner.source();
    }
    TemplateError::Failed { reason: describe(error) }
}

/// One sentence: what, and on which line of the template.
fn describe(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

/// Collects the prompt and refuses to grow beyond [`RENDERED_BYTES_MAX`].
#[derive(Default)]
struct BoundedBuffer {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl io::Write for BoundedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > RENDERED_BYTES_MAX {
            self.overflowed = true;
            return Err(io::Error::other("the prompt is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
