//! Personas: who answers, as a TOML file.
//!
//! ```toml
//! name = "librarian"
//! description = "Finds books and knows what is in them."
//! system = "You are a librarian. Be brief."
//! greeting = "What would you like to read?"
//! tools = "tools.json"            # or [[tools]] tables in the shape of OpenAI's API
//!
//! [sampling]                      # what is absent is the model's own
//! temperature = 0.6
//! max_tokens = 2048
//! stop = ["THE END"]
//!
//! [thinking]
//! enabled = true
//! budget = 512
//!
//! [template_kwargs]               # further variables for the chat template
//! ```
//!
//! A misspelt key is an error, since a default in its place would be noticed late or never. Files are not opened here:
//! whoever parses says what is in the file of tools. Ranges of sampling parameters belong to the sampler, which checks
//! them whatever they come from.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Number, Value};
use tangelo_core::SamplingOverrides;
use tangelo_core::limits::{PERSONA_BYTES_MAX, PERSONA_NAME_BYTES_MAX, STOP_STRINGS_MAX};

use crate::error::{Error, Result};
use crate::message::{Conversation, Message, Role, Tool};
use crate::render::RenderOptions;

/// Who answers: what a conversation begins with, and how its answers are chosen. The default says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Persona {
    /// Letters, digits, `-`, `_` and `.`, so that it can stand in a model's name, in an address and in a file's name.
    pub name: String,
    /// For lists of personas.
    pub description: Option<String>,
    /// Instructions that hold for the whole conversation.
    pub system: Option<String>,
    /// Tools that it may call.
    pub tools: Vec<Tool>,
    /// What it says first.
    pub greeting: Option<String>,
    /// How its tokens are chosen.
    pub sampling: SamplingOverrides,
    /// Whether and how long it thinks before it answers.
    pub thinking: Thinking,
    /// Further variables for the chat template.
    pub template_kwargs: Map<String, Value>,
}

/// Whether and how long a persona thinks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thinking {
    /// `None` leaves it to the template.
    pub enabled: Option<bool>,
    /// Tokens after which reasoning is closed at the next end of a line.
    pub budget: Option<usize>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    description: Option<String>,
    system: Option<String>,
    tools: Option<toml::Value>,
    greeting: Option<String>,
    #[serde(default)]
    sampling: SamplingOverrides,
    #[serde(default)]
    thinking: Thinking,
    #[serde(default)]
    template_kwargs: toml::Table,
}

impl Persona {
    /// Reads a persona. If it keeps its tools in a file, `tools_file` is given the path as it is written there and returns
    /// the list in that file as JSON, or why it cannot.
    ///
    /// # Errors
    /// [`Error::Persona`] if the text is too long, is not TOML, has unknown keys or values of another type, a name that
    /// cannot be used, or contradicts itself; [`Error::Tool`] for a tool without a name or with parameters that are not a schema.
    pub fn parse(text: &str, tools_file: impl FnOnce(&Path) -> Result<Value, String>) -> Result<Self> {
        if text.len() > PERSONA_BYTES_MAX {
            return Err(problem(format!("has {} bytes, at most {PERSONA_BYTES_MAX} are read", text.len())));
        }
        let file: File = toml::from_str(text).map_err(|error| at_line(text, &error))?;
        let tools = match file.tools {
            None => Vec::new(),
            Some(toml::Value::String(path)) => Tool::list(
                tools_file(Path::new(&path)).map_err(|why| problem(format!("has no tools: {why}")))?,
            )?,
            Some(list) => Tool::list(json(list, "tools")?)?,
        };
        let mut template_kwargs = Map::new();
        for (key, value) in file.template_kwargs {
            let value = json(value, "template_kwargs")?;
            template_kwargs.insert(key, value);
        }
        let persona = Self {
            name: file.name,
            description: file.description,
            system: file.system,
            tools,
            greeting: file.greeting,
            sampling: file.sampling,
            thinking: file.thinking,
            template_kwargs,
        };
        persona.check()?;
        Ok(persona)
    }

