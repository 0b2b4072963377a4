//! The dialect of Nemotron 3 (and Qwen3-Coder): tags around raw values.
//!
//! ```text
//! <tool_call>
//! <function=NAME>
//! <parameter=ARG>
//! VALUE
//! </parameter>
//! </function>
//! </tool_call>
//! ```
//!
//! A value is raw text and may hold anything, so where it ends is a matter of rules:
//!
//! - A block is a call once `<tool_call>`, `<function=NAME>` and one of `<parameter=ARG>`, `</function>`, `</tool_call>`
//!   have followed each other with nothing but whitespace between them. Anything else is text.
//! - `</parameter>` ends a value only if the next thing is `<parameter=ARG>`, `</function>`, `</tool_call>` or the end
//!   of the output. `</function>` ends it too, if `</tool_call>` or the end follows (the model forgot
//!   `</parameter>`). All other tags belong to the value.
//! - One newline at the beginning of a value and one at its end belong to the tags, not to the value.
//! - After `</function>` may come `</tool_call>`, a further `<function=...>`, or neither.
//! - The first value of an argument that is given twice counts.
//! - If the output ends inside the call, the value so far is the argument, without a trailing piece of a closing tag,
//!   and the call is not complete. A call with `</function>` or `</tool_call>` is complete.
//!
//! Values of type string are passed on as they arrive, others when they are whole: their type decides how they are
//! written in JSON ([`crate::schema`]). Source: the tool section of the published Nemotron 3 Nano template.

use serde_json::{Map, Value};

use super::nemotron3_grammar::write;
use super::{CallReader, CallSink, Dialect, Progress, is_partial};
use crate::message::Tool;
use crate::schema::ArgumentSchema;

pub(super) const OPEN: &str = "<tool_call>";
pub(super) const CLOSE: &str = "</tool_call>";
pub(super) const FUNCTION_OPEN: &str = "<function=";
pub(super) const FUNCTION_CLOSE: &str = "</function>";
pub(super) const PARAMETER_OPEN: &str = "<parameter=";
pub(super) const PARAMETER_CLOSE: &str = "</parameter>";
/// Longest name of a function or an argument, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Most whitespace between two tags, in bytes. It bounds what has to be held back and looked at again.
const GAP_BYTES_MAX: usize = 256;

pub(super) const DIALECT: Dialect = Dialect {
    name: "nemotron3",
    recognises: |template| template.contains(FUNCTION_OPEN) && template.contains(OPEN),
    turn_starts: &["<|im_start|>"],
    tool_result_close: Some("</tool_response>\n"),
    call_open: Some(OPEN),
    reader: || Box::new(TaggedCalls { state: State::Block, function: String::new(), arguments: Map::new() }),
    write,
};

/// A look at text that may still grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look<T> {
    Yes(T),
    No,
    /// It could become a yes.
    Maybe,
}

impl<T> Look<T> {
    /// Turns what will never be decided into `other`.
    fn at_end(self, at_end: bool, other: Self) -> Self {
        match self {
            Self::Maybe if at_end => other,
            decided => decided,
        }
    }
}

/// Skips whitespace: the text behind it, or `None` if there is too much of it.
fn skip_gap(text: &str) -> Option<&str> {
    let rest = text.trim_start();
    (text.len().saturating_sub(rest.len()) <= GAP_BYTES_MAX).then_some(rest)
}

fn look_at_tag(text: &str, tag: &str) -> Look<()> {
    if text.starts_with(tag) {
        Look::Yes(())
    } else if is_partial(text, tag) {
        Look::Maybe
    } else {
        Look::No
    }
}

/// `<open=NAME>` at the beginning of the text: the name and the rest.
fn look_at_name<'a>(text: &'a str, open: &str) -> Look<(&'a str, &'a str)> {
    let Some(rest) = text.strip_prefix(open) else {
        return if is_partial(text, open) { Look::Maybe } else { Look::No };
    };
    match rest.find(['>', '<', '\n', '\r']) {
        Some(end) if end <= NAME_BYTES_MAX => match rest.split_at_checked(end) {
            Some((name, tail)) if !name.trim().is_empty() => {
                tail.strip_prefix('>').map_or(Look::No, |tail| Look::Yes((name.trim(), tail)))
            }
            _ => Look::No,
        },
        None if rest.len() <= NAME_BYTES_MAX => Look::Maybe,
        _ => Look::No,
    }
}

/// Whether one of the tags that may follow a parameter or a function header comes next.
fn look_at_next(text: &str) -> Look<()> {
    let Some(rest) = skip_gap(text) else { return Look::No };
    let parameter = match look_at_name(rest, PARAMETER_OPEN) {
        Look::Yes(_) => Look::Yes(()),
        Look::No => Look::No,
        Look::Maybe => Look::Maybe,
    };
    let looks = [parameter, look_at_tag(rest, FUNCTION_CLOSE), look_at_tag(rest, CLOSE)];
    [Look::Yes(()), Look::Maybe].into_iter().find(|wanted| looks.contains(wanted)).unwrap_or(Look::No)
}

