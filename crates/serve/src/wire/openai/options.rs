//! What OpenAI's two older endpoints have in common: sampling, limits, stop strings, formats, tools.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tangelo_chat::Tool;
use tangelo_core::limits::{CONTEXT_TOKENS_MAX, STOP_STRINGS_MAX, VOCABULARY_MAX};
use tangelo_core::{SamplingOverrides, TokenId};

use crate::error::ApiError;
use crate::request::{Effort, Format, Request, Thinking, ToolChoice};
use crate::states::store::check_name;
use crate::wire::fields::{Fields, Place};

/// Most answers to one request.
pub const ANSWERS_MAX: usize = 16;
/// Most alternatives per token; OpenAI's own bound.
pub const TOP_LOGPROBS_MAX: usize = 20;
/// Longest name of a tool, in characters.
const TOOL_NAME_CHARS_MAX: usize = 128;

/// The words for how much is to be thought.
pub const EFFORTS: [(&str, Effort); 6] = [
    ("none", Effort::None),
    ("minimal", Effort::Minimal),
    ("low", Effort::Low),
    ("medium", Effort::Medium),
    ("high", Effort::High),
    ("xhigh", Effort::High),
];

/// Reads what chat and plain completions share into a request.
///
/// # Errors
/// A field has a wrong type or is out of range.
pub fn read_common(fields: &Fields<'_>, request: &mut Request) -> Result<(), ApiError> {
    request.persona = fields.text("persona")?.map(str::to_owned);
    request.state = state(fields)?;
    request.sampling = sampling(fields)?;
    request.n = fields.count("n", 1, ANSWERS_MAX)?.unwrap_or(1);
    request.min_tokens = fields.count("min_tokens", 0, CONTEXT_TOKENS_MAX)?.unwrap_or(0);
    request.ignore_eos = fields.flag("ignore_eos")?.unwrap_or(false);
    Ok(())
}

/// The name of a state to begin with.
pub fn state(fields: &Fields<'_>) -> Result<Option<String>, ApiError> {
    let name = fields.text("state")?;
    if name.is_some_and(|name| check_name(name).is_err()) {
        let expected = "1 to 64 of the characters A-Z a-z 0-9 . _ -, not beginning with a dot";
        return Err(fields.expected("state", expected));
    }
    Ok(name.map(str::to_owned))
}

/// Whether the answer is to be a stream, and whether that is to end with what it cost.
///
/// # Errors
/// A field has a wrong type.
pub fn streaming(fields: &Fields<'_>) -> Result<(bool, bool), ApiError> {
    let usage = fields.within("stream_options", |options| options.flag("include_usage"))?.flatten();
    Ok((fields.flag("stream")?.unwrap_or(false), usage.unwrap_or(false)))
}

fn sampling(fields: &Fields<'_>) -> Result<SamplingOverrides, ApiError> {
    Ok(SamplingOverrides {
        temperature: fields.number("temperature", 0.0, 2.0)?,
        top_p: top_p(fields)?,
        top_k: top_k(fields)?,
        min_p: fields.number("min_p", 0.0, 1.0)?,
        repetition_penalty: fields.number("repetition_penalty", 0.01, 100.0)?,
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?,
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?,
        penalty_window: None,
        logit_bias: logit_bias(fields)?,
        seed: seed(fields)?,
        max_tokens: None,
        stop: stops(fields, "stop")?,
    })
}

/// `top_p`; 0 leaves only the most probable token, as with OpenAI.
pub fn top_p(fields: &Fields<'_>) -> Result<Option<f32>, ApiError> {
    Ok(fields.number("top_p", 0.0, 1.0)?.map(|p| p.max(f32::MIN_POSITIVE)))
}

/// `top_k`; vLLM and others say -1 for all tokens, which is 0 here.
pub fn top_k(fields: &Fields<'_>) -> Result<Option<usize>, ApiError> {
    let k = fields.integer("top_k", -1, VOCABULARY_MAX as i64)?;
    Ok(k.map(|k| usize::try_from(k).unwrap_or(0)))
}

/// `seed`, whose sign is part of it.
pub fn seed(fields: &Fields<'_>) -> Result<Option<u64>, ApiError> {
    Ok(fields.integer("seed", i64::MIN, i64::MAX)?.map(i64::cast_unsigned))
}

