//! The grammar of calls in the dialect of Nemotron 3: what [`super::nemotron3`] reads as a complete call.
//!
//! A value is written as its reader takes it: text as it is, without a closing tag in it; members of enumerations by
//! themselves; everything else as JSON of its schema. Where an argument may be text or something else, text that spells
//! something else is left out, because the reader would take it for that. Of what schemas say about text, lengths,
//! patterns, enumerations and constants are kept to; a `format` is what JSON Schema makes of it, a remark.

use serde_json::{Map, Value};

use super::CallGrammar;
use super::grammar::{Lark, arguments, escaped, json_of, literal, whole, with_definitions};
use super::nemotron3::{CLOSE, FUNCTION_CLOSE, FUNCTION_OPEN, OPEN, PARAMETER_CLOSE, PARAMETER_OPEN};
use crate::message::Tool;
use crate::schema::ArgumentSchema;

/// How deep alternatives and references are followed.
const DEPTH_MAX: usize = 16;

/// The grammar of an answer with calls of `tools`.
pub(super) fn write(
    tools: &[&Tool],
    calls: CallGrammar<'_>,
    is_token: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let mut lark = Lark::new(is_token);
    let more = if calls.is_parallel { " (\"\\n\" call)*" } else { "" };
    lark.start(&format!("call{more}"), OPEN, calls.is_required);
    let functions: Vec<String> = (0..tools.len()).map(|at| format!("function_{at}")).collect();
    let (open, close) = (lark.tag(OPEN), lark.tag(CLOSE));
    lark.rule("call", &format!("{open} \"\\n\" ({}) {close}", functions.join(" | ")));
    for ((at, tool), function) in tools.iter().enumerate().zip(&functions) {
        let mut body = literal(&format!("{FUNCTION_OPEN}{}>\n", tool.name()));
        for (index, (name, schema, is_required)) in arguments(tool).iter().enumerate() {
            let rule = format!("argument_{at}_{index}");
            body += &format!(" {rule}{}", if *is_required { "" } else { "?" });
            let open = literal(&format!("{PARAMETER_OPEN}{name}>\n"));
            let value = Values::write(&mut lark, format!("value_{at}_{index}"), schema, tool.parameters());
            lark.rule(&rule, &format!("{open} ({value})"));
        }
        lark.rule(function, &format!("{body} {}", literal(&format!("{FUNCTION_CLOSE}\n"))));
    }
    Some(lark.rules)
}

/// What may be written as the value of one argument, in the making.
struct Values<'a, 'l, 't> {
    lark: &'l mut Lark<'t>,
    /// What rules are called.
    name: String,
    /// The parameters of the tool, where references point.
    parameters: Option<&'a Value>,
    /// Types that the argument may have besides text.
    others: Vec<&'static str>,
    /// Ways to write it, each with the closing tag.
    ways: Vec<String>,
}

impl<'a, 'l, 't> Values<'a, 'l, 't> {
    /// All ways to write a value of `schema`, with the closing tag.
    fn write(
        lark: &'l mut Lark<'t>,
        name: String,
        schema: &'a Value,
        parameters: Option<&'a Value>,
    ) -> String {
        let others = ArgumentSchema { schema: Some(schema), root: parameters }.other_types();
        let mut values = Self { lark, name, parameters, others, ways: Vec::new() };
        values.add(schema, 0);
        values.ways.join(" | ")
    }

    fn add(&mut self, schema: &'a Value, depth: usize) {
        let Value::Object(map) = schema else { return self.add_text(&Map::new()) };
        let list = |key: &str| map.get(key).and_then(Value::as_array);
        let target = map.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        let target = target.and_then(|pointer| self.parameters?.pointer(pointer));
        let members: Vec<&Value> = list("enum").into_iter().flatten().chain(map.get("const")).collect();
        let is_deep = depth >= DEPTH_MAX;
        if !members.is_empty() {
            members.into_iter().for_each(|member| self.add_member(member));
        } else if let Some(target) = target.filter(|_| !is_deep) {
            self.add(target, depth.saturating_add(1));
        } else if let Some(of) = list("anyOf").or_else(|| list("oneOf")).filter(|_| !is_deep) {
            of.iter().for_each(|schema| self.add(schema, depth.saturating_add(1)));
        } else {
            self.add_types(schema, map);
        }
    }

    fn add_member(&mut self, member: &Value) {
        let text = member.as_str().map_or_else(|| member.to_string(), str::to_owned);
        self.ways.push(literal(&format!("{text}{}", close())));
    }

    fn add_types(&mut self, schema: &Value, map: &Map<String, Value>) {
        let argument = ArgumentSchema { schema: Some(schema), root: self.parameters };
        let others = argument.other_types();
        let is_text = argument.is_text() || others.is_empty();
        let names_text =
            map.get("type").and_then(Value::as_array).is_some_and(|types| types.contains(&"string".into()));
        if is_text || names_text {
            self.add_text(map);
        }
        if !others.is_empty() {
            let mut schema = with_definitions(schema, self.parameters);
            if let Some(map) = schema.as_object_mut().filter(|_| names_text) {
                map.insert("type".to_owned(), others.into());
            }
            self.ways.push(format!("{} {}", json_of(&schema), literal(&close())));
        }
    }

    /// Raw text. It goes on to the first closing tag, and must not hold what else would end it.
    fn add_text(&mut self, schema: &Map<String, Value>) {
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64).map(|bound| bound.to_string());
        let (least, most) = (bound("minLength"), bound("maxLength"));
        let (least, most) = (least.unwrap_or_else(|| "0".to_owned()), most.unwrap_or_default());
        let tags = format!("{}|{}", escaped(PARAMETER_CLOSE), escaped(FUNCTION_CLOSE));
        let mut body = format!("/(?s:.{{{least},{most}}})/ & ~/(?s:.*)({tags})(?s:.*)/");
        for other in &self.others {
            body += &format!(" & ~/\\s*({})\\s*/", spelling(other));
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            body += &format!(" & /{}/", whole(pattern));
        }
        let rule = format!("{}_{}", self.name, self.ways.len());
        let text = rule.to_uppercase();
        self.lark.rule(&text, &body);
        self.lark.rule(&format!("{rule}[suffix={}]", literal(&close())), &text);
        self.ways.push(rule);
    }
}

/// What ends a value.
fn close() -> String {
    format!("\n{PARAMETER_CLOSE}\n")
}

/// What a text may look like, at least, that its reader takes for a value of this type.
fn spelling(name: &str) -> &'static str {
    match name {
        "null" => "null|Null|NULL|None",
        "boolean" => "true|True|TRUE|false|False|FALSE",
        "array" => "\\[(?s:.*)",
        "object" => "\\{(?s:.*)",
        _ => "-?[0-9](?s:.*)",
    }
}
