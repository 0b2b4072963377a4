//! The request of `POST /v1/responses`, and its items as messages.
//!
//! An answer is several items here (reasoning, a message, calls) and one message in a conversation, so neighbouring
//! items of the assistant become one.

use serde_json::{Map, Value, json};
use tangelo_chat::{Message, Role, Tool, ToolCall};
use tangelo_core::limits::CONTEXT_TOKENS_MAX;

use crate::error::ApiError;
use crate::request::{Input, Request};
use crate::wire::fields::{Fields, Place};
use crate::wire::openai::messages::{arguments, text_parts};
use crate::wire::openai::options::{self, TOP_LOGPROBS_MAX};

/// Most pairs of `metadata`.
const METADATA_MAX: usize = 16;
/// Most characters of a key of `metadata`.
const METADATA_KEY_CHARS_MAX: usize = 64;
/// Most characters of a value of `metadata`.
const METADATA_VALUE_CHARS_MAX: usize = 512;

/// What a request says besides what is asked of the model.
#[derive(Debug)]
pub struct Asked {
    /// What is asked of the model, but for the conversation.
    pub request: Request,
    /// The system message.
    pub instructions: Option<String>,
    /// New messages.
    pub messages: Vec<Message>,
    /// The tools.
    pub tools: Vec<Tool>,
    /// The response that this one follows.
    pub previous: Option<String>,
    /// Whether the response is to be kept.
    pub is_stored: bool,
    /// Whether the answer is to be a stream.
    pub is_stream: bool,
    /// Fields that the response repeats.
    pub echo: Map<String, Value>,
}

/// Reads a request.
///
/// # Errors
/// It is malformed, or asks for what the server does not have.
pub fn read(fields: &Fields<'_>) -> Result<Asked, ApiError> {
    for name in ["conversation", "prompt"] {
        if fields.get(name).is_some() {
            return Err(
                fields.refused(name, "is not supported; use `previous_response_id` or send all items")
            );
        }
    }
    if fields.flag("background")? == Some(true) {
        return Err(
            fields.refused("background", "cannot be true; this server answers at once or as a stream")
        );
    }
    let mut request = Request::new(Input::Text(String::new()));
    request.model = fields.text("model")?.map(str::to_owned);
    options::read_common(fields, &mut request)?;
    request.n = 1;
    request.sampling.max_tokens = fields.count("max_output_tokens", 1, CONTEXT_TOKENS_MAX)?;
    request.tool_choice = options::tool_choice(fields)?;
    request.parallel_tool_calls = fields.flag("parallel_tool_calls")?.unwrap_or(true);
    request.thinking = options::thinking(fields)?;
    request.template_kwargs = options::template_kwargs(fields)?;
    let format =
        fields.within("text", |text| text.within("format", |format| options::response_format(&format)))?;
    request.format = format.flatten().unwrap_or_default();
    let top = fields.count("top_logprobs", 0, TOP_LOGPROBS_MAX)?;
    let include = fields.each("include", |value, place| {
        value.as_str().map(str::to_owned).ok_or_else(|| place.expected("a string", value))
    })?;
    let with_logprobs = include.iter().any(|name| name == "message.output_text.logprobs");
    request.logprobs = if with_logprobs { Some(top.unwrap_or(0)) } else { top.filter(|&top| top > 0) };
    fields.choice("truncation", &[("disabled", ()), ("auto", ())])?;
    Ok(Asked {
        request,
        instructions: fields.text("instructions")?.map(str::to_owned),
        messages: messages(fields)?,
        tools: tools(fields)?,
        previous: fields.text("previous_response_id")?.map(str::to_owned),
        is_stored: fields.flag("store")?.unwrap_or(true),
        is_stream: fields.flag("stream")?.unwrap_or(false),
        echo: echo(fields)?,
    })
}

/// What the response repeats of the request, with defaults.
fn echo(fields: &Fields<'_>) -> Result<Map<String, Value>, ApiError> {
    check_metadata(fields)?;
    let is_stored = fields.flag("store")?.unwrap_or(true);
    let defaults = [
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", true.into()),
        ("previous_response_id", Value::Null),
        ("reasoning", json!({"effort": null, "summary": null})),
        ("store", is_stored.into()),
        ("temperature", Value::Null),
        ("text", json!({"format": {"type": "text"}})),
        ("tool_choice", "auto".into()),
        ("tools", json!([])),
        ("top_p", Value::Null),
        ("truncation", "disabled".into()),
    ];
    let value =
        |(name, default): (&str, Value)| (name.to_owned(), fields.get(name).cloned().unwrap_or(default));
    Ok(defaults.into_iter().map(value).collect())
}

