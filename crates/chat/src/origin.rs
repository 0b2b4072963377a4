//! Which part of a conversation a place of its prompt comes from.
//!
//! Templates are programs, and what they write is not marked. But a part can be found by rendering the conversation once
//! more with the part changed: the first and the last byte that differ are its beginning and its end. To find the part at
//! a given place, all parts from some point on are changed together; the prompt differs first where the first of them
//! begins, so the right point is found by bisection, with about log2(parts) renderings.
//!
//! Changing means that everything but whitespace becomes other text of the same layout: a template that trims, or asks
//! whether there is any text, writes the same around it. Where it looks for words in a text, what it writes may change
//! behind that text, which moves neither the first difference nor, counted from the end, the last.

use std::fmt;

use serde_json::{Map, Value};
use tangelo_formats::tokenizer::Tokenizer;

use crate::error::Result;
use crate::message::{Conversation, Message, ToolCall};
use crate::render::{RenderOptions, Renderer};

/// A part of a conversation. Written as a path into a request: `tools`, `messages[3].content`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The definitions of tools, together with what the template says about them.
    Tools,
    /// A part of the message with this index.
    Message(usize, Part),
}

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `reasoning_content`
    Reasoning,
    /// `content`
    Content,
    /// `tool_calls`
    ToolCalls,
}

/// Where a place of a prompt comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The conversation.
    Field(Field),
    /// The template itself: what it writes around the parts, such as markers of turns.
    Template {
        /// The last part before the place; `None` at the beginning.
        after: Option<Field>,
    },
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tools => f.write_str("tools"),
            Self::Message(index, Part::Reasoning) => write!(f, "messages[{index}].reasoning_content"),
            Self::Message(index, Part::Content) => write!(f, "messages[{index}].content"),
            Self::Message(index, Part::ToolCalls) => write!(f, "messages[{index}].tool_calls"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(field) => field.fmt(f),
            Self::Template { after: Some(field) } => write!(f, "the template's text after {field}"),
            Self::Template { after: None } => f.write_str("the template's text at the beginning"),
        }
    }
}

/// Where token number `token` of the conversation's prompt comes from; `None` if the prompt has no such token. A token
/// that holds both text of the template and of a part counts as the part's.
///
/// # Errors
/// The template refuses the conversation, or the tokenizer fails.
pub fn origin_of_token(
    renderer: &Renderer,
    tokenizer: &Tokenizer,
    conversation: &Conversation,
    options: &RenderOptions,
    token: usize,
) -> Result<Option<Origin>> {
    let rendered = renderer.render(conversation, options)?;
    let ids = rendered.tokens(tokenizer)?.ids;
    let mut lengths = ids.iter().map(|&id| tokenizer.token_bytes(id).map_or(0, <[u8]>::len));
    let first: usize = lengths.by_ref().take(token).sum();
    let Some(length) = lengths.next() else { return Ok(None) };
    let search = Search { renderer, conversation, options, prompt: rendered.prompt };
    let origin = search.at(first)?;
    if length > 1
        && let Origin::Template { .. } = origin
        && let found @ Origin::Field(_) = search.at(first.saturating_add(length).saturating_sub(1))?
    {
        return Ok(Some(found));
    }
    Ok(Some(origin))
}

struct Search<'a> {
    renderer: &'a Renderer,
    conversation: &'a Conversation,
    options: &'a RenderOptions,
    prompt: String,
}

impl Search<'_> {
    /// Where the byte at `place` comes from.
    fn at(&self, place: usize) -> Result<Origin> {
        let fields = fields(&self.conversation.messages);
        // All parts before `known` begin at or before the place, all from `open` on behind it.
        let (mut known, mut open) = (0, fields.len());
        while known < open {
            let middle = known.midpoint(open);
            if self.span(fields.get(middle..).unwrap_or_default())?.0 <= place {
                known = middle.saturating_add(1);
            } else {
                open = middle;
            }
        }
        let last = known.checked_sub(1).and_then(|index| fields.get(index)).copied();
        if let Some(field) = last
            && place < self.span(&[field])?.1
        {
            return Ok(Origin::Field(field));
        }
        if !self.conversation.tools.is_empty() {
            let (start, end) = self.span(&[Field::Tools])?;
            if (start..end).contains(&place) {
                return Ok(Origin::Field(Field::Tools));
            }
        }
        Ok(Origin::Template { after: last })
    }

    /// From where to where the prompt changes with these parts, in bytes; from its end on if it does not.
    fn span(&self, fields: &[Field]) -> Result<(usize, usize)> {
        let mut changed = self.conversation.clone();
        for &field in fields {
            change(&mut changed, field);
        }
        let (prompt, changed) =
            (self.prompt.as_bytes(), self.renderer.render(&changed, self.options)?.prompt);
        let changed = changed.as_bytes();
        let start = prompt.iter().zip(changed).take_while(|(a, b)| a == b).count();
        let rest = prompt.len().min(changed.len()).saturating_sub(start);
        let same =
            prompt.iter().rev().zip(changed.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
        Ok((start, prompt.len().saturating_sub(same)))
    }
}

/// The parts of messages that have any text, in the order in which templates write them.
fn fields(messages: &[Message]) -> Vec<Field> {
    let is_text = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
    let parts = |message: &Message| {
        [
            (Part::Reasoning, is_text(&message.reasoning_content)),
            (Part::Content, is_text(&message.content)),
            (Part::ToolCalls, !message.tool_calls.is_empty()),
        ]
    };
    let all = messages.iter().enumerate().flat_map(|(index, message)| {
        parts(message)
            .into_iter()
            .filter(|(_, is_there)| *is_there)
            .map(move |(part, _)| Field::Message(index, part))
    });
    all.collect()
}

fn change(conversation: &mut Conversation, field: Field) {
    let Field::Message(index, part) = field else {
        conversation.tools.clear();
        return;
    };
    let Some(message) = conversation.messages.get_mut(index) else { return };
    match part {
        Part::Reasoning => message.reasoning_content = message.reasoning_content.as_deref().map(other_text),
        Part::Content => message.content = message.content.as_deref().map(other_text),
        Part::ToolCalls => message.tool_calls.iter_mut().for_each(|call| {
            *call = ToolCall {
                id: call.id.take(),
                name: other_text(&call.name),
                arguments: other_object(&call.arguments),
            };
        }),
    }
}

/// A text that differs in every character but whitespace.
fn other_text(text: &str) -> String {
    let other = |c: char| match c {
        'x' => 'y',
        c if c.is_whitespace() => c,
        _ => 'x',
    };
    text.chars().map(other).collect()
}

fn other_object(object: &Map<String, Value>) -> Map<String, Value> {
    let mut other = Map::new();
    for (index, (key, value)) in object.iter().enumerate() {
        // Keys of one length would become one key.
        other.insert(format!("{}{index}", other_text(key)), other_value(value));
    }
    other
}

fn other_value(value: &Value) -> Value {
    match value {
        Value::Null => Value::Bool(false),
        Value::Bool(truth) => Value::Bool(!truth),
        Value::Number(number) if number.to_string().contains('7') => 8.into(),
        Value::Number(_) => 7.into(),
        Value::String(text) => other_text(text).into(),
        Value::Array(items) => items.iter().map(other_value).collect(),
        Value::Object(object) => Value::Object(other_object(object)),
    }
}