fn logit_bias(fields: &Fields<'_>) -> Result<Option<BTreeMap<TokenId, f32>>, ApiError> {
    fields.within("logit_bias", |biases| {
        let mut map = BTreeMap::new();
        for token in biases.map().keys() {
            let id = token.parse().map_err(|_| {
                let message = format!("`logit_bias` has the key {token:?}, which is not the id of a token");
                ApiError::invalid(Some("logit_bias".to_owned()), message)
            })?;
            if let Some(bias) = biases.number(token, -100.0, 100.0)? {
                map.insert(id, bias);
            }
        }
        Ok(map)
    })
}

/// A stop string, or a list of them.
pub fn stops(fields: &Fields<'_>, name: &str) -> Result<Vec<String>, ApiError> {
    let expected = format!("a non-empty string or a list of at most {STOP_STRINGS_MAX} non-empty strings");
    let wrong = || fields.expected(name, &expected);
    let filled = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    match fields.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= STOP_STRINGS_MAX => {
            items.iter().map(filled).collect::<Option<_>>().ok_or_else(wrong)
        }
        Some(value) => Ok(vec![filled(value).ok_or_else(wrong)?]),
    }
}

/// Tools in the shape of chat completions.
///
/// # Errors
/// One is not a function, or has no usable name.
pub fn tools(fields: &Fields<'_>) -> Result<Vec<Tool>, ApiError> {
    fields.each("tools", |value, place| {
        let tool = Fields::new(value, *place)?;
        function_type(&tool)?;
        let function = tool.within("function", check_function)?;
        function.ok_or_else(|| tool.expected("function", "an object"))?;
        self::tool(value.clone(), place)
    })
}

/// The definition of a tool, in the shape of chat completions.
///
/// # Errors
/// It is malformed; `place` says where.
pub fn tool(definition: Value, place: &Place<'_>) -> Result<Tool, ApiError> {
    Tool::new(definition, 0).map_err(|error| ApiError::invalid(Some(place.path()), error.to_string()))
}

/// Only functions are tools here.
pub fn function_type(tool: &Fields<'_>) -> Result<(), ApiError> {
    match tool.required_text("type")? {
        "function" => Ok(()),
        _ => Err(tool.refused("type", "is a kind of tool that this server does not have; use \"function\"")),
    }
}

/// Checks name, description and the type of the parameters.
pub fn check_function(function: Fields<'_>) -> Result<(), ApiError> {
    tool_name(&function)?;
    function.text("description")?;
    function.object("parameters")?;
    function.flag("strict")?;
    Ok(())
}

/// The name of a tool: letters, digits and `_ - . : /`, since the model writes it between tags of its own.
pub fn tool_name<'a>(fields: &Fields<'a>) -> Result<&'a str, ApiError> {
    let name = fields.required_text("name")?;
    let is_good = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
    if (1..=TOOL_NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(is_good) {
        return Ok(name);
    }
    Err(fields.expected("name", "1 to 128 letters, digits and characters of `_-.:/`"))
}

/// `tool_choice` of chat completions (`{"function": {"name"}}`) and of responses (`{"name"}`).
pub fn tool_choice(fields: &Fields<'_>) -> Result<ToolChoice, ApiError> {
    const WORDS: [(&str, ToolChoice); 3] =
        [("auto", ToolChoice::Auto), ("none", ToolChoice::None), ("required", ToolChoice::Required)];
    match fields.get("tool_choice") {
        None => Ok(ToolChoice::Auto),
        Some(Value::Object(_)) => {
            let named = fields.within("tool_choice", |choice| {
                function_type(&choice)?;
                match choice.within("function", |function| tool_name(&function).map(str::to_owned))? {
                    Some(name) => Ok(name),
                    None => tool_name(&choice).map(str::to_owned),
                }
            })?;
            Ok(named.map_or(ToolChoice::Auto, ToolChoice::Named))
        }
        Some(Value::String(_)) => Ok(fields.choice("tool_choice", &WORDS)?.unwrap_or_default()),
        Some(_) => {
            Err(fields.expected("tool_choice", "\"auto\", \"none\", \"required\" or a named function"))
        }
    }
}

/// How much is to be thought: `reasoning_effort`, `reasoning` and `thinking_budget`. The later ones win.
pub fn thinking(fields: &Fields<'_>) -> Result<Thinking, ApiError> {
    let mut thinking = Thinking::default();
    if let Some(effort) = fields.choice("reasoning_effort", &EFFORTS)? {
        thinking = effort.into();
    }
    fields.within("reasoning", |reasoning| {
        if let Some(effort) = reasoning.choice("effort", &EFFORTS)? {
            thinking = effort.into();
        }
        thinking.budget = reasoning.count("max_tokens", 0, CONTEXT_TOKENS_MAX)?.or(thinking.budget);
        thinking.enabled = reasoning.flag("enabled")?.or(thinking.enabled);
        Ok(())
    })?;
    thinking.budget = fields.count("thinking_budget", 0, CONTEXT_TOKENS_MAX)?.or(thinking.budget);
    Ok(thinking)
}

