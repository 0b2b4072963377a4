//! Grammars of tool calls, for constrained decoding: exactly what a dialect's reader makes a complete call of.
//!
//! They are written in llguidance's variant of Lark. Arguments come in the order of the schema's properties, required
//! ones always, others if the model likes; values that are not text are JSON of their schemas. This module does not know
//! what becomes of a grammar, and leaves it to whoever compiles it to refuse what cannot be followed.

use serde_json::{Map, Value, json};

use crate::message::Tool;

/// Which calls an answer may, or must, hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallGrammar<'a> {
    /// The only tool that may be called.
    pub only: Option<&'a str>,
    /// Whether the answer is calls and nothing else; otherwise it may be, or begin with, text.
    pub is_required: bool,
    /// Whether there may be several calls.
    pub is_parallel: bool,
}

/// A rule in the making, and how a dialect's tags are written in it.
pub(super) struct Lark<'a> {
    /// The rules so far.
    pub rules: String,
    is_token: &'a dyn Fn(&str) -> bool,
}

impl<'a> Lark<'a> {
    /// No rules yet. `is_token` says whether a text is one special token of the vocabulary, which no other tokens spell.
    pub fn new(is_token: &'a dyn Fn(&str) -> bool) -> Self {
        Self { rules: String::new(), is_token }
    }

    /// Adds a rule.
    pub fn rule(&mut self, name: &str, body: &str) {
        self.rules += &format!("{name}: {body}\n");
    }

    /// A tag: a special token if the vocabulary has it, else its text.
    pub fn tag(&self, tag: &str) -> String {
        if (self.is_token)(tag) { tag.to_owned() } else { literal(tag) }
    }

    /// The rule `start`: `calls`, behind any text without `open` if they are not required.
    pub fn start(&mut self, calls: &str, open: &str, is_required: bool) {
        if is_required {
            return self.rule("start", calls);
        }
        self.rule("start", &format!("TEXT? ({calls})?"));
        // Other tokens cannot spell a special one; elsewhere the tag has to be kept out of the text.
        let text = if (self.is_token)(open) {
            "/(?s:.+)/".to_owned()
        } else {
            format!("/(?s:.+)/ & ~/(?s:.*){}(?s:.*)/", escaped(open))
        };
        self.rule("TEXT", &text);
    }
}

/// A text as a string of the grammar; JSON's escapes are Lark's.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text as part of a regular expression between slashes.
pub(super) fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        if c == '\n' {
            escaped.push_str("\\n");
            return escaped;
        }
        // `\<` and `\>` are the borders of a word, and letters with a backslash mean something as well.
        if c.is_ascii_punctuation() && !"<>_".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
        escaped
    })
}

/// The tools that may be called.
pub(super) fn callable<'t>(tools: &'t [Tool], calls: CallGrammar<'_>) -> Vec<&'t Tool> {
    tools.iter().filter(|tool| calls.only.is_none_or(|only| tool.name() == only)).collect()
}

/// Names, schemas and whether they are required, of the arguments of a tool.
pub(super) fn arguments(tool: &Tool) -> Vec<(String, Value, bool)> {
    let empty = Map::new();
    let object = tool.parameters().and_then(Value::as_object).unwrap_or(&empty);
    let required: Vec<&str> = object
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let properties = object.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let undeclared = required.iter().filter(|&&name| !properties.contains_key(name));
    let undeclared = undeclared.map(|&name| (name.to_owned(), json!({}), true));
    let declared = properties.iter().map(|(name, schema)| {
        let is_required = required.contains(&name.as_str());
        (name.clone(), schema.clone(), is_required)
    });
    declared.chain(undeclared).collect()
}

/// A schema from the parameters of a tool as a document of its own, with the definitions that it may refer to.
pub(super) fn with_definitions(schema: &Value, parameters: Option<&Value>) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(map) = &mut schema {
        for key in ["$defs", "definitions"] {
            if let Some(definitions) = parameters.and_then(|parameters| parameters.get(key)) {
                map.entry(key).or_insert_with(|| definitions.clone());
            }
        }
    }
    schema
}

/// The schema of all arguments together.
pub(super) fn arguments_schema(tool: &Tool) -> Value {
    let mut schema = tool.parameters().cloned().unwrap_or_else(|| json!({}));
    if let Value::Object(map) = &mut schema {
        map.entry("type").or_insert_with(|| "object".into());
        // What the tool does not know it is not given.
        map.entry("additionalProperties").or_insert(false.into());
    }
    schema
}

/// A JSON value of a schema, as part of a rule.
pub(super) fn json_of(schema: &Value) -> String {
    format!("%json {schema}")
}

/// A pattern of JSON Schema, which may match anywhere in a text, as an expression between slashes that matches the whole
/// text. Anchors elsewhere than at the ends of alternatives are left as they are, and not supported by the library.
pub(super) fn whole(pattern: &str) -> String {
    let alternatives = alternatives(pattern);
    let whole = alternatives.iter().map(|alternative| {
        let (begin, rest) = match alternative.strip_prefix('^') {
            Some(rest) => ("", rest),
            None => ("(?s:.*)", alternative.as_str()),
        };
        let backslashes = |text: &str| text.chars().rev().take_while(|&c| c == '\\').count();
        match rest.strip_suffix('$').filter(|rest| backslashes(rest) % 2 == 0) {
            Some(rest) => format!("{begin}({rest})"),
            None => format!("{begin}({rest})(?s:.*)"),
        }
    });
    whole.collect::<Vec<_>>().join("|")
}

/// The alternatives of an expression, for an engine in which `\d` and `\w` know all of Unicode (in ECMA 262 they are ASCII)
/// and slashes end an expression.
fn alternatives(pattern: &str) -> Vec<String> {
    let (mut done, mut current) = (Vec::new(), String::new());
    let (mut chars, mut depth, mut is_in_class) = (pattern.chars(), 0usize, false);
    while let Some(c) = chars.next() {
        match c {
            '|' if depth == 0 && !is_in_class => {
                done.push(std::mem::take(&mut current));
                continue;
            }
            '(' if !is_in_class => depth = depth.saturating_add(1),
            ')' if !is_in_class => depth = depth.saturating_sub(1),
            '[' => is_in_class = true,
            ']' => is_in_class = false,
            _ => {}
        }
        match c {
            '/' => current.push_str("\\/"),
            '\n' => current.push_str("\\n"),
            '\\' => {
                let escaped = chars.next();
                match (escaped, is_in_class) {
                    (Some('d'), true) => current.push_str("0-9"),
                    (Some('d'), false) => current.push_str("[0-9]"),
                    (Some('D'), false) => current.push_str("[^0-9]"),
                    (Some('w'), true) => current.push_str("A-Za-z0-9_"),
                    (Some('w'), false) => current.push_str("[A-Za-z0-9_]"),
                    (Some('W'), false) => current.push_str("[^A-Za-z0-9_]"),
                    _ => {
                        current.push(c);
                        current.extend(escaped);
                    }
                }
            }
            _ => current.push(c),
        }
    }
    done.push(current);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_anywhere_unless_anchored() {
        for (pattern, expected) in [
            ("^a$", "(a)"),
            ("a", "(?s:.*)(a)(?s:.*)"),
            ("^a|b$", "(a)(?s:.*)|(?s:.*)(b)"),
            (r"^(a|b)[|)]\$", r"((a|b)[|)]\$)(?s:.*)"),
            (r"^\d/[\d\w]\\$", r"([0-9]\/[0-9A-Za-z0-9_]\\)"),
        ] {
            assert_eq!(whole(pattern), expected, "{pattern}");
        }
    }
}
