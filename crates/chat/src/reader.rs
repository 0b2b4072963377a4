//! From the tokens of one answer to events: characters, stop strings, reasoning and tool calls.
//!
//! A [`Reader`] owns all it needs, so it can live wherever tokens are chosen. It doesn't know how they are. Events follow
//! their tokens at some distance, as characters are cut and tags undecided; an event that [`Reader::push`] returns comes
//! from the tokens since the call that returned the last one.

use std::sync::Arc;

use tangelo_formats::tokenizer::stream::Utf8Stream;
use tangelo_formats::tokenizer::{TokenId, Tokenizer};

use crate::event::Event;
use crate::parser::StreamParser;
use crate::stop::StopStrings;

/// Reads one answer. Without a tokenizer there is no text, so there are no events; without a parser all text is content.
#[derive(Debug)]
pub struct Reader {
    tokenizer: Option<Arc<Tokenizer>>,
    utf8: Utf8Stream,
    stops: StopStrings,
    parser: Option<StreamParser>,
    tokens: usize,
    reasoning_tokens: usize,
}

impl Reader {
    /// A reader at the beginning of an answer.
    pub fn new(tokenizer: Option<Arc<Tokenizer>>, stops: StopStrings, parser: Option<StreamParser>) -> Self {
        Self { tokenizer, utf8: Utf8Stream::new(), stops, parser, tokens: 0, reasoning_tokens: 0 }
    }

    /// Takes the next token and returns what is now certain. Special tokens are text here: `<think>` and `<tool_call>`
    /// are some.
    pub fn push(&mut self, token: TokenId) -> Vec<Event> {
        self.tokens = self.tokens.saturating_add(1);
        self.reasoning_tokens = self.reasoning_tokens.saturating_add(usize::from(self.is_reasoning()));
        let bytes = self.tokenizer.as_ref().and_then(|tokenizer| tokenizer.token_bytes(token));
        let piece = self.utf8.push(bytes.unwrap_or_default());
        let (text, _) = self.stops.push(&piece);
        self.parse(&text)
    }

    /// Ends the answer: what was held back is decided. Returns the last events.
    pub fn finish(&mut self) -> Vec<Event> {
        let rest = self.utf8.finish();
        let (mut text, _) = self.stops.push(&rest);
        text += &self.stops.finish();
        let mut events = self.parse(&text);
        events.extend(self.parser.as_mut().map(StreamParser::finish).unwrap_or_default());
        events
    }

    /// Whether the next token belongs to the reasoning, as far as the text is decided. The token that closes the reasoning
    /// does; if it holds the beginning of the content as well, that is among the events that it gives.
    pub fn is_reasoning(&self) -> bool {
        self.parser.as_ref().is_some_and(StreamParser::is_reasoning)
    }

    /// The stop string that has ended the answer; nothing behind it is part of the answer.
    pub fn stop_string(&self) -> Option<&str> {
        self.stops.found()
    }

    /// Tokens read.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens read that belong to the reasoning, with those that close it.
    pub fn reasoning_tokens(&self) -> usize {
        self.reasoning_tokens
    }

    fn parse(&mut self, text: &str) -> Vec<Event> {
        match &mut self.parser {
            Some(parser) => parser.push(text),
            None if text.is_empty() => Vec::new(),
            None => vec![Event::Content(text.to_owned())],
        }
    }
}
