//! What a model's output consists of, as it arrives.

use serde_json::{Map, Value};

use crate::message::{Message, Role, ToolCall};

/// One step of an answer. Text and argument pieces of the same kind follow each other and are to be concatenated.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A piece of reasoning.
    Reasoning(String),
    /// A piece of the answer.
    Content(String),
    /// A tool call begins.
    ToolCallStart {
        /// 0 for the first call of the answer.
        index: usize,
        /// Names the call; unique within the answer.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// A piece of the JSON text of the arguments.
    ToolCallArguments {
        /// Which call.
        index: usize,
        /// The pieces of one call, concatenated, are a JSON object equal to the final arguments.
        json_delta: String,
    },
    /// A tool call is over.
    ToolCallEnd {
        /// Which call.
        index: usize,
        /// The arguments, typed by the tool's schema.
        arguments: Map<String, Value>,
        /// Whether the model finished the call. `false`: the output ended inside it, and the last argument may be cut
        /// short; such a call should not be executed.
        complete: bool,
    },
}

/// Joins adjacent pieces of the same kind. Two streams of the same output, cut differently, are equal after this.
pub fn merge(events: impl IntoIterator<Item = Event>) -> Vec<Event> {
    let mut merged: Vec<Event> = Vec::new();
    for event in events {
        match (merged.last_mut(), &event) {
            (Some(Event::Reasoning(text)), Event::Reasoning(more))
            | (Some(Event::Content(text)), Event::Content(more)) => text.push_str(more),
            (
                Some(Event::ToolCallArguments { index, json_delta }),
                Event::ToolCallArguments { index: same, json_delta: more },
            ) if index == same => json_delta.push_str(more),
            _ => merged.push(event),
        }
    }
    merged
}

/// The assistant message that a finished stream amounts to, ready to become history. Calls that the model did not
/// finish are left out.
pub fn assistant_message(events: impl IntoIterator<Item = Event>) -> Message {
    let (mut reasoning, mut content) = (String::new(), String::new());
    let mut started: Vec<(usize, ToolCall)> = Vec::new();
    let mut calls = Vec::new();
    for event in events {
        match event {
            Event::Reasoning(text) => reasoning.push_str(&text),
            Event::Content(text) => content.push_str(&text),
            Event::ToolCallStart { index, id, name } => {
                started.push((index, ToolCall { id: Some(id), name, arguments: Map::new() }));
            }
            Event::ToolCallArguments { .. } => {}
            Event::ToolCallEnd { index, arguments, complete } => {
                let found = started.iter().position(|(other, _)| *other == index);
                if let Some((_, call)) = found.map(|place| started.swap_remove(place)).filter(|_| complete) {
                    calls.push(ToolCall { arguments, ..call });
                }
            }
        }
    }
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    let mut message = Message::new(Role::Assistant, "");
    message.content = if calls.is_empty() { Some(content) } else { filled(content) };
    message.reasoning_content = filled(reasoning);
    message.tool_calls = calls;
    message
}
