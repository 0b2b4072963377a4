//! Which part of the conversation each token of a prompt comes from, against conversations whose parts can be told from
//! their text.

use serde_json::json;
use tangelo_chat::{Conversation, Field, Origin, Part, RenderOptions, Renderer, origin_of_token};
use tangelo_formats::tokenizer::Tokenizer;

use crate::fixtures::{BARE, NANO_V2, read, renderer, tokenizer, tool_definitions};

/// Parts and the texts that occur nowhere else in the prompt, from the first to the last character of each.
const PARTS: [(Field, &str, &str); 9] = [
    (Field::Message(0, Part::Content), "Talk like a", "pirate."),
    (Field::Message(1, Part::Content), "What's the", "first one?"),
    (Field::Message(2, Part::Reasoning), "Older thoughts", "of old."),
    (Field::Message(2, Part::Content), "An older", "answer!"),
    (Field::Message(3, Part::Content), "x", "second one?"),
    (Field::Message(4, Part::Reasoning), "Newer thoughts", "of now."),
    (Field::Message(4, Part::Content), "Looking", "it up;"),
    (Field::Message(4, Part::ToolCalls), "look_up", "bottom"),
    (Field::Message(5, Part::Content), "{\"rum\":", "17}"),
];

fn conversation(with_tools: bool) -> Conversation {
    let conversation = json!({"messages": [
        {"role": "system", "content": "Talk like a  pirate."},
        {"role": "user", "content": "What's the 1st, the first one?"},
        {"role": "assistant", "reasoning_content": "Older thoughts\n\nof old.", "content": "\nAn older\nanswer!\n"},
        {"role": "user", "content": "x and \u{e9}\u{1f34a} what is the second one?"},
        {"role": "assistant", "reasoning_content": "Newer thoughts </b>of now.", "content": "Looking it up;",
         "tool_calls": [{"id": "1", "function": {"name": "look_up", "arguments":
             {"a": 5, "b": [true, null], "where": "at the bottom"}}}]},
        {"role": "tool", "tool_call_id": "1", "content": "{\"rum\": 17}"}],
        "tools": if with_tools { tool_definitions() } else { json!([]) }});
    serde_json::from_value(conversation).unwrap()
}

/// Checks every token, and returns how many come from each of `PARTS`.
fn check(
    renderer: &Renderer,
    tokenizer: &Tokenizer,
    options: &RenderOptions,
    with_tools: bool,
) -> [usize; 9] {
    let conversation = conversation(with_tools);
    let rendered = renderer.render(&conversation, options).unwrap();
    let prompt = &rendered.prompt;
    let ranges = PARTS.map(|(field, first, last)| {
        let turns = prompt.find("pirate.").unwrap();
        let from = if field == Field::Message(0, Part::Content) { 0 } else { turns };
        let end = prompt[from..].find(last).map(|place| from + place + last.len())?;
        let start = prompt[from..end].rfind(first).map(|place| from + place)?;
        Some(start..end)
    });
    let tools = prompt.find("get_weather").zip(prompt.rfind("limits"));
    let (mut counts, mut start) = ([0; 9], 0);
    for (index, &id) in rendered.tokens(tokenizer).unwrap().ids.iter().enumerate() {
        let end = start + tokenizer.token_bytes(id).unwrap().len();
        let token = start..end;
        let origin = origin_of_token(renderer, tokenizer, &conversation, options, index).unwrap().unwrap();
        let touches =
            |range: &std::ops::Range<usize>| range.contains(&token.start) || range.contains(&(end - 1));
        let expected = ranges.iter().position(|range| range.as_ref().is_some_and(touches));
        let context = || format!("token {index}, {:?} of {prompt:?}: {origin}", prompt.get(token.clone()));
        match (expected, origin) {
            (Some(part), origin) => {
                assert_eq!(origin, Origin::Field(PARTS[part].0), "{}", context());
                counts[part] += 1;
            }
            (None, Origin::Field(found)) => assert_eq!(found, Field::Tools, "{}", context()),
            (None, Origin::Template { after }) => {
                let inside = tools.is_some_and(|(first, last)| with_tools && first <= start && end <= last);
                assert!(!inside, "{}", context());
                let last =
                    (0..9).rfind(|&part| ranges[part].as_ref().is_some_and(|range| range.end <= start));
                assert_eq!(after, last.map(|part| PARTS[part].0), "{}", context());
            }
        }
        start = end;
    }
    assert_eq!(start, prompt.len());
    let past_the_end = rendered.tokens(tokenizer).unwrap().ids.len();
    assert_eq!(origin_of_token(renderer, tokenizer, &conversation, options, past_the_end).unwrap(), None);
    counts
}

#[test]
fn every_token_is_traced_to_its_part() {
    let tokenizer = tokenizer("tokenizer/tokenizer2048");
    let own = renderer(&read("tiny/chat_template.jinja"));
    let options = |truncate| RenderOptions {
        add_generation_prompt: true,
        truncate_history_thinking: Some(truncate),
        ..RenderOptions::default()
    };
    let seen = |counts: [usize; 9]| counts.map(|count| count > 0);
    assert_eq!(seen(check(&own, &tokenizer, &options(false), false)), [true; 9]);
    // Old reasoning is not in the prompt, so nothing comes from it.
    let without_old = [true, true, false, true, true, true, true, true, true];
    assert_eq!(seen(check(&own, &tokenizer, &options(true), false)), without_old);
    let without_reasoning = [true, true, false, true, true, false, true, true, true];
    assert_eq!(seen(check(&renderer(NANO_V2), &tokenizer, &options(true), false)), without_reasoning);
    let content_only = [true, true, false, true, true, false, true, false, true];
    assert_eq!(seen(check(&renderer(BARE), &tokenizer, &options(true), false)), content_only);
}

#[test]
fn tools_are_told_from_messages() {
    let tokenizer = tokenizer("tokenizer/tokenizer2048");
    for source in [&read("tiny/chat_template.jinja"), NANO_V2] {
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        let counts = check(&renderer(source), &tokenizer, &options, true);
        assert!(counts[0] > 0 && counts[8] > 0, "{counts:?}");
    }
}

#[test]
fn origins_are_written_as_paths() {
    let content = Field::Message(3, Part::Content);
    for (origin, text) in [
        (Origin::Field(Field::Tools), "tools"),
        (Origin::Field(content), "messages[3].content"),
        (Origin::Field(Field::Message(0, Part::Reasoning)), "messages[0].reasoning_content"),
        (Origin::Field(Field::Message(12, Part::ToolCalls)), "messages[12].tool_calls"),
        (Origin::Template { after: Some(content) }, "the template's text after messages[3].content"),
        (Origin::Template { after: None }, "the template's text at the beginning"),
    ] {
        assert_eq!(origin.to_string(), text);
    }
}
