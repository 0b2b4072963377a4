//! Outputs of models and the events they must become, as text files under `transcripts/`.
//!
//! Each file has a header (`dialect`, `reasoning: open|closed`, `tools: all|none`), the output, and the events. Every
//! output is also cut at every position, into single characters, and at random, and must give the same events. After a
//! wanted change of behaviour, `UPDATE_TRANSCRIPTS=1 cargo test -p tangelo-chat` rewrites the events; review the diff.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tangelo_chat::event::merge;
use tangelo_chat::{Dialect, Event, StreamParser, Tool};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn all_tools() -> Vec<Tool> {
    let text = std::fs::read_to_string(folder().join("tools.json")).unwrap();
    Tool::list(serde_json::from_str(&text).unwrap()).unwrap()
}

struct Transcript {
    head: String,
    output: String,
    events: String,
}

impl Transcript {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let (head, rest) = text.split_once("--- output\n").expect("a transcript has `--- output`");
        let (output, events) = rest.split_once("\n--- events\n").expect("a transcript has `--- events`");
        Self { head: head.to_owned(), output: output.to_owned(), events: events.to_owned() }
    }

    fn field(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap_or_else(|| panic!("no `{name}` in header"))
    }

    fn parser(&self, tools: &[Tool]) -> StreamParser {
        let dialect = Dialect::named(self.field("dialect")).expect("a known dialect");
        let tools = if self.field("tools") == "all" { tools } else { &[] };
        StreamParser::new(dialect, tools, self.field("reasoning") == "open")
    }

    /// The merged events of the output, given in these pieces.
    fn run<'a>(&self, tools: &[Tool], pieces: impl IntoIterator<Item = &'a str>) -> Vec<Event> {
        let mut parser = self.parser(tools);
        let mut events: Vec<Event> = pieces.into_iter().flat_map(|piece| parser.push(piece)).collect();
        events.extend(parser.finish());
        merge(events)
    }
}

fn show(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        match event {
            Event::Reasoning(piece) => writeln!(text, "reasoning {}", Value::from(piece.as_str())),
            Event::Content(piece) => writeln!(text, "content {}", Value::from(piece.as_str())),
            Event::ToolCallStart { index, id, name } => writeln!(text, "call {index} {id} {name}"),
            Event::ToolCallArguments { index, json_delta } => writeln!(text, "json {index} {json_delta}"),
            Event::ToolCallEnd { index, arguments, complete } => {
                let ending = if *complete { "end" } else { "cut" };
                writeln!(text, "{ending} {index} {}", Value::Object(arguments.clone()))
            }
        }
        .unwrap();
    }
    text
}

/// What holds for any output: the JSON pieces of a call are the final arguments, calls are numbered and nested well,
/// and no piece is empty.
fn check_laws(events: &[Event], context: &str) {
    let (mut open, mut json, mut calls) = (None, String::new(), 0);
    for event in events {
        match event {
            Event::Reasoning(text) | Event::Content(text) => {
                assert!(!text.is_empty() && open.is_none(), "{context}")
            }
            Event::ToolCallStart { index, .. } => {
                assert!(open.is_none() && *index == calls, "{context}");
                (open, json, calls) = (Some(*index), String::new(), calls + 1);
            }
            Event::ToolCallArguments { index, json_delta } => {
                assert!(open == Some(*index) && !json_delta.is_empty(), "{context}");
                json.push_str(json_delta);
            }
            Event::ToolCallEnd { index, arguments, .. } => {
                assert_eq!(open.take(), Some(*index), "{context}");
                let parsed: Value =
                    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{context}: {json}: {error}"));
                assert_eq!(parsed, Value::Object(arguments.clone()), "{context}");
                assert_eq!(json, parsed.to_string(), "{context}");
            }
        }
    }
    assert!(open.is_none(), "{context}: a call was not ended");
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// The text in pieces of 1 to 9 characters.
fn random_pieces<'a>(text: &'a str, random: &mut Random) -> Vec<&'a str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let count = 1 + random.below(9);
        let end = rest.char_indices().nth(count).map_or(rest.len(), |(place, _)| place);
        let (piece, tail) = rest.split_at(end);
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