/// A function header and what must follow it: the name and the text behind the header.
fn look_at_function(text: &str) -> Look<(&str, &str)> {
    match look_at_name(text, FUNCTION_OPEN) {
        Look::Yes((name, rest)) => match look_at_next(rest) {
            Look::Yes(()) => Look::Yes((name, rest)),
            Look::No => Look::No,
            Look::Maybe => Look::Maybe,
        },
        other => other,
    }
}

/// Whether a value ends here. Yes: how many bytes the closing tag has.
fn look_at_value_end(text: &str, at_end: bool) -> Look<usize> {
    if let Some(rest) = text.strip_prefix(PARAMETER_CLOSE) {
        let next = look_at_next(rest).at_end(at_end, Look::Yes(()));
        return match next {
            Look::Yes(()) => Look::Yes(PARAMETER_CLOSE.len()),
            Look::No => Look::No,
            Look::Maybe => Look::Maybe,
        };
    }
    if let Some(rest) = text.strip_prefix(FUNCTION_CLOSE) {
        let next = skip_gap(rest).map_or(Look::No, |rest| look_at_tag(rest, CLOSE));
        return match next.at_end(at_end, Look::Yes(())) {
            Look::Yes(()) => Look::Yes(0),
            Look::No => Look::No,
            Look::Maybe => Look::Maybe,
        };
    }
    match is_partial(text, PARAMETER_CLOSE) || is_partial(text, FUNCTION_CLOSE) {
        true => Look::Maybe,
        false => Look::No,
    }
}

/// Where the value at the beginning of a text ends.
enum ValueEnd {
    /// At this byte, with a closing tag of this many bytes.
    Closed(usize, usize),
    /// Not before this byte.
    Open(usize),
}

fn find_value_end(text: &str, at_end: bool) -> ValueEnd {
    for (place, _) in text.match_indices('<') {
        let rest = text.get(place..).unwrap_or_default();
        match look_at_value_end(rest, at_end) {
            Look::Yes(tag) => return ValueEnd::Closed(place, tag),
            Look::Maybe => return ValueEnd::Open(place),
            Look::No => {}
        }
    }
    ValueEnd::Open(text.len())
}

/// Where in the block we are.
enum State {
    /// At `<tool_call>`.
    Block,
    /// In a call, between values.
    Between,
    /// In a value.
    Value(Argument),
    /// Behind `</function>`.
    Behind,
}

/// An argument whose value is arriving.
struct Argument {
    name: String,
    /// Written to JSON as it arrives.
    streamed: bool,
    /// The name was used before: the value is read and dropped.
    repeated: bool,
    /// The newline behind the opening tag was looked for.
    begun: bool,
    /// The value so far.
    text: String,
}

struct TaggedCalls {
    state: State,
    /// The tool of the current call.
    function: String,
    /// The finished arguments of the current call.
    arguments: Map<String, Value>,
}

impl CallReader for TaggedCalls {
    fn step(&mut self, text: &str, at_end: bool, tools: &[Tool], calls: &mut CallSink) -> Progress {
        match std::mem::replace(&mut self.state, State::Between) {
            State::Block => self.step_block(text, at_end, calls),
            State::Between => self.step_between(text, at_end, tools, calls),
            State::Value(argument) => self.step_value(argument, text, at_end, tools, calls),
            State::Behind => self.step_behind(text, at_end, calls),
        }
    }
}

/// How many bytes lie before `rest`, which is an end of `text`.
fn before(text: &str, rest: &str) -> usize {
    text.len().saturating_sub(rest.len())
}

impl TaggedCalls {
    fn step_block(&mut self, text: &str, at_end: bool, calls: &mut CallSink) -> Progress {
        let function = match text.strip_prefix(OPEN).and_then(skip_gap) {
            Some(inner) => look_at_function(inner),
            None => Look::No,
        };
        match function.at_end(at_end, Look::No) {
            Look::Yes((name, rest)) if calls.has_room(1) => {
                self.begin_call(name, calls);
                Progress::Advance(before(text, rest))
            }
            Look::Yes(_) | Look::No => Progress::Reject,
            Look::Maybe => {
                self.state = State::Block;
                Progress::More
            }
        }
    }

    fn begin_call(&mut self, name: &str, calls: &mut CallSink) {
        self.function = name.to_owned();
        self.arguments = Map::new();
        self.state = State::Between;
        calls.start(name);
    }

    fn end_call(&mut self, complete: bool, calls: &mut CallSink) {
        calls.arguments(if self.arguments.is_empty() { "{}" } else { "}" });
        calls.end(std::mem::take(&mut self.arguments), complete);
    }

