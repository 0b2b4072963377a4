//! What a model writes: the stream parser of every dialect, given the same text whole and in pieces.

use std::sync::OnceLock;

use serde_json::{Value, json};
use tangelo_chat::event::merge;
use tangelo_chat::{Dialect, Event, StreamParser, Tool};

use super::Target;

pub(super) const TARGET: Target = Target {
    name: "tool_calls",
    what: "reasoning and tool calls in a model's output, wherever it is cut",
    run: target,
    seeds,
    dictionary: &[
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<function=f>",
        "</function>",
        "<parameter=a>",
        "</parameter>",
        "<TOOLCALL>",
        "</TOOLCALL>",
        "[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]",
        "\"arguments\":",
        "\\u00e9",
        "```",
        "\n",
    ],
};

/// The first byte chooses the dialect, whether the text starts inside reasoning, and the cuts.
fn seeds() -> Vec<Vec<u8>> {
    let outputs = [
        (6, "Let me think.\n</think>\nIt is 4."),
        (
            9,
            "<think>hm</think><tool_call>\n<function=f>\n<parameter=a>\n12\n</parameter>\n<parameter=b>\n[\"x\"]\n\
             </parameter>\n</function>\n</tool_call>",
        ),
        (
            24,
            "Sure.\n<tool_call>\n<function=g>\n</function>\n</tool_call>\n<tool_call>\n<function=f>\n<parameter=c>\n\
             naïve <b>\n</parameter>\n</function>\n</tool_call>",
        ),
        (
            1,
            "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"a\": 1, \"c\": \"]</TOOLCALL>\"}}, \
             {\"name\": \"g\", \"arguments\": {}}]</TOOLCALL>",
        ),
        (18, "The tag `<tool_call>` opens a call.\n```\n<think>\n```\n"),
    ];
    outputs.map(|(choice, text)| [&[choice], text.as_bytes()].concat()).to_vec()
}

fn tools() -> &'static [Tool] {
    static TOOLS: OnceLock<Vec<Tool>> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let properties = json!({
            "a": { "type": "integer" }, "b": { "type": ["array", "null"] }, "c": { "type": "string" }, "d": { "type": "boolean" },
        });
        let definitions = json!([
            { "type": "function", "function": { "name": "f", "parameters": { "type": "object", "properties": properties } } },
            { "type": "function", "function": { "name": "g" } },
        ]);
        Tool::list(definitions).expect("the definitions are well-formed")
    })
}

/// Parses the text whole and cut into pieces; both must mean the same, and the pieces of arguments must add up.
/// Output of a model is never refused.
pub fn target(data: &[u8]) -> bool {
    let Some((&choice, text)) = data.split_first() else { return true };
    let text = String::from_utf8_lossy(text);
    let names = ["nemotron3", "toolcall_json", "plain"];
    let dialect = Dialect::named(names[usize::from(choice) % 3]).expect("the dialects are called so");
    let parser = || StreamParser::new(dialect, tools(), choice & 4 != 0);
    let mut whole = parser();
    let mut events = whole.push(&text);
    events.extend(whole.finish());
    let step = 1 + usize::from(choice >> 3);
    let mut pieces = parser();
    let mut cut = Vec::new();
    let mut rest: &str = &text;
    while !rest.is_empty() {
        let end = rest.char_indices().nth(step).map_or(rest.len(), |(at, _)| at);
        cut.extend(pieces.push(&rest[..end]));
        rest = &rest[end..];
    }
    cut.extend(pieces.finish());
    let events = merge(events);
    assert_eq!(events, merge(cut), "cut every {step} characters");
    check_arguments(&events);
    true
}

/// The JSON text of each call's arguments, put together from its pieces, is the arguments it ends with.
fn check_arguments(events: &[Event]) {
    let mut json = String::new();
    for event in events {
        match event {
            Event::ToolCallStart { .. } => json.clear(),
            Event::ToolCallArguments { json_delta, .. } => json.push_str(json_delta),
            Event::ToolCallEnd { arguments, .. } => {
                let parsed: Value = serde_json::from_str(&json).expect("the pieces are JSON");
                assert_eq!(&parsed, &Value::Object(arguments.clone()));
            }
            Event::Reasoning(_) | Event::Content(_) => {}
        }
    }
}
