//! What `POST /v1/messages` answers with, whole and as events.

use serde_json::{Value, json};
use tangelo_chat::Event;

use crate::answer::{Ending, Facts, Piece, Started};
use crate::error::ApiError;
use crate::wire::collect::{Answers, Part};
use crate::wire::json::with;
use crate::wire::openai::write;
use crate::wire::sse::{Out, Writer};

/// What a thinking block is signed with. Clients send it back; thinking is history like any other here, so there is
/// nothing to verify.
const SIGNATURE: &str = "unsigned";

/// An error in the shape of this dialect.
pub fn error(error: &ApiError) -> Value {
    let kind = match error.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": error.message}})
}

fn stop(ending: Option<&Ending>) -> (&'static str, Option<&str>) {
    match ending {
        Some(Ending::Stop) => ("end_turn", None),
        Some(Ending::StopString(text)) => ("stop_sequence", Some(text)),
        Some(Ending::ToolCalls) => ("tool_use", None),
        Some(Ending::ContextFull) => ("model_context_window_exceeded", None),
        Some(Ending::Length | Ending::Cancelled) | None => ("max_tokens", None),
    }
}

/// `usage`: tokens read from the cache are not counted among the input here.
fn usage(started: &Started, answer_tokens: usize) -> Value {
    json!({
        "input_tokens": started.prompt_tokens.saturating_sub(started.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": started.cached_tokens,
        "output_tokens": answer_tokens,
    })
}

fn envelope(
    facts: &Facts,
    started: &Started,
    content: Vec<Value>,
    ending: Option<&Ending>,
    usage: Value,
) -> Value {
    let (reason, sequence) = ending.map(|ending| stop(Some(ending))).unzip();
    json!({
        "id": format!("msg_{}", facts.id),
        "type": "message",
        "role": "assistant",
        "model": facts.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence.flatten(),
        "usage": usage,
        "tangelo": write::extension(started),
    })
}

/// The answer in one object.
pub fn message(facts: &Facts, answers: &Answers) -> Value {
    let choice = answers.choices.get(&0);
    let parts = choice.map(|choice| choice.parts.as_slice()).unwrap_or_default();
    let content = parts.iter().map(|part| match part {
        Part::Reasoning(text) => json!({"type": "thinking", "thinking": text, "signature": SIGNATURE}),
        Part::Content(text) => json!({"type": "text", "text": text}),
        Part::Call(call) => {
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments})
        }
    });
    let ending = choice.and_then(|choice| choice.ending.as_ref());
    let usage = usage(&answers.started, answers.usage().answer_tokens);
    envelope(facts, &answers.started, content.collect(), ending, usage)
}

/// The kind of the block that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    ToolUse,
}

/// Writes the stream.
#[derive(Debug)]
pub struct Events {
    facts: Facts,
    started: Started,
    /// The block that is being written.
    block: Option<Block>,
    /// Its number, or the next one's.
    index: usize,
}

impl Events {
    /// For the answer with these facts.
    pub fn new(facts: Facts) -> Self {
        Self { facts, started: Started::default(), block: None, index: 0 }
    }

    fn open(&mut self, block: Block, content: Value, out: &mut Out) {
        self.close(out);
        self.block = Some(block);
        send("content_block_start", json!({"index": self.index, "content_block": content}), out);
    }

    fn delta(&self, delta: Value, out: &mut Out) {
        send("content_block_delta", json!({"index": self.index, "delta": delta}), out);
    }

    fn close(&mut self, out: &mut Out) {
        match self.block.take() {
            None => return,
            Some(Block::Thinking) => {
                self.delta(json!({"type": "signature_delta", "signature": SIGNATURE}), out);
            }
            Some(Block::Text | Block::ToolUse) => {}
        }
        send("content_block_stop", json!({"index": self.index}), out);
        self.index = self.index.saturating_add(1);
    }