    /// The text begins with whitespace and one of the tags of [`look_at_next`]: whoever came here has looked.
    fn step_between(&mut self, text: &str, at_end: bool, tools: &[Tool], calls: &mut CallSink) -> Progress {
        let inner = text.trim_start();
        if let Look::Yes((name, rest)) = look_at_name(inner, PARAMETER_OPEN) {
            self.begin_argument(name, tools, calls);
            return Progress::Advance(before(text, rest));
        }
        if let Some(rest) = inner.strip_prefix(FUNCTION_CLOSE) {
            self.end_call(true, calls);
            self.state = State::Behind;
            return Progress::Advance(before(text, rest));
        }
        if let Some(rest) = inner.strip_prefix(CLOSE) {
            self.end_call(true, calls);
            return Progress::Done(before(text, rest));
        }
        // Only the end of the output is left.
        self.end_call(false, calls);
        Progress::Done(if at_end { text.len() } else { 0 })
    }

    fn begin_argument(&mut self, name: &str, tools: &[Tool], calls: &mut CallSink) {
        let repeated = self.arguments.contains_key(name);
        let streamed = self.schema(name, tools).is_text();
        if !repeated {
            let separator = if self.arguments.is_empty() { "{" } else { "," };
            calls.arguments(&format!("{separator}{}:", Value::from(name)));
            if streamed {
                calls.arguments("\"");
            }
        }
        let name = name.to_owned();
        self.state = State::Value(Argument { name, streamed, repeated, begun: false, text: String::new() });
    }

    fn schema<'a>(&self, argument: &str, tools: &'a [Tool]) -> ArgumentSchema<'a> {
        let tool = tools.iter().find(|tool| tool.name() == self.function);
        ArgumentSchema {
            schema: tool.and_then(|tool| tool.parameter(argument)),
            root: tool.and_then(Tool::parameters),
        }
    }

    fn step_value(
        &mut self,
        mut argument: Argument,
        text: &str,
        at_end: bool,
        tools: &[Tool],
        calls: &mut CallSink,
    ) -> Progress {
        if !argument.begun && text.is_empty() && !at_end {
            self.state = State::Value(argument);
            return Progress::More;
        }
        let newline = usize::from(!argument.begun && text.starts_with('\n'));
        argument.begun = true;
        let value = text.get(newline..).unwrap_or_default();
        let (end, closing) = match find_value_end(value, at_end) {
            ValueEnd::Closed(end, closing) => (end, Some(closing)),
            // What is left of a closing tag at the end of the output is not part of the value.
            ValueEnd::Open(end) if at_end => (end, Some(value.len().saturating_sub(end))),
            ValueEnd::Open(end) => (end, None),
        };
        // A newline before the end is not passed on: it may be the tag's.
        let whole = value.get(..end).unwrap_or_default();
        let piece = whole.strip_suffix('\n').unwrap_or(whole);
        argument.push(piece, calls);
        match closing {
            None => {
                self.state = State::Value(argument);
                match newline.saturating_add(piece.len()) {
                    0 => Progress::More,
                    consumed => Progress::Advance(consumed),
                }
            }
            Some(closing) => {
                self.end_argument(argument, tools, calls);
                Progress::Advance(newline.saturating_add(end).saturating_add(closing))
            }
        }
    }

    fn end_argument(&mut self, argument: Argument, tools: &[Tool], calls: &mut CallSink) {
        self.state = State::Between;
        if argument.repeated {
            return;
        }
        let value = match argument.streamed {
            true => {
                calls.arguments("\"");
                Value::from(argument.text)
            }
            false => {
                let value = self.schema(&argument.name, tools).value(&argument.text);
                calls.arguments(&value.to_string());
                value
            }
        };
        self.arguments.insert(argument.name, value);
    }

    fn step_behind(&mut self, text: &str, at_end: bool, calls: &mut CallSink) -> Progress {
        let Some(inner) = skip_gap(text) else { return Progress::Done(0) };
        if let Some(rest) = inner.strip_prefix(CLOSE) {
            return Progress::Done(before(text, rest));
        }
        match look_at_function(inner).at_end(at_end, Look::No) {
            Look::Yes((name, rest)) if calls.has_room(1) => {
                self.begin_call(name, calls);
                Progress::Advance(before(text, rest))
            }
            Look::Maybe => self.wait_behind(),
            _ if is_partial(inner, CLOSE) && !at_end => self.wait_behind(),
            _ if is_partial(inner, CLOSE) => Progress::Done(text.len()),
            _ => Progress::Done(0),
        }
    }

    fn wait_behind(&mut self) -> Progress {
        self.state = State::Behind;
        Progress::More
    }
}

impl Argument {
    fn push(&mut self, piece: &str, calls: &mut CallSink) {
        self.text.push_str(piece);
        if self.streamed && !self.repeated {
            let quoted = Value::from(piece).to_string();
            let inner = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            calls.arguments(inner.unwrap_or_default());
        }
    }
}
