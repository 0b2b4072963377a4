//! Answers read token by token: the events of the whole text, which tokens are reasoning, and where they stop.

use std::sync::Arc;

use tangelo_chat::event::merge;
use tangelo_chat::{Dialect, Event, Reader, StopStrings, StreamParser, Tool};
use tangelo_formats::tokenizer::{EncodeOptions, TokenId, Tokenizer};

use crate::fixtures::{self, FOLDERS, tool_definitions};

fn parser(in_reasoning: bool) -> StreamParser {
    let tools = Tool::list(tool_definitions()).unwrap();
    StreamParser::new(Dialect::named("nemotron3").unwrap(), &tools, in_reasoning)
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<TokenId> {
    tokenizer.encode(text, EncodeOptions::PROMPT).unwrap()
}

const ANSWER: &str = "Two pla\u{301}ces \u{1f469}\u{200d}\u{1f680}.\nA tag: </thin>.\n</think>\n\nOne moment: \u{65e5}\u{672c}.\n\
    <tool_call>\n<function=get_weather>\n<parameter=city>\nS\u{e3}o Paulo \u{1f34a}\n</parameter>\n</function>\n</tool_call>";

#[test]
fn tokens_give_the_events_of_the_text() {
    for folder in FOLDERS {
        let tokenizer = Arc::new(fixtures::tokenizer(folder));
        let mut parser_of_all = parser(true);
        let mut expected = parser_of_all.push(ANSWER);
        expected.extend(parser_of_all.finish());
        let mut reader = Reader::new(Some(tokenizer.clone()), StopStrings::new([]), Some(parser(true)));
        let ids = encode(&tokenizer, ANSWER);
        let mut events: Vec<Event> = ids.iter().flat_map(|&id| reader.push(id)).collect();
        events.extend(reader.finish());
        assert_eq!(merge(events), merge(expected), "{folder}");
        assert_eq!(reader.tokens(), ids.len(), "{folder}");
    }
}

/// The token after which reasoning is over is known at once, and what it already holds of the content is among its events.
#[test]
fn the_end_of_reasoning_is_seen_with_its_token() {
    let tokenizer = Arc::new(fixtures::tokenizer("tiny"));
    // Spelled out, the tag is not one token, and the last of its tokens may hold more.
    for options in [EncodeOptions::PROMPT, EncodeOptions::PLAIN] {
        let ids = tokenizer.encode("So be it.</think>Yes.", options).unwrap();
        let mut reader = Reader::new(Some(tokenizer.clone()), StopStrings::new([]), Some(parser(true)));
        let (mut text, mut reasoning, mut content) = (String::new(), 0, String::new());
        for &id in &ids {
            assert_eq!(reader.is_reasoning(), !text.contains("</think>"), "after {text:?}");
            reasoning += usize::from(reader.is_reasoning());
            text += &tokenizer.decode(&[id], false);
            for event in reader.push(id) {
                match event {
                    Event::Content(piece) => content += &piece,
                    other => assert!(content.is_empty() && matches!(other, Event::Reasoning(_)), "{other:?}"),
                }
            }
            assert_eq!(content, text.split_once("</think>").map_or("", |(_, content)| content));
        }
        assert_eq!(content, "Yes.");
        assert_eq!(reader.reasoning_tokens(), reasoning);
        assert!(reader.reasoning_tokens() < reader.tokens());
    }
}

#[test]
fn stop_strings_end_the_answer_before_them() {
    let tokenizer = Arc::new(fixtures::tokenizer("tiny"));
    let stops = StopStrings::new(["STOP".to_owned(), "tag: <".to_owned()]);
    let mut reader = Reader::new(Some(tokenizer.clone()), stops, Some(parser(true)));
    let mut events = Vec::new();
    for id in encode(&tokenizer, ANSWER) {
        assert_eq!(reader.stop_string(), None);
        events.extend(reader.push(id));
        if reader.stop_string().is_some() {
            break;
        }
    }
    assert_eq!(reader.stop_string(), Some("tag: <"));
    events.extend(reader.finish());
    let expected = "Two pla\u{301}ces \u{1f469}\u{200d}\u{1f680}.\nA ";
    assert_eq!(merge(events), [Event::Reasoning(expected.to_owned())]);
}

#[test]
fn without_a_parser_all_is_content_and_without_a_tokenizer_nothing_is() {
    let tokenizer = Arc::new(fixtures::tokenizer("tiny"));
    let ids = encode(&tokenizer, ANSWER);
    let mut reader = Reader::new(Some(tokenizer), StopStrings::new([]), None);
    let mut events: Vec<Event> = ids.iter().flat_map(|&id| reader.push(id)).collect();
    events.extend(reader.finish());
    assert_eq!(merge(events), [Event::Content(ANSWER.to_owned())]);
    assert_eq!(reader.reasoning_tokens(), 0);
    let mut reader = Reader::new(None, StopStrings::new([]), None);
    assert!(ids.iter().all(|&id| reader.push(id).is_empty()) && reader.finish().is_empty());
    assert_eq!(reader.tokens(), ids.len());
}

/// Not known to fail, but everything that holds a reader on another thread depends on it.
#[test]
fn a_reader_can_move_to_another_thread() {
    let tokenizer = Arc::new(fixtures::tokenizer("tiny"));
    let ids = encode(&tokenizer, "Hello.");
    let mut reader = Reader::new(Some(tokenizer), StopStrings::new([]), Some(parser(false)));
    let read = std::thread::spawn(move || {
        let mut events: Vec<Event> = ids.iter().flat_map(|&id| reader.push(id)).collect();
        events.extend(reader.finish());
        merge(events)
    });
    assert_eq!(read.join().unwrap(), [Event::Content("Hello.".to_owned())]);
}
