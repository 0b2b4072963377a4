//! What Ollama's dialect answers with: JSON lines, or their sum.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tangelo_chat::Event;
use tangelo_formats::template::rfc3339;

use crate::answer::{AnswerStream, ChoiceUsage, Ending, Facts, Piece, Started};
use crate::error::ApiError;
use crate::wire::collect::{Answers, Call};
use crate::wire::json::with;
use crate::wire::openai::write;
use crate::wire::sse::{Out, Writer};

/// Which of the two endpoints answers; they differ in where the text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
}

/// An error in the shape of this dialect.
pub fn error(error: &ApiError) -> Value {
    json!({ "error": error.message })
}

/// When what happened.
#[derive(Debug, Clone, Copy)]
struct Times {
    asked: Instant,
    /// The prompt was in memory.
    read: Instant,
}

impl Times {
    fn now() -> Self {
        let asked = Instant::now();
        Self { asked, read: asked }
    }
}

/// What one line holds besides the time.
#[derive(Debug, Default)]
struct Line {
    content: String,
    thinking: String,
    calls: Vec<Value>,
    logprobs: Option<Value>,
}

/// Writes the stream.
#[derive(Debug)]
pub struct Lines {
    model: String,
    endpoint: Endpoint,
    times: Times,
    started: Started,
    calls: Vec<Call>,
}

impl Lines {
    /// For an answer that was just asked for.
    pub fn new(facts: &Facts, endpoint: Endpoint) -> Self {
        let model = facts.model.clone();
        Self { model, endpoint, times: Times::now(), started: Started::default(), calls: Vec::new() }
    }

    fn line(&self, line: Line) -> Value {
        let mut map = Map::new();
        map.insert("model".into(), self.model.as_str().into());
        map.insert("created_at".into(), now().into());
        let mut text = Map::new();
        if self.endpoint == Endpoint::Chat {
            text.insert("role".into(), "assistant".into());
            text.insert("content".into(), line.content.into());
        } else {
            text.insert("response".into(), line.content.into());
        }
        if !line.thinking.is_empty() {
            text.insert("thinking".into(), line.thinking.into());
        }
        if !line.calls.is_empty() {
            text.insert("tool_calls".into(), line.calls.into());
        }
        match self.endpoint {
            Endpoint::Chat => drop(map.insert("message".into(), text.into())),
            Endpoint::Generate => map.extend(text),
        }
        map.extend(line.logprobs.map(|logprobs| ("logprobs".to_owned(), logprobs)));
        map.insert("done".into(), false.into());
        map.into()
    }

    fn last(&self, line: Line, ending: Option<&Ending>, usage: ChoiceUsage) -> Value {
        let reason = match ending {
            Some(Ending::Stop | Ending::StopString(_) | Ending::ToolCalls) => "stop",
            Some(Ending::Length | Ending::ContextFull | Ending::Cancelled) | None => "length",
        };
        let ended = Instant::now();
        let ns = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
        };
        let end = json!({
            "done": true,
            "done_reason": reason,
            "total_duration": ns(self.times.asked, ended),
            "load_duration": 0,
            "prompt_eval_count": self.started.prompt_tokens,
            "prompt_eval_duration": ns(self.times.asked, self.times.read),
            "eval_count": usage.answer_tokens,
            "eval_duration": ns(self.times.read, ended),
            "tangelo": write::extension(&self.started),
        });
        with(self.line(line), end)
    }

    fn event(&mut self, event: Event) -> Option<Line> {
        match event {
            Event::Reasoning(thinking) => Some(Line { thinking, ..Line::default() }),
            Event::Content(content) => Some(Line { content, ..Line::default() }),
            Event::ToolCallStart { id, name, .. } => {
                self.calls.push(Call { id, name, json: String::new(), arguments: Map::new() });
                None
            }
            Event::ToolCallArguments { .. } => None,
            Event::ToolCallEnd { index, arguments, complete } => {
                let call = self.calls.get(index).filter(|_| complete)?.clone();
                let calls = vec![call_value(index, &Call { arguments, ..call })];
                Some(Line { calls, ..Line::default() })
            }
        }
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// It failed.
    pub async fn whole(mut self, mut answer: AnswerStream) -> Result<Value, ApiError> {
        let mut answers = Answers::default();
        while let Some(piece) = answer.next().await {
            if let Piece::Started(_) = piece {
                self.times.read = Instant::now();
            }
            answers.push(piece)?;
        }
        self.started = answers.started;
        let usage = answers.usage();
        let choice = answers.choices.remove(&0).unwrap_or_default();
        let line = Line {
            content: choice.content(),
            thinking: choice.reasoning(),
            calls: choice.calls().enumerate().map(|(index, call)| call_value(index, call)).collect(),
            logprobs: (!choice.tokens.is_empty()).then(|| write::token_logprobs(&choice.tokens)),
        };
        Ok(self.last(line, choice.ending.as_ref(), usage))
    }
}

