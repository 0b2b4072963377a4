//! What the tests of all dialects share: one answer, and the text that a dialect makes of it.

use serde_json::{Value, json};
use tangelo_chat::Event;

use super::sse::{Out, Writer};
use crate::answer::{ChoiceUsage, Ending, Facts, Piece, Started};

/// The facts of every answer here.
pub fn facts() -> Facts {
    Facts { id: "1".to_owned(), created_unix_s: 7, model: "m".to_owned() }
}

fn event(event: Event) -> Piece {
    Piece::Event { choice: 0, event, tokens: Vec::new() }
}

/// Thinks, says something and calls a tool.
pub fn pieces() -> Vec<Piece> {
    let arguments = json!({"city": "Ulm"});
    let usage = ChoiceUsage { answer_tokens: 9, reasoning_tokens: 2 };
    vec![
        Piece::Started(Started { prompt_tokens: 20, cached_tokens: 16, matched_tokens: 19 }),
        event(Event::Reasoning("Look ".to_owned())),
        event(Event::Reasoning("it up.".to_owned())),
        event(Event::Content("One moment.".to_owned())),
        event(Event::ToolCallStart { index: 0, id: "call_1".to_owned(), name: "weather".to_owned() }),
        event(Event::ToolCallArguments { index: 0, json_delta: "{\"city\":".to_owned() }),
        event(Event::ToolCallArguments { index: 0, json_delta: "\"Ulm\"}".to_owned() }),
        event(Event::ToolCallEnd {
            index: 0,
            arguments: arguments.as_object().cloned().unwrap_or_default(),
            complete: true,
        }),
        Piece::Finished { choice: 0, ending: Ending::ToolCalls, usage, tokens: Vec::new() },
    ]
}

/// The same, whole.
pub fn answers() -> super::collect::Answers {
    let mut answers = super::collect::Answers::default();
    for piece in pieces() {
        answers.push(piece).expect("no failure in it");
    }
    answers
}

/// Everything that a writer sends for these pieces.
pub fn transcript(mut writer: impl Writer, pieces: Vec<Piece>) -> String {
    let mut out = Out::default();
    for piece in pieces {
        writer.piece(piece, &mut out);
    }
    writer.end(&mut out);
    out.as_str().to_owned()
}

/// The data of the events in a transcript, without the end mark.
pub fn data(transcript: &str) -> Vec<Value> {
    let lines = transcript.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.filter(|text| *text != "[DONE]").map(|text| serde_json::from_str(text).expect("JSON")).collect()
}