/// `chat_template_kwargs`: variables for the template, of which two have a meaning for the server.
pub fn template_kwargs(fields: &Fields<'_>) -> Result<Map<String, Value>, ApiError> {
    let kwargs = fields.within("chat_template_kwargs", |kwargs| {
        kwargs.flag("enable_thinking")?;
        kwargs.flag("truncate_history_thinking")?;
        Ok(kwargs.map().clone())
    })?;
    Ok(kwargs.unwrap_or_default())
}

/// The format of the answer: `response_format`, or one of the names that vLLM has for it.
///
/// # Errors
/// It is malformed, of a kind that the server cannot enforce, or given twice.
pub fn format(fields: &Fields<'_>) -> Result<Format, ApiError> {
    let mut found = Vec::new();
    found.extend(fields.within("response_format", |format| response_format(&format))?);
    found.extend(fields.within("structured_outputs", |all| guided(&all, ""))?.into_iter().flatten());
    found.extend(guided(fields, "guided_")?);
    match (found.pop(), found.is_empty()) {
        (None, _) => Ok(Format::Text),
        (Some(format), true) => Ok(format),
        (Some(_), false) => Err(ApiError::invalid(
            Some("response_format".to_owned()),
            "the format of the answer is given more than once; give `response_format` only",
        )),
    }
}

/// `{"type": "json_schema", "json_schema": {"schema"}}` and its siblings. In responses the schema lies one level up.
pub fn response_format(format: &Fields<'_>) -> Result<Format, ApiError> {
    match format.required_text("type")? {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::JsonObject),
        "json_schema" => match format.within("json_schema", |inner| json_schema(&inner))? {
            Some(schema) => Ok(schema),
            None if format.get("schema").is_some() => json_schema(format),
            None => Err(format.expected("json_schema", "an object with a `schema`")),
        },
        "regex" => Ok(Format::Regex(pattern(format, "regex")?)),
        "grammar" => Ok(Format::Lark(pattern(format, "grammar")?)),
        _ => {
            let known = "one of \"text\", \"json_object\", \"json_schema\", \"regex\", \"grammar\"";
            Err(format.expected("type", known))
        }
    }
}

fn json_schema(inner: &Fields<'_>) -> Result<Format, ApiError> {
    inner.text("name")?;
    let strict = inner.flag("strict")?.unwrap_or(true);
    let schema = inner.object("schema")?.ok_or_else(|| inner.expected("schema", "a JSON schema"))?;
    Ok(Format::JsonSchema { schema: Value::Object(schema.clone()), strict })
}

/// A pattern under its own name or as `pattern`.
fn pattern(format: &Fields<'_>, name: &str) -> Result<String, ApiError> {
    let text = match format.text(name)? {
        Some(text) => Some(text),
        None => format.text("pattern")?,
    };
    text.map(str::to_owned).ok_or_else(|| format.expected(name, "a string"))
}

/// vLLM's names, with a prefix or inside `structured_outputs`.
fn guided(fields: &Fields<'_>, prefix: &str) -> Result<Vec<Format>, ApiError> {
    let name = |kind: &str| format!("{prefix}{kind}");
    let mut found = Vec::new();
    match fields.get(&name("json")) {
        None => {}
        Some(Value::String(text)) => {
            let schema: Map<String, Value> = serde_json::from_str(text)
                .map_err(|_| fields.expected(&name("json"), "a JSON schema or the text of one"))?;
            found.push(Format::JsonSchema { schema: Value::Object(schema), strict: true });
        }
        Some(schema @ Value::Object(_)) => {
            found.push(Format::JsonSchema { schema: schema.clone(), strict: true });
        }
        Some(_) => return Err(fields.expected(&name("json"), "a JSON schema or the text of one")),
    }
    found.extend(fields.text(&name("regex"))?.map(|regex| Format::Regex(regex.to_owned())));
    found.extend(fields.text(&name("grammar"))?.map(|grammar| Format::Lark(grammar.to_owned())));
    if fields.flag(&name("json_object"))? == Some(true) {
        found.push(Format::JsonObject);
    }
    let choices = fields.each(&name("choice"), |value, place| {
        value.as_str().map(escape).ok_or_else(|| place.expected("a string", value))
    })?;
    if !choices.is_empty() {
        found.push(Format::Regex(choices.join("|")));
    }
    Ok(found)
}

/// A regular expression that matches exactly this text.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
