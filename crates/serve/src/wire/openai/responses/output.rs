//! An answer as the items of a response, and as the events that tell of them.
//!
//! [`Builder`] is fed with the pieces of an answer. It keeps the items and says which events a stream has to send;
//! without a stream the events are dropped, so that both forms cannot differ.

use serde_json::{Map, Value, json};
use tangelo_chat::{Event, Message, Role, ToolCall};

use crate::answer::{ChoiceUsage, Ending, Facts, Piece, Started, TokenLogprob};
use crate::error::ApiError;
use crate::wire::json::with;
use crate::wire::openai::write;

/// The item that is being written.
#[derive(Debug)]
enum Open {
    Reasoning(String),
    Text { text: String, tokens: Vec<TokenLogprob> },
    Call { id: String, name: String, json: String },
}

/// Builds a response.
#[derive(Debug)]
pub struct Builder {
    facts: Facts,
    echo: Map<String, Value>,
    output: Vec<Value>,
    open: Option<Open>,
    message: Message,
    sequence: u64,
    started: Started,
    usage: ChoiceUsage,
    ending: Option<Ending>,
    error: Option<ApiError>,
}

impl Builder {
    /// A response without items. `echo`: fields that repeat the request.
    pub fn new(facts: Facts, echo: Map<String, Value>) -> Self {
        Self {
            facts,
            echo,
            output: Vec::new(),
            open: None,
            message: Message { content: None, ..Message::new(Role::Assistant, "") },
            sequence: 0,
            started: Started::default(),
            usage: ChoiceUsage::default(),
            ending: None,
            error: None,
        }
    }

    /// The response's id.
    pub fn id(&self) -> String {
        format!("resp_{}", self.facts.id)
    }

    /// The error that ended the answer.
    pub fn error(&self) -> Option<&ApiError> {
        self.error.as_ref()
    }

    /// The answer as a message of a conversation.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The events that begin a stream.
    pub fn begin(&mut self) -> Vec<Value> {
        ["response.created", "response.in_progress"]
            .map(|kind| {
                let response = self.response();
                self.event(kind, json!({ "response": response }))
            })
            .into()
    }

    /// Takes a piece of the answer and returns the events that tell of it.
    pub fn push(&mut self, piece: Piece) -> Vec<Value> {
        match piece {
            Piece::Started(started) => {
                self.started = started;
                Vec::new()
            }
            Piece::Event { event, tokens, .. } => self.push_event(event, tokens),
            Piece::Finished { ending, usage, .. } => {
                self.ending = Some(ending);
                self.usage = usage;
                self.close()
            }
            Piece::Failed(error) => {
                let events = self.close();
                self.error = Some(error);
                events
            }
        }
    }

    /// The event that ends a stream.
    pub fn end(&mut self) -> Value {
        let response = self.response();
        let kind = match self.status().0 {
            "completed" => "response.completed",
            "failed" => "response.failed",
            _ => "response.incomplete",
        };
        self.event(kind, json!({ "response": response }))
    }

    /// How far the answer has come, and why it is incomplete.
    fn status(&self) -> (&'static str, Option<&'static str>) {
        match (&self.error, &self.ending) {
            (Some(_), _) => ("failed", None),
            (None, None) => ("in_progress", None),
            (None, Some(Ending::Length | Ending::ContextFull)) => ("incomplete", Some("max_output_tokens")),
            (None, Some(Ending::Cancelled)) => ("incomplete", None),
            (None, Some(_)) => ("completed", None),
        }
    }

    /// The response as it stands.
    pub fn response(&self) -> Value {
        let (status, reason) = self.status();
        let response = json!({
            "id": self.id(),
            "object": "response",
            "created_at": self.facts.created_unix_s,
            "status": status,
            "error": self.error.as_ref().map(|error| json!({"code": "server_error", "message": error.message})),
            "incomplete_details": reason.map(|reason| json!({ "reason": reason })),
            "model": self.facts.model,
            "output": self.output,
            "usage": self.ending.as_ref().map(|_| self.usage_value()),
            "tangelo": write::extension(&self.started),
        });
        with(response, self.echo.clone().into())
    }

    fn usage_value(&self) -> Value {
        let (input, output) = (self.started.prompt_tokens, self.usage.answer_tokens);
        json!({
            "input_tokens": input,
            "input_tokens_details": {"cached_tokens": self.started.cached_tokens},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": self.usage.reasoning_tokens},
            "total_tokens": input.saturating_add(output),
        })
    }

    fn event(&mut self, kind: &str, fields: Value) -> Value {
        let event = json!({"type": kind, "sequence_number": self.sequence});
        self.sequence = self.sequence.saturating_add(1);
        with(event, fields)
    }

