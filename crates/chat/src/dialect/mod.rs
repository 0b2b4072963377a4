//! How families of models write tool calls, and how their prompts are divided into turns.
//!
//! A dialect is one file: a [`Dialect`] value and a grammar that reads calls. It is chosen by what the model's
//! template contains, because the template is what the model was trained to imitate. Adding one is adding its file and
//! its line in `DIALECTS`.

mod grammar;
mod nemotron3;
mod nemotron3_grammar;
mod plain;
mod toolcall_json;

pub use grammar::CallGrammar;

use std::fmt;

use serde_json::{Map, Value};
use tangelo_core::limits::TOOL_CALLS_MAX;

use crate::event::Event;
use crate::message::Tool;

/// The tag that begins reasoning, in every dialect.
pub const THINK_OPEN: &str = "<think>";
/// The tag that ends reasoning, in every dialect.
pub const THINK_CLOSE: &str = "</think>";

/// All dialects; the first that recognises a template is taken, and the last recognises any.
const DIALECTS: &[&Dialect] = &[&nemotron3::DIALECT, &toolcall_json::DIALECT, &plain::DIALECT];

/// Writes the grammar of calls of these tools; the function says whether a text is a special token.
type WriteGrammar = fn(&[&Tool], CallGrammar<'_>, &dyn Fn(&str) -> bool) -> Option<String>;

/// A way of writing tool calls and turns.
pub struct Dialect {
    /// For reports.
    pub name: &'static str,
    /// Whether a template, given as its source, speaks this dialect.
    recognises: fn(&str) -> bool,
    /// What begins a turn. The role follows, up to the end of the line.
    pub(crate) turn_starts: &'static [&'static str],
    /// What ends the result of one tool inside a turn, if results are marked.
    pub(crate) tool_result_close: Option<&'static str>,
    /// What may begin a tool call; `None` if the dialect has none.
    pub(crate) call_open: Option<&'static str>,
    /// A reader for text that begins with `call_open`.
    pub(crate) reader: fn() -> Box<dyn CallReader>,
    /// What its reader reads, as a grammar; `None` where there are no calls.
    write: WriteGrammar,
}

impl Dialect {
    /// The dialect of a chat template.
    pub fn detect(template: &str) -> &'static Self {
        DIALECTS.iter().find(|dialect| (dialect.recognises)(template)).copied().unwrap_or(&plain::DIALECT)
    }

    /// What may begin a tool call, if there are any.
    pub fn call_open(&self) -> Option<&'static str> {
        self.call_open
    }

    /// The grammar of an answer that calls some of `tools`; `None` if the dialect has no calls. `is_token` says whether a
    /// text is a special token of the vocabulary.
    pub fn call_grammar(
        &self,
        tools: &[Tool],
        calls: CallGrammar<'_>,
        is_token: &dyn Fn(&str) -> bool,
    ) -> Option<String> {
        (self.write)(&grammar::callable(tools, calls), calls, is_token)
    }

    /// The dialect of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        DIALECTS.iter().find(|dialect| dialect.name == name).copied()
    }
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dialect").field(&self.name).finish()
    }
}

/// What a grammar says about the text it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Undecided until more text arrives. Not returned at the end of the output.
    More,
    /// This is not a call after all: the opening tag is text. Only before anything was consumed.
    Reject,
    /// Some text was used up; show me the rest.
    Advance(usize),
    /// Some text was used up, and the block of calls is over.
    Done(usize),
}

/// Reads the calls of one block, from its opening tag to its end.
///
/// To give the same events wherever the stream is cut, a grammar must decide only on what no later text can change,
/// and answer [`Progress::More`] otherwise.
pub(crate) trait CallReader: Send {
    /// Looks at `text`, the unused rest of the output so far, which begins with the opening tag the first time.
    /// `at_end`: no more text will come.
    fn step(&mut self, text: &str, at_end: bool, tools: &[Tool], calls: &mut CallSink) -> Progress;
}

/// Where grammars put the calls that they find: numbers them and makes events of them.
#[derive(Debug)]
pub(crate) struct CallSink {
    events: Vec<Event>,
    id_prefix: String,
    started: usize,
}

impl CallSink {
    pub(crate) fn new(id_prefix: String) -> Self {
        Self { events: Vec::new(), id_prefix, started: 0 }
    }

    /// Whether an answer may hold this many more calls.
    pub(crate) fn has_room(&self, calls: usize) -> bool {
        self.started.saturating_add(calls) <= TOOL_CALLS_MAX
    }

    pub(crate) fn start(&mut self, name: &str) {
        let index = self.started;
        self.started = index.saturating_add(1);
        let id = format!("{}{index}", self.id_prefix);
        self.events.push(Event::ToolCallStart { index, id, name: name.to_owned() });
    }

    /// Adds a piece of the JSON text of the arguments of the current call.
    pub(crate) fn arguments(&mut self, json_delta: &str) {
        if !json_delta.is_empty() {
            let index = self.started.saturating_sub(1);
            self.events.push(Event::ToolCallArguments { index, json_delta: json_delta.to_owned() });
        }
    }

    pub(crate) fn end(&mut self, arguments: Map<String, Value>, complete: bool) {
        let index = self.started.saturating_sub(1);
        self.events.push(Event::ToolCallEnd { index, arguments, complete });
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

/// Whether `text` is a beginning of `tag` but not all of it. The empty text is.
pub(crate) fn is_partial(text: &str, tag: &str) -> bool {
    text.len() < tag.len() && tag.starts_with(text)
}
