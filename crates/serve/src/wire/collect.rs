//! An answer in one piece, for clients that do not want it as a stream.

use std::collections::BTreeMap;
use std::pin::pin;

use futures_util::{Stream, StreamExt};
use serde_json::{Map, Value};
use tangelo_chat::Event;

use crate::answer::{ChoiceUsage, Ending, Piece, Started, TokenLogprob};
use crate::error::ApiError;

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Names the call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments as JSON text: the pieces of the stream, joined.
    pub json: String,
    /// The arguments.
    pub arguments: Map<String, Value>,
}

/// A stretch of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// What the model thought.
    Reasoning(String),
    /// What it said.
    Content(String),
    /// What it calls.
    Call(Call),
}

/// One of the answers to a request.
#[derive(Debug, Default)]
pub struct Choice {
    /// The answer, in the order in which it was written.
    pub parts: Vec<Part>,
    /// The tokens of the answer, if their probabilities were asked for.
    pub tokens: Vec<TokenLogprob>,
    /// Why it ended.
    pub ending: Option<Ending>,
    /// What it cost.
    pub usage: ChoiceUsage,
}

/// All answers to a request.
#[derive(Debug, Default)]
pub struct Answers {
    /// How the prompt came to be in memory.
    pub started: Started,
    /// The answers by number.
    pub choices: BTreeMap<usize, Choice>,
}

impl Choice {
    /// All reasoning.
    pub fn reasoning(&self) -> String {
        self.text(|part| if let Part::Reasoning(text) = part { Some(text) } else { None })
    }

    /// All content.
    pub fn content(&self) -> String {
        self.text(|part| if let Part::Content(text) = part { Some(text) } else { None })
    }

    /// All calls of tools.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.parts.iter().filter_map(|part| if let Part::Call(call) = part { Some(call) } else { None })
    }

    fn text(&self, of: impl Fn(&Part) -> Option<&String>) -> String {
        self.parts.iter().filter_map(of).map(String::as_str).collect()
    }

    /// Takes the next event.
    fn push(&mut self, event: Event) {
        match (event, self.parts.last_mut()) {
            (Event::Reasoning(more), Some(Part::Reasoning(text)))
            | (Event::Content(more), Some(Part::Content(text))) => text.push_str(&more),
            (Event::Reasoning(text), _) => self.parts.push(Part::Reasoning(text)),
            (Event::Content(text), _) => self.parts.push(Part::Content(text)),
            (Event::ToolCallStart { id, name, .. }, _) => {
                let call = Call { id, name, json: String::new(), arguments: Map::new() };
                self.parts.push(Part::Call(call));
            }
            (Event::ToolCallArguments { json_delta, .. }, Some(Part::Call(call))) => {
                call.json.push_str(&json_delta);
            }
            (Event::ToolCallEnd { arguments, .. }, Some(Part::Call(call))) => call.arguments = arguments,
            // Nothing else is between the beginning and the end of a call.
            (Event::ToolCallArguments { .. } | Event::ToolCallEnd { .. }, _) => {}
        }
    }
}

impl Answers {
    /// Takes the next piece.
    ///
    /// # Errors
    /// The answer failed.
    pub fn push(&mut self, piece: Piece) -> Result<(), ApiError> {
        match piece {
            // There is one for each prompt.
            Piece::Started(started) => self.started = self.started + started,
            Piece::Event { choice, event, tokens } => {
                let choice = self.choices.entry(choice).or_default();
                choice.tokens.extend(tokens);
                choice.push(event);
            }
            Piece::Finished { choice, ending, usage, tokens } => {
                let choice = self.choices.entry(choice).or_default();
                choice.tokens.extend(tokens);
                choice.ending = Some(ending);
                choice.usage = usage;
            }
            Piece::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// What all answers cost together.
    pub fn usage(&self) -> ChoiceUsage {
        self.choices.values().fold(ChoiceUsage::default(), |sum, choice| sum + choice.usage)
    }
}

/// Waits for all answers.
///
/// # Errors
/// One of them failed.
pub async fn collect(pieces: impl Stream<Item = Piece>) -> Result<Answers, ApiError> {
    let mut pieces = pin!(pieces);
    let mut answers = Answers::default();
    while let Some(piece) = pieces.next().await {
        answers.push(piece)?;
    }
    Ok(answers)
}
