//! From the tokens of an answer to events: characters, stop strings, reasoning and tool calls.

use tangelo_chat::{Event, StopStrings, StreamParser};
use tangelo_core::TokenId;
use tangelo_formats::tokenizer::Tokenizer;
use tangelo_formats::tokenizer::stream::{SpecialTokens, TokenDecoder};

/// Reads one answer. Without a tokenizer there is no text, so there are no events; without a parser all text is content.
pub struct Reader<'a> {
    /// Special tokens are text here: `<think>` and `<tool_call>` are some.
    decoder: Option<TokenDecoder<'a>>,
    stops: StopStrings,
    parser: Option<StreamParser>,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of an answer.
    pub fn new(
        tokenizer: Option<&'a Tokenizer>,
        stops: Vec<String>,
        parser: Option<StreamParser>,
    ) -> Reader<'a> {
        let decoder = tokenizer.map(|tokenizer| TokenDecoder::new(tokenizer, SpecialTokens::Render));
        Reader { decoder, stops: StopStrings::new(stops), parser }
    }

    /// Takes the next token; also says whether a stop string has ended the answer.
    pub fn push(&mut self, token: TokenId) -> (Vec<Event>, bool) {
        let piece = self.decoder.as_mut().map(|decoder| decoder.push(token)).unwrap_or_default();
        let (text, is_over) = self.stops.push(&piece);
        (self.parse(text), is_over)
    }

    /// Ends the answer: what was held back is decided. Returns the last events.
    pub fn finish(&mut self) -> Vec<Event> {
        let rest = self.decoder.as_mut().map(TokenDecoder::finish).unwrap_or_default();
        let (mut text, _) = self.stops.push(&rest);
        text += &self.stops.finish();
        let mut events = self.parse(text);
        events.extend(self.parser.as_mut().map(StreamParser::finish).unwrap_or_default());
        events
    }

    fn parse(&mut self, text: String) -> Vec<Event> {
        match &mut self.parser {
            Some(parser) => parser.push(&text),
            None if text.is_empty() => Vec::new(),
            None => vec![Event::Content(text)],
        }
    }
}