fn check_cuts(transcript: &Transcript, tools: &[Tool], whole: &[Event], name: &str) {
    let output = transcript.output.as_str();
    for (place, _) in output.char_indices() {
        let (left, right) = output.split_at(place);
        assert_eq!(transcript.run(tools, [left, right]), whole, "{name}: cut at byte {place}");
    }
    let characters =
        output.char_indices().map(|(place, character)| &output[place..place + character.len_utf8()]);
    assert_eq!(transcript.run(tools, characters), whole, "{name}: one character at a time");
    for seed in 0..50 {
        let pieces = random_pieces(output, &mut Random(seed));
        assert_eq!(transcript.run(tools, pieces), whole, "{name}: seed {seed}");
    }
}

fn paths() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder().join("transcripts")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn transcripts_become_their_events_wherever_they_are_cut() {
    let tools = all_tools();
    let paths = paths();
    assert!(paths.len() >= 25, "only {} transcripts found", paths.len());
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let transcript = Transcript::read(&path);
        let events = transcript.run(&tools, [transcript.output.as_str()]);
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            let Transcript { head, output, .. } = &transcript;
            let text = format!("{head}--- output\n{output}\n--- events\n{}", show(&events));
            std::fs::write(&path, text).unwrap();
        } else {
            assert_eq!(show(&events), transcript.events, "{name}");
        }
        check_laws(&events, &name);
        check_cuts(&transcript, &tools, &events, &name);
    }
}

/// Every beginning of every transcript is an output too: the model was stopped there.
#[test]
fn outputs_that_stop_anywhere_obey_the_laws() {
    let tools = all_tools();
    for path in paths() {
        let mut transcript = Transcript::read(&path);
        let output = transcript.output.clone();
        for (place, _) in output.char_indices() {
            transcript.output = output[..place].to_owned();
            let whole = transcript.run(&tools, [transcript.output.as_str()]);
            let context = format!("{}: stopped at byte {place}", path.display());
            check_laws(&whole, &context);
            let characters = output[..place].split_inclusive(|_: char| true);
            assert_eq!(transcript.run(&tools, characters), whole, "{context}");
        }
    }
}

/// Tags, names and text in any order: no panic, the same events wherever cut, and nothing lost outside calls.
#[test]
fn random_mixtures_obey_the_laws() {
    const PARTS: [&str; 34] = [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<function=get_weather>",
        "<function=unknown>",
        "</function>",
        "<parameter=city>",
        "<parameter=days>",
        "<parameter=x>",
        "</parameter>",
        "\n",
        "\n\n",
        " ",
        "Paris",
        "5",
        "null",
        "{\"a\": [1]}",
        "<",
        "</",
        "<tool",
        "```\n",
        "\n```\n",
        "é🍊",
        "\"",
        "\\",
        "<TOOLCALL>",
        "</TOOLCALL>",
        "[{\"name\": \"now\", \"arguments\": {}}]",
        "[]",
        "<function=>",
        "text",
        "<parameter=city",
        "\t",
    ];
    let tools = all_tools();
    for seed in 0..6000 {
        let mut random = Random(seed);
        let dialect = ["nemotron3", "toolcall_json", "plain"][random.below(3)];
        let reasoning = ["open", "closed"][random.below(2)];
        let head = format!("dialect: {dialect}\nreasoning: {reasoning}\ntools: all\n");
        let output: String = (0..random.below(30)).map(|_| PARTS[random.below(PARTS.len())]).collect();
        let transcript = Transcript { head, output, events: String::new() };
        let whole = transcript.run(&tools, [transcript.output.as_str()]);
        let context = format!("seed {seed}: {dialect}, {reasoning}, {:?}", transcript.output);
        check_laws(&whole, &context);
        for _ in 0..4 {
            let pieces = random_pieces(&transcript.output, &mut random);
            assert_eq!(transcript.run(&tools, pieces.iter().copied()), whole, "{context}: {pieces:?}");
        }
        if whole.iter().all(|event| matches!(event, Event::Reasoning(_) | Event::Content(_))) {
            check_nothing_lost(&transcript.output, &whole, &context);
        }
    }
}