    fn check(&self) -> Result<()> {
        let is_good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let name = &self.name;
        if name.is_empty()
            || name.len() > PERSONA_NAME_BYTES_MAX
            || name.starts_with('.')
            || !name.chars().all(is_good)
        {
            return Err(problem(format!(
                "is named {name:?}, but a name has 1 to {PERSONA_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, no `.` first"
            )));
        }
        if self.thinking.enabled == Some(false) && self.thinking.budget.is_some() {
            return Err(problem("has a `budget` of thinking, but thinking is not `enabled`".to_owned()));
        }
        let stops = &self.sampling.stop;
        if stops.len() > STOP_STRINGS_MAX || stops.iter().any(String::is_empty) {
            return Err(problem(format!(
                "has a `stop` that is not a list of at most {STOP_STRINGS_MAX} non-empty texts"
            )));
        }
        Ok(())
    }

    /// What every conversation with this persona begins with: the system message, the tools and the greeting.
    pub fn conversation(&self) -> Conversation {
        let system = self.system.as_ref().map(|text| Message::new(Role::System, text));
        let greeting = self.greeting.as_ref().map(|text| Message::new(Role::Assistant, text));
        Conversation { messages: system.into_iter().chain(greeting).collect(), tools: self.tools.clone() }
    }

    /// A conversation of a client as one with this persona. The persona's system message comes first and the client's, if
    /// it is another, follows in the same message, because templates take only one; a greeting that the client sends
    /// back is not repeated; of two tools with one name the persona's counts.
    pub fn begin(&self, client: Conversation) -> Conversation {
        let mut whole = self.conversation();
        let mut messages = client.messages.into_iter().peekable();
        if let Some(theirs) = messages.next_if(|message| message.role == Role::System) {
            match whole.messages.first_mut().filter(|message| message.role == Role::System) {
                Some(ours) if ours.content == theirs.content => {}
                Some(ours) => {
                    let texts = [ours.content.take(), theirs.content];
                    ours.content = Some(texts.into_iter().flatten().collect::<Vec<String>>().join("\n\n"));
                }
                None => whole.messages.insert(0, theirs),
            }
        }
        let greeting = self.greeting.as_deref();
        messages.next_if(|message| {
            greeting.is_some() && message.role == Role::Assistant && message.content.as_deref() == greeting
        });
        whole.messages.extend(messages);
        for tool in client.tools {
            if whole.tool(tool.name()).is_none() {
                whole.tools.push(tool);
            }
        }
        whole
    }

    /// How conversations with this persona are rendered, as far as it says so.
    pub fn render_options(&self) -> RenderOptions {
        RenderOptions {
            enable_thinking: self.thinking.enabled,
            kwargs: self.template_kwargs.clone(),
            ..RenderOptions::default()
        }
    }
}

fn problem(problem: String) -> Error {
    Error::Persona { line: None, problem }
}

/// What the reader of TOML says, with the line it is about.
fn at_line(text: &str, error: &toml::de::Error) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| before.matches('\n').count().saturating_add(1));
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    Error::Persona { line, problem: format!("cannot be read: {message}") }
}

/// A value as JSON, which has neither dates nor infinities. How deep values nest is bounded by the reader of TOML.
fn json(value: toml::Value, key: &'static str) -> Result<Value> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Float(number) => Number::from_f64(number).map(Value::Number).ok_or_else(|| {
            problem(format!("has the number {number} in `{key}`, which JSON does not know"))
        })?,
        toml::Value::Datetime(date) => {
            return Err(problem(format!("has the date {date} in `{key}`, which must be a text in quotes")));
        }
        toml::Value::Array(items) => {
            items.into_iter().map(|item| json(item, key)).collect::<Result<Vec<Value>>>()?.into()
        }
        toml::Value::Table(table) => {
            let pairs = table.into_iter().map(|(name, value)| Ok((name, json(value, key)?)));
            Value::Object(pairs.collect::<Result<Map<String, Value>>>()?)
        }
    })
}