    fn event(&mut self, event: Event, out: &mut Out) {
        match event {
            Event::Reasoning(text) => {
                if self.block != Some(Block::Thinking) {
                    let block = json!({"type": "thinking", "thinking": "", "signature": ""});
                    self.open(Block::Thinking, block, out);
                }
                self.delta(json!({"type": "thinking_delta", "thinking": text}), out);
            }
            Event::Content(text) => {
                if self.block != Some(Block::Text) {
                    self.open(Block::Text, json!({"type": "text", "text": ""}), out);
                }
                self.delta(json!({"type": "text_delta", "text": text}), out);
            }
            Event::ToolCallStart { id, name, .. } => {
                let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.open(Block::ToolUse, block, out);
            }
            Event::ToolCallArguments { json_delta, .. } => {
                self.delta(json!({"type": "input_json_delta", "partial_json": json_delta}), out);
            }
            Event::ToolCallEnd { .. } => self.close(out),
        }
    }
}

impl Writer for Events {
    fn piece(&mut self, piece: Piece, out: &mut Out) {
        match piece {
            Piece::Started(started) => {
                self.started = started;
                let usage = usage(&self.started, 0);
                let message = envelope(&self.facts, &self.started, Vec::new(), None, usage);
                send("message_start", json!({ "message": message }), out);
            }
            Piece::Event { event, .. } => self.event(event, out),
            Piece::Finished { ending, usage: spent, .. } => {
                self.close(out);
                let (reason, sequence) = stop(Some(&ending));
                let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
                let usage = usage(&self.started, spent.answer_tokens);
                send("message_delta", json!({"delta": delta, "usage": usage}), out);
                send("message_stop", json!({}), out);
            }
            Piece::Failed(failure) => out.event("error", &error(&failure)),
        }
    }

    fn end(&mut self, _: &mut Out) {}

    fn keep_alive(&mut self, out: &mut Out) {
        send("ping", json!({}), out);
    }
}

/// An event whose data repeats its name.
fn send(name: &str, fields: Value, out: &mut Out) {
    out.event(name, &with(json!({ "type": name }), fields));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{answers, data, facts, pieces, transcript};

    #[test]
    fn a_stream_word_for_word() {
        let expected = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":16,"output_tokens":0},"tangelo":{"cached_tokens":16,"replayed_tokens":3}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Look "}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"it up."}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"unsigned"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"One moment."}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"call_1","name":"weather","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"city\":"}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"\"Ulm\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":16,"output_tokens":9}}

event: message_stop
data: {"type":"message_stop"}

"#;
        assert_eq!(transcript(Events::new(facts()), pieces()), expected);
    }

    #[test]
    fn the_whole_has_the_blocks_of_the_stream() {
        let message = message(&facts(), &answers());
        assert_eq!(
            message["content"][0],
            json!({"type": "thinking", "thinking": "Look it up.", "signature": SIGNATURE})
        );
        assert_eq!(message["content"][1], json!({"type": "text", "text": "One moment."}));
        assert_eq!(message["content"][2]["input"], json!({"city": "Ulm"}));
        assert_eq!(message["stop_reason"], "tool_use");
        assert_eq!(message["usage"]["cache_read_input_tokens"], 16);
    }

    #[test]
    fn a_stop_string_is_named() {
        let ending = Ending::StopString("END".to_owned());
        let usage = crate::answer::ChoiceUsage::default();
        let finished = Piece::Finished { choice: 0, ending, usage, tokens: Vec::new() };
        let events = data(&transcript(Events::new(facts()), vec![finished]));
        assert_eq!(events[0]["delta"], json!({"stop_reason": "stop_sequence", "stop_sequence": "END"}));
    }

    #[test]
    fn failures_have_the_dialects_names() {
        let failure = ApiError::invalid(None, "no");
        assert_eq!(error(&failure)["error"]["type"], "invalid_request_error");
        let text = transcript(Events::new(facts()), vec![Piece::Failed(failure)]);
        assert!(text.starts_with("event: error\n"), "{text}");
    }
}