    /// An event about the item that is being written.
    fn item_event(&mut self, kind: &str, fields: Value) -> Value {
        let item = json!({"output_index": self.output.len(), "item_id": self.item_id()});
        self.event(kind, with(item, fields))
    }

    fn item_id(&self) -> String {
        let prefix = match &self.open {
            Some(Open::Reasoning(_)) => "rs",
            Some(Open::Call { .. }) => "fc",
            _ => "msg",
        };
        format!("{prefix}_{}_{}", self.facts.id, self.output.len())
    }

    fn push_event(&mut self, event: Event, tokens: Vec<TokenLogprob>) -> Vec<Value> {
        match event {
            Event::Reasoning(delta) => {
                let mut events = self
                    .open_if(|open| matches!(open, Open::Reasoning(_)), || Open::Reasoning(String::new()));
                if let Some(Open::Reasoning(text)) = &mut self.open {
                    text.push_str(&delta);
                }
                self.message.reasoning_content.get_or_insert_default().push_str(&delta);
                let fields = json!({"content_index": 0, "delta": delta});
                events.push(self.item_event("response.reasoning_text.delta", fields));
                events
            }
            Event::Content(delta) => {
                let fresh = || Open::Text { text: String::new(), tokens: Vec::new() };
                let mut events = self.open_if(|open| matches!(open, Open::Text { .. }), fresh);
                let logprobs = write::token_logprobs(&tokens);
                if let Some(Open::Text { text, tokens: all }) = &mut self.open {
                    text.push_str(&delta);
                    all.extend(tokens);
                }
                self.message.content.get_or_insert_default().push_str(&delta);
                let fields = json!({"content_index": 0, "delta": delta, "logprobs": logprobs});
                events.push(self.item_event("response.output_text.delta", fields));
                events
            }
            Event::ToolCallStart { id, name, .. } => {
                self.open_if(|_| false, || Open::Call { id, name, json: String::new() })
            }
            Event::ToolCallArguments { json_delta, .. } => {
                if let Some(Open::Call { json, .. }) = &mut self.open {
                    json.push_str(&json_delta);
                }
                vec![self.item_event("response.function_call_arguments.delta", json!({"delta": json_delta}))]
            }
            Event::ToolCallEnd { arguments, complete, .. } => {
                if let (Some(Open::Call { id, name, .. }), true) = (&self.open, complete) {
                    let call = ToolCall { id: Some(id.clone()), name: name.clone(), arguments };
                    self.message.tool_calls.push(call);
                }
                self.close_as(if complete { "completed" } else { "incomplete" })
            }
        }
    }

    /// Opens an item unless one that is `right` is open.
    fn open_if(&mut self, right: impl FnOnce(&Open) -> bool, fresh: impl FnOnce() -> Open) -> Vec<Value> {
        if self.open.as_ref().is_some_and(right) {
            return Vec::new();
        }
        let mut events = self.close();
        self.open = Some(fresh());
        let item = self.item("in_progress", false);
        let index = self.output.len();
        events.push(self.event("response.output_item.added", json!({"output_index": index, "item": item})));
        if let Some(part) = self.part(false) {
            let fields = json!({"content_index": 0, "part": part});
            events.push(self.item_event("response.content_part.added", fields));
        }
        events
    }

    fn close(&mut self) -> Vec<Value> {
        let is_cut = matches!(self.ending, Some(Ending::Length | Ending::ContextFull | Ending::Cancelled));
        self.close_as(if is_cut { "incomplete" } else { "completed" })
    }

    /// Closes the item that is being written, if there is one.
    fn close_as(&mut self, status: &str) -> Vec<Value> {
        let done = match &self.open {
            None => return Vec::new(),
            Some(Open::Reasoning(text)) => {
                ("response.reasoning_text.done", json!({"content_index": 0, "text": text}))
            }
            Some(Open::Text { text, tokens }) => {
                let fields =
                    json!({"content_index": 0, "text": text, "logprobs": write::token_logprobs(tokens)});
                ("response.output_text.done", fields)
            }
            Some(Open::Call { name, json, .. }) => {
                ("response.function_call_arguments.done", json!({"name": name, "arguments": json}))
            }
        };
        let mut events = vec![self.item_event(done.0, done.1)];
        if let Some(part) = self.part(true) {
            let fields = json!({"content_index": 0, "part": part});
            events.push(self.item_event("response.content_part.done", fields));
        }
        let item = self.item(status, true);
        let fields = json!({"output_index": self.output.len(), "item": item});
        events.push(self.event("response.output_item.done", fields));
        self.output.push(item);
        self.open = None;
        events
    }