const PROSE: [&str; 10] = [
    "The weather is fine. ",
    "Write `<tool_call>` before a call, and </tool_call> behind it.\n",
    "```xml\n<tool_call>\n<function=now>\n</function>\n</tool_call>\n```\n",
    "1 < 2 and 3 > 2; </think> is a tag, too. ",
    "\n\n",
    "Grüße aus Köln: e\u{301}, 日本語, \u{1f469}\u{200d}\u{1f680}, \u{1f1eb}\u{1f1f7}. ",
    "<TOOLCALL>not a list</TOOLCALL> ",
    "~~~\n<TOOLCALL>[{\"name\": \"now\"}]</TOOLCALL>\n~~~\n",
    "\t tabs and  spaces \n",
    "<function=now> <parameter=city>",
];
const TEXTS: [&str; 8] = [
    "Paris",
    "",
    "two\nlines\n",
    "\n\n  indented\n",
    "if a </b> then \"c\" \\ d",
    "a </parameter> inside",
    "\u{1f34a} {\"not\": \"json\"}",
    "<function=now>",
];
const VALUES: [&str; 8] =
    ["5", "-2.5e3", "true", "null", "[1, [2], []]", "{\"a\": {\"b\": [\"}\", \"]\"]}}", "\"quoted\"", "[]"];

fn prose(random: &mut Random) -> String {
    (0..random.below(4)).map(|_| PROSE[random.below(PROSE.len())]).collect()
}

/// A call of one of three tools with some of its arguments.
fn generated_call(random: &mut Random, dialect: &str) -> String {
    let (name, arguments): (&str, &[&str]) = [
        ("get_weather", &["city", "days", "place", "limits"][..]),
        ("write_file", &["path", "text"]),
        ("now", &[]),
    ][random.below(3)];
    let given = &arguments[..random.below(arguments.len() + 1)];
    if dialect == "toolcall_json" {
        let pairs: Vec<String> = given
            .iter()
            .map(|name| match random.below(2) {
                0 => format!("\"{name}\": {}", Value::from(TEXTS[random.below(TEXTS.len())])),
                _ => format!("\"{name}\": {}", VALUES[random.below(VALUES.len())]),
            })
            .collect();
        let call = format!("{{\"name\": \"{name}\", \"arguments\": {{{}}}}}", pairs.join(", "));
        return format!("<TOOLCALL>[{call}]</TOOLCALL>");
    }
    let mut text = format!("<tool_call>\n<function={name}>\n");
    for name in given {
        let value = [TEXTS, VALUES][random.below(2)][random.below(8)];
        text += &format!("<parameter={name}>\n{value}\n</parameter>\n");
    }
    const ENDS: [&str; 4] =
        ["</function>\n</tool_call>", "</function></tool_call>\n", "</function>\n", "</tool_call>"];
    text + ENDS[random.below(8).min(3)]
}

/// An answer as models write them, whole or not: reasoning that is closed, forgotten or repeated, prose with literal tags
/// and fenced code, calls with empty, nested and many-lined arguments in both dialects, cut short now and then.
fn generated(random: &mut Random, dialect: &str) -> String {
    let mut text = String::new();
    if random.below(3) > 0 {
        text += ["", "<think>", "<think>\n", "\n"][random.below(4)];
        text += &prose(random);
        text += ["</think>", "\n</think>\n\n", "</think>\n", ""][random.below(4)];
    }
    text += &prose(random);
    for _ in 0..random.below(3) {
        text += &generated_call(random, dialect);
        text += &prose(random);
    }
    if random.below(4) == 0 {
        let places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
        text.truncate(places.get(random.below(places.len().max(1))).copied().unwrap_or(0));
    }
    text
}