/// `metadata`: some words of the client's own, which are kept with the response.
fn check_metadata(fields: &Fields<'_>) -> Result<(), ApiError> {
    let Some(pairs) = fields.object("metadata")? else { return Ok(()) };
    if pairs.len() > METADATA_MAX {
        let why = format!("has {} pairs, and may have {METADATA_MAX} at most", pairs.len());
        return Err(fields.refused("metadata", &why));
    }
    if pairs.keys().any(|key| key.chars().count() > METADATA_KEY_CHARS_MAX) {
        let why = format!("has a key of more than {METADATA_KEY_CHARS_MAX} characters");
        return Err(fields.refused("metadata", &why));
    }
    let is_short = |text: &str| text.chars().count() <= METADATA_VALUE_CHARS_MAX;
    match pairs.iter().find(|(_, value)| !value.as_str().is_some_and(is_short)) {
        None => Ok(()),
        Some((key, value)) => {
            let place = Place::Field(&Place::Root, "metadata");
            let expected = format!("a string of at most {METADATA_VALUE_CHARS_MAX} characters");
            Err(Place::Field(&place, key).expected(&expected, value))
        }
    }
}

/// Tools whose name lies beside their type; the template gets them in the shape of chat completions.
fn tools(fields: &Fields<'_>) -> Result<Vec<Tool>, ApiError> {
    fields.each("tools", |value, place| {
        let tool = Fields::new(value, *place)?;
        options::function_type(&tool)?;
        options::check_function(tool)?;
        let kept = ["name", "description", "parameters"].into_iter();
        let function = kept.filter_map(|name| Some((name.to_owned(), tool.get(name)?.clone())));
        options::tool(json!({"type": "function", "function": function.collect::<Map<_, _>>()}), place)
    })
}

/// `input`: a string, or a list of items.
fn messages(fields: &Fields<'_>) -> Result<Vec<Message>, ApiError> {
    match fields.get("input") {
        Some(Value::String(text)) => Ok(vec![Message::new(Role::User, text.as_str())]),
        Some(Value::Array(items)) if !items.is_empty() => {
            let mut messages = Vec::new();
            fields.each("input", |value, place| item(value, place, &mut messages))?;
            Ok(messages)
        }
        _ => Err(fields.expected("input", "a string or a list of at least one item")),
    }
}

fn item(value: &Value, place: &Place<'_>, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let item = Fields::new(value, *place)?;
    match item.text("type")?.unwrap_or("message") {
        "message" => message(&item, messages),
        "function_call" => {
            let id = Some(item.required_text("call_id")?.to_owned());
            let name = item.required_text("name")?.to_owned();
            let call = ToolCall { id, name, arguments: arguments(&item, "arguments")? };
            assistant(messages, |_| true, |message| message.tool_calls.push(call));
            Ok(())
        }
        "function_call_output" => {
            let id = item.required_text("call_id")?.to_owned();
            let output = text_parts(&item, "output")?;
            let output = output.ok_or_else(|| item.expected("output", "a string or a list of text parts"))?;
            messages.push(Message { tool_call_id: Some(id), ..Message::new(Role::Tool, output) });
            Ok(())
        }
        "reasoning" => {
            let mut texts = item.each("content", part_text)?;
            if texts.is_empty() {
                texts = item.each("summary", part_text)?;
            }
            let is_new = |last: &Message| last.content.is_none() && last.tool_calls.is_empty();
            assistant(messages, is_new, |message| {
                message.reasoning_content.get_or_insert_default().push_str(&texts.join("\n"));
            });
            Ok(())
        }
        _ => Err(item.refused("type", "is a kind of item that this server does not have")),
    }
}

fn part_text(value: &Value, place: &Place<'_>) -> Result<String, ApiError> {
    Fields::new(value, *place)?.required_text("text").map(str::to_owned)
}

