//! The dialect of Nemotron Nano v2: one JSON list of calls between tags.
//!
//! ```text
//! <TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Paris"}}, ...]</TOOLCALL>
//! ```
//!
//! A block is read whole, because only a complete list shows whether it is one; until then its text is held back. The
//! end of the list is found by counting brackets outside strings, so that strings may hold `</TOOLCALL>`. A block that
//! is not a list of objects with a `name` is passed on as text. Arguments may be an object or a string that holds
//! one. At the end of the output the closing tag may be missing, the list may not.
//!
//! Turns begin with `<SPECIAL_10>System` or `<SPECIAL_11>User` and have no end marker of their own. Source: the model
//! card and chat template of NVIDIA-Nemotron-Nano-9B-v2.

use serde_json::{Map, Value};

use super::grammar::{Lark, arguments_schema, json_of, literal};
use super::{CallGrammar, CallReader, CallSink, Dialect, Progress, is_partial};
use crate::message::{Tool, arguments};

const OPEN: &str = "<TOOLCALL>";
const CLOSE: &str = "</TOOLCALL>";
/// Longest block; a longer one is text.
const BLOCK_BYTES_MAX: usize = 4 << 20;

pub(super) const DIALECT: Dialect = Dialect {
    name: "toolcall_json",
    recognises: |template| template.contains(OPEN),
    turn_starts: &["<SPECIAL_10>", "<SPECIAL_11>"],
    tool_result_close: Some("</TOOL_RESPONSE>"),
    call_open: Some(OPEN),
    reader: || Box::new(JsonList::default()),
    write,
};

/// Calls as this file reads them.
fn write(tools: &[&Tool], calls: CallGrammar<'_>, is_token: &dyn Fn(&str) -> bool) -> Option<String> {
    let mut lark = Lark::new(is_token);
    let (open, close) = (lark.tag(OPEN), lark.tag(CLOSE));
    let more = if calls.is_parallel { " (\", \" call)*" } else { "" };
    lark.start(&format!("{open} \"[\" call{more} \"]\" {close}"), OPEN, calls.is_required);
    let names: Vec<String> = (0..tools.len()).map(|at| format!("call_{at}")).collect();
    lark.rule("call", &names.join(" | "));
    for (tool, name) in tools.iter().zip(&names) {
        // The schema stays a document of its own, so that references in it lead where they did.
        let begin = format!("{{\"name\": {}, \"arguments\": ", Value::from(tool.name()));
        let arguments = json_of(&arguments_schema(tool));
        lark.rule(name, &format!("{} {arguments} {}", literal(&begin), literal("}")));
    }
    Some(lark.rules)
}

/// Finds the end of a JSON list in text that arrives in pieces.
#[derive(Default)]
struct JsonList {
    /// Bytes of the block that were looked at.
    scanned: usize,
    /// Open brackets and braces.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Just behind the bracket that closes the list.
    end: Option<usize>,
}

impl CallReader for JsonList {
    fn step(&mut self, text: &str, at_end: bool, _: &[Tool], calls: &mut CallSink) -> Progress {
        let undecided = if at_end { Progress::Reject } else { Progress::More };
        if text.len() > BLOCK_BYTES_MAX {
            return Progress::Reject;
        }
        if self.scanned == 0 {
            let Some(body) = text.strip_prefix(OPEN) else { return Progress::Reject };
            match body.trim_start().chars().next() {
                Some('[') => self.scanned = text.len().saturating_sub(body.trim_start().len()),
                Some(_) => return Progress::Reject,
                None => return undecided,
            }
        }
        let Some(end) = self.find_end(text) else { return undecided };
        let rest = text.get(end..).unwrap_or_default();
        let tail = rest.trim_start();
        let consumed = match tail.strip_prefix(CLOSE) {
            Some(after) => text.len().saturating_sub(after.len()),
            None if is_partial(tail, CLOSE) => match at_end {
                true => text.len(),
                false => return Progress::More,
            },
            None => return Progress::Reject,
        };
        let list = text.get(OPEN.len()..end).unwrap_or_default();
        match read_list(list).filter(|list| calls.has_room(list.len())) {
            Some(list) => {
                for (name, arguments) in list {
                    calls.start(&name);
                    calls.arguments(&Value::Object(arguments.clone()).to_string());
                    calls.end(arguments, true);
                }
                Progress::Done(consumed)
            }
            None => Progress::Reject,
        }
    }
}

impl JsonList {
    /// Where the list ends, once it does. Every byte is looked at once, over all calls.
    fn find_end(&mut self, text: &str) -> Option<usize> {
        for byte in text.bytes().skip(self.scanned) {
            if self.end.is_some() {
                break;
            }
            self.scanned = self.scanned.saturating_add(1);
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'[' | b'{' => self.depth = self.depth.saturating_add(1),
                b']' | b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        self.end = Some(self.scanned);
                    }
                }
                _ => {}
            }
        }
        self.end
    }
}

/// The calls of a list; `None` if it is not a list of calls. An empty list calls nothing.
fn read_list(text: &str) -> Option<Vec<(String, Map<String, Value>)>> {
    let calls: Vec<Value> = serde_json::from_str(text).ok()?;
    calls
        .iter()
        .map(|call| {
            let function = call.get("function").filter(|inner| inner.is_object()).unwrap_or(call);
            let name = function.get("name")?.as_str()?.to_owned();
            Some((name, arguments(function.get("arguments").or_else(|| function.get("parameters")))?))
        })
        .collect()
}