fn call_value(index: usize, call: &Call) -> Value {
    json!({"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.arguments}})
}

impl Writer for Lines {
    const CONTENT_TYPE: &'static str = "application/x-ndjson";

    fn piece(&mut self, piece: Piece, out: &mut Out) {
        match piece {
            Piece::Started(started) => {
                self.times.read = Instant::now();
                self.started = started;
            }
            Piece::Event { event, tokens, .. } => {
                let logprobs = (!tokens.is_empty()).then(|| write::token_logprobs(&tokens));
                let line = self.event(event);
                if line.is_some() || logprobs.is_some() {
                    let line = Line { logprobs, ..line.unwrap_or_default() };
                    out.line(&self.line(line));
                }
            }
            Piece::Finished { ending, usage, tokens, .. } => {
                let logprobs = (!tokens.is_empty()).then(|| write::token_logprobs(&tokens));
                let line = Line { logprobs, ..Line::default() };
                out.line(&self.last(line, Some(&ending), usage));
            }
            Piece::Failed(failure) => out.line(&error(&failure)),
        }
    }

    fn end(&mut self, _: &mut Out) {}

    fn keep_alive(&mut self, out: &mut Out) {
        out.line(&self.line(Line::default()));
    }
}

/// The answer to a request that asks nothing: the model is loaded.
pub fn loaded(model: &str, endpoint: Endpoint) -> Value {
    let text = match endpoint {
        Endpoint::Chat => json!({"message": {"role": "assistant", "content": ""}}),
        Endpoint::Generate => json!({"response": ""}),
    };
    with(json!({"model": model, "created_at": now(), "done": true, "done_reason": "load"}), text)
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::{facts, pieces, transcript};

    fn lines(endpoint: Endpoint) -> Vec<Value> {
        let text = transcript(Lines::new(&facts(), endpoint), pieces());
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn a_conversation_line_by_line() {
        let lines = lines(Endpoint::Chat);
        let messages: Vec<&Value> = lines.iter().map(|line| &line["message"]).collect();
        let call = json!([{"id": "call_1", "function": {"index": 0, "name": "weather", "arguments": {"city": "Ulm"}}}]);
        let expected = [
            json!({"role": "assistant", "content": "", "thinking": "Look "}),
            json!({"role": "assistant", "content": "", "thinking": "it up."}),
            json!({"role": "assistant", "content": "One moment."}),
            json!({"role": "assistant", "content": "", "tool_calls": call}),
            json!({"role": "assistant", "content": ""}),
        ];
        assert_eq!(messages, expected.iter().collect::<Vec<_>>());
        let last = lines.last().expect("a last line");
        assert_eq!(last["done_reason"], "stop");
        assert_eq!((&last["prompt_eval_count"], &last["eval_count"]), (&json!(20), &json!(9)));
        assert!(lines[..4].iter().all(|line| line["done"] == false));
    }

    #[test]
    fn generated_text_stands_elsewhere() {
        let lines = lines(Endpoint::Generate);
        assert_eq!(lines[2]["response"], "One moment.");
        assert_eq!(lines[0]["thinking"], "Look ");
        assert!(lines[0].get("message").is_none());
    }
}