fn message(item: &Fields<'_>, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let roles = [
        ("system", Role::System),
        ("developer", Role::System),
        ("user", Role::User),
        ("assistant", Role::Assistant),
    ];
    let role = item.choice("role", &roles)?.ok_or_else(|| item.expected("role", "a string"))?;
    let content = text_parts(item, "content")?;
    let content = content.ok_or_else(|| item.expected("content", "a string or a list of text parts"))?;
    if role == Role::Assistant {
        assistant(messages, |last| last.content.is_none(), |message| message.content = Some(content));
    } else {
        messages.push(Message::new(role, content));
    }
    Ok(())
}

/// Changes the assistant's message at the end if it `may_grow`, or a new one.
fn assistant(
    messages: &mut Vec<Message>,
    may_grow: impl FnOnce(&Message) -> bool,
    change: impl FnOnce(&mut Message),
) {
    match messages.last_mut() {
        Some(last) if last.role == Role::Assistant && may_grow(last) => change(last),
        _ => {
            let mut message = Message { content: None, ..Message::new(Role::Assistant, "") };
            change(&mut message);
            messages.push(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: Value) -> Result<Asked, ApiError> {
        read(&Fields::new(&body, Place::Root).expect("an object"))
    }

    #[test]
    fn items_of_one_answer_become_one_message() {
        let asked = asked(json!({"input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Looking."}]},
            {"type": "function_call", "call_id": "a", "name": "w", "arguments": "{\"city\": \"Ulm\"}"},
            {"type": "function_call", "call_id": "b", "name": "w", "arguments": ""},
            {"type": "function_call_output", "call_id": "a", "output": "rain"},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "?"}]},
            {"role": "assistant", "content": "Rain."}
        ]}))
        .expect("valid");
        let roles: Vec<&str> = asked.messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "tool", "assistant"]);
        let answer = &asked.messages[1];
        assert_eq!(answer.reasoning_content.as_deref(), Some("Hm."));
        assert_eq!(answer.content.as_deref(), Some("Looking."));
        assert_eq!(answer.tool_calls.len(), 2);
        assert_eq!(answer.tool_calls[0].arguments["city"], "Ulm");
        assert_eq!(asked.messages[3].tool_call_id.as_deref(), Some("b"));
    }

    #[test]
    fn tools_reach_the_template_in_the_shape_of_chat_completions() {
        let asked = asked(json!({"input": "x", "tools": [
            {"type": "function", "name": "f", "strict": true, "parameters": {"type": "object"}}
        ]}))
        .expect("valid");
        let expected =
            json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
        assert_eq!(asked.tools[0].definition(), &expected);
    }

    #[test]
    fn what_the_server_does_not_have_is_refused_by_name() {
        let cases = [
            (json!({}), "input"),
            (json!({"input": []}), "input"),
            (json!({"input": "x", "background": true}), "background"),
            (json!({"input": "x", "conversation": "c"}), "conversation"),
            (json!({"input": "x", "tools": [{"type": "web_search"}]}), "tools[0].type"),
            (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input[0].type"),
            (json!({"input": "x", "text": {"format": {"type": "xml"}}}), "text.format.type"),
        ];
        for (body, param) in cases {
            assert_eq!(asked(body.clone()).expect_err("refused").param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn metadata_is_a_few_short_strings() {
        let pairs = |count: usize, key: &str, value: Value| {
            let pairs = (0..count).map(|index| (format!("{index:02}{key}"), value.clone()));
            Value::Object(pairs.collect())
        };
        let read = |metadata: Value| asked(json!({"input": "x", "metadata": metadata}));
        let most = pairs(METADATA_MAX, &"é".repeat(62), "é".repeat(512).into());
        assert_eq!(read(most.clone()).expect("as much as may be").echo["metadata"], most);
        assert_eq!(read(Value::Null).expect("none").echo["metadata"], json!({}));
        let cases = [
            (pairs(17, "", "".into()), "metadata", "`metadata` has 17 pairs, and may have 16 at most"),
            (pairs(1, &"k".repeat(63), "".into()), "metadata", "a key of more than 64 characters"),
            (pairs(1, "", "v".repeat(513).into()), "metadata.00", "a string of at most 512 characters"),
            (pairs(1, "", 5.into()), "metadata.00", "a string of at most 512 characters, but it is 5"),
            (pairs(1, "", Value::Null), "metadata.00", "characters, but it is null"),
        ];
        for (metadata, param, words) in cases {
            let error = read(metadata).expect_err("refused");
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(param)));
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