    /// The content of the item that is being written: all of it, or as it was at the beginning.
    fn part(&self, whole: bool) -> Option<Value> {
        match self.open.as_ref()? {
            Open::Reasoning(text) => {
                Some(json!({"type": "reasoning_text", "text": if whole { text.as_str() } else { "" }}))
            }
            Open::Text { text, tokens } => Some(json!({
                "type": "output_text",
                "text": if whole { text.as_str() } else { "" },
                "annotations": [],
                "logprobs": write::token_logprobs(tokens),
            })),
            Open::Call { .. } => None,
        }
    }

    fn item(&self, status: &str, whole: bool) -> Value {
        let content: Vec<Value> = self.part(whole).filter(|_| whole).into_iter().collect();
        let id = self.item_id();
        match &self.open {
            Some(Open::Reasoning(_)) => {
                json!({"id": id, "type": "reasoning", "status": status, "summary": [], "content": content})
            }
            Some(Open::Call { id: call_id, name, json }) => json!({
                "id": id,
                "type": "function_call",
                "status": status,
                "call_id": call_id,
                "name": name,
                "arguments": json,
            }),
            _ => json!({
                "id": id,
                "type": "message",
                "status": status,
                "role": "assistant",
                "content": content,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{facts, pieces};

    fn built(pieces: Vec<Piece>) -> (Vec<Value>, Builder) {
        let mut builder = Builder::new(facts(), Map::new());
        let mut events = builder.begin();
        for piece in pieces {
            events.extend(builder.push(piece));
        }
        events.push(builder.end());
        (events, builder)
    }

    #[test]
    fn events_tell_every_item_from_beginning_to_end() {
        let (events, _) = built(pieces());
        let told: Vec<String> = events
            .iter()
            .map(|event| {
                let kind = event["type"].as_str().expect("a type").trim_start_matches("response.");
                event.get("output_index").map_or(kind.to_owned(), |index| format!("{index} {kind}"))
            })
            .collect();
        let expected = [
            "created",
            "in_progress",
            "0 output_item.added",
            "0 content_part.added",
            "0 reasoning_text.delta",
            "0 reasoning_text.delta",
            "0 reasoning_text.done",
            "0 content_part.done",
            "0 output_item.done",
            "1 output_item.added",
            "1 content_part.added",
            "1 output_text.delta",
            "1 output_text.done",
            "1 content_part.done",
            "1 output_item.done",
            "2 output_item.added",
            "2 function_call_arguments.delta",
            "2 function_call_arguments.delta",
            "2 function_call_arguments.done",
            "2 output_item.done",
            "completed",
        ];
        assert_eq!(told, expected);
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], number);
        }
    }

    #[test]
    fn the_last_event_holds_what_the_others_told() {
        let (events, builder) = built(pieces());
        let response = &events.last().expect("an end")["response"];
        let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
        let items: Vec<&Value> = done.map(|event| &event["item"]).collect();
        assert_eq!(response["output"].as_array().expect("items").iter().collect::<Vec<_>>(), items);
        assert_eq!(response, &builder.response());
        assert_eq!(items[0]["content"][0]["text"], "Look it up.");
        assert_eq!(items[1]["content"][0]["text"], "One moment.");
        assert_eq!(items[2]["arguments"], "{\"city\":\"Ulm\"}");
        assert_eq!(response["usage"]["input_tokens_details"]["cached_tokens"], 16);
        let message = builder.message();
        assert_eq!(message.reasoning_content.as_deref(), Some("Look it up."));
        assert_eq!(message.tool_calls[0].arguments["city"], "Ulm");
    }

    #[test]
    fn an_answer_that_was_cut_is_incomplete_and_one_that_failed_is_failed() {
        let text = || Piece::Event { choice: 0, event: Event::Content("x".to_owned()), tokens: Vec::new() };
        let cut = Piece::Finished {
            choice: 0,
            ending: Ending::Length,
            usage: ChoiceUsage::default(),
            tokens: Vec::new(),
        };
        let (events, builder) = built(vec![text(), cut]);
        assert_eq!(events.last().expect("an end")["type"], "response.incomplete");
        assert_eq!(builder.response()["incomplete_details"]["reason"], "max_output_tokens");
        assert_eq!(builder.response()["output"][0]["status"], "incomplete");
        let (events, builder) = built(vec![text(), Piece::Failed(ApiError::invalid(None, "no"))]);
        assert_eq!(events.last().expect("an end")["type"], "response.failed");
        assert_eq!(builder.response()["error"]["message"], "no");
    }
}