#[test]
fn generated_transcripts_give_the_same_events_at_every_split() {
    let tools = all_tools();
    let (mut splits, mut calls) = (0, 0);
    for seed in 0..3000 {
        let mut random = Random(seed);
        let dialect = ["nemotron3", "toolcall_json"][random.below(2)];
        let reasoning = ["open", "closed"][random.below(2)];
        let output = generated(&mut random, dialect);
        let head = format!("dialect: {dialect}\nreasoning: {reasoning}\ntools: all\n");
        let transcript = Transcript { head, output, events: String::new() };
        let output = transcript.output.as_str();
        let whole = transcript.run(&tools, [output]);
        let context = format!("seed {seed}: {dialect}, {reasoning}, {output:?}");
        check_laws(&whole, &context);
        check_only_tags_and_calls_are_gone(output, &whole, &context);
        for (place, _) in output.char_indices() {
            let (left, right) = output.split_at(place);
            assert_eq!(transcript.run(&tools, [left, right]), whole, "{context}: cut at byte {place}");
            splits += 1;
        }
        let pieces = random_pieces(output, &mut random);
        assert_eq!(transcript.run(&tools, pieces.iter().copied()), whole, "{context}: {pieces:?}");
        let characters = output.split_inclusive(|_: char| true);
        assert_eq!(transcript.run(&tools, characters), whole, "{context}: one character at a time");
        calls +=
            whole.iter().filter(|event| matches!(event, Event::ToolCallEnd { complete: true, .. })).count();
    }
    assert!(splits > 300_000 && calls > 1500, "{splits} splits, {calls} calls: too few to show anything");
}

/// Reasoning and content are, to the letter and in order, what was written; between two pieces of them there is nothing but
/// whitespace, tags of reasoning, and calls if there was one.
fn check_only_tags_and_calls_are_gone(output: &str, events: &[Event], context: &str) {
    let (mut rest, mut calls) = (output, 0);
    let gap_is_good = |gap: &str, calls: usize| {
        let gap = gap.trim_start().trim_start_matches("<think>").trim_start();
        let gap = gap.trim_start_matches("</think>").trim();
        gap.is_empty() || (calls > 0 && (gap.starts_with("<tool_call>") || gap.starts_with("<TOOLCALL>")))
    };
    for (index, event) in events.iter().enumerate() {
        let text = match event {
            Event::Reasoning(text) | Event::Content(text) => text,
            Event::ToolCallEnd { .. } => {
                calls += 1;
                continue;
            }
            _ => continue,
        };
        // What was cut short at the end may occur earlier as well.
        let is_last = index + 1 == events.len();
        let place = if is_last { rest.rfind(text) } else { rest.find(text) };
        let place = place.unwrap_or_else(|| panic!("{context}: {text:?} was not written"));
        assert!(gap_is_good(&rest[..place], calls), "{context}: {:?} before {text:?}", &rest[..place]);
        (rest, calls) = (&rest[place + text.len()..], 0);
    }
    assert!(gap_is_good(rest, calls), "{context}: {rest:?} at the end");
}

/// Without calls, only whitespace, one `<think>` and one `</think>` may disappear.
fn check_nothing_lost(output: &str, events: &[Event], context: &str) {
    let squeeze = |text: &str| text.split_whitespace().collect::<String>();
    let shown: String = events
        .iter()
        .map(|event| match event {
            Event::Reasoning(text) | Event::Content(text) => squeeze(text),
            _ => String::new(),
        })
        .collect();
    let written = squeeze(output);
    let possible = [
        written.clone(),
        written.replacen("<think>", "", 1),
        written.replacen("</think>", "", 1),
        written.replacen("<think>", "", 1).replacen("</think>", "", 1),
    ];
    assert!(possible.contains(&shown) || written.contains("[]"), "{context}: {shown:?}");
}
