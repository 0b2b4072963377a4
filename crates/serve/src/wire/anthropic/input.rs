//! The request of `POST /v1/messages`.
//!
//! Results of tools are blocks of a user's message here and messages of their own for a template. What a block says
//! about caching is not needed: every prompt is looked up.

use serde_json::{Map, Value, json};
use tangelo_chat::{Conversation, Message, Role, Tool, ToolCall};
use tangelo_core::SamplingOverrides;
use tangelo_core::limits::CONTEXT_TOKENS_MAX;

use crate::error::ApiError;
use crate::request::{Effort, Format, Input, Request, Thinking, ToolChoice};
use crate::wire::fields::{Fields, Place};
use crate::wire::openai::options;

/// The words for how much is to be thought.
const EFFORTS: [(&str, Effort); 5] = [
    ("low", Effort::Low),
    ("medium", Effort::Medium),
    ("high", Effort::High),
    ("xhigh", Effort::High),
    ("max", Effort::High),
];

/// The conversation of a request, without what concerns the answer only.
///
/// # Errors
/// It is malformed, or holds blocks that are not text.
pub fn conversation(fields: &Fields<'_>) -> Result<Request, ApiError> {
    let mut messages = Vec::new();
    if let Some(system) = text_blocks(fields, "system")? {
        messages.push(Message::new(Role::System, system));
    }
    fields.each("messages", |value, place| message(value, place, &mut messages))?;
    if fields.list("messages")?.is_none_or(<[_]>::is_empty) {
        return Err(fields.expected("messages", "a list of at least one message"));
    }
    let tools = fields.each("tools", tool)?;
    let mut request = Request::new(Input::Chat(Conversation { messages, tools }));
    request.model = Some(fields.required_text("model")?.to_owned());
    request.persona = fields.text("persona")?.map(str::to_owned);
    request.state = options::state(fields)?;
    request.thinking = thinking(fields)?;
    request.format = format(fields)?;
    request.parallel_tool_calls = true;
    fields.within("tool_choice", |choice| {
        request.tool_choice = tool_choice(&choice)?;
        request.parallel_tool_calls = !choice.flag("disable_parallel_tool_use")?.unwrap_or(false);
        Ok(())
    })?;
    Ok(request)
}

/// A whole request.
///
/// # Errors
/// It is malformed.
pub fn request(fields: &Fields<'_>) -> Result<Request, ApiError> {
    let mut request = conversation(fields)?;
    let max_tokens = fields.count("max_tokens", 1, CONTEXT_TOKENS_MAX)?;
    let expected = || fields.expected("max_tokens", "a whole number of tokens from 1 up");
    fields.list("stop_sequences")?;
    request.sampling = SamplingOverrides {
        temperature: fields.number("temperature", 0.0, 1.0)?,
        top_p: options::top_p(fields)?,
        top_k: options::top_k(fields)?,
        max_tokens: Some(max_tokens.ok_or_else(expected)?),
        stop: options::stops(fields, "stop_sequences")?,
        ..SamplingOverrides::default()
    };
    Ok(request)
}

/// `output_config.format`.
fn format(fields: &Fields<'_>) -> Result<Format, ApiError> {
    let format = fields.within("output_config", |config| {
        config.within("format", |format| match format.required_text("type")? {
            "json_schema" => {
                let schema = format.object("schema")?;
                let schema = schema.ok_or_else(|| format.expected("schema", "a JSON schema"))?;
                Ok(Format::JsonSchema { schema: Value::Object(schema.clone()), strict: true })
            }
            _ => Err(format.expected("type", "\"json_schema\"")),
        })
    })?;
    Ok(format.flatten().unwrap_or_default())
}

/// `thinking`, which is off unless asked for, and `output_config.effort`.
fn thinking(fields: &Fields<'_>) -> Result<Thinking, ApiError> {
    let effort = fields.within("output_config", |config| config.choice("effort", &EFFORTS))?.flatten();
    let asked = fields.within("thinking", |thinking| {
        thinking.text("display")?;
        let budget = thinking.count("budget_tokens", 1, CONTEXT_TOKENS_MAX)?;
        match thinking.required_text("type")? {
            "enabled" => Ok(Thinking { enabled: Some(true), budget }),
            "adaptive" => Ok(effort.map_or(Thinking { enabled: Some(true), budget }, Thinking::from)),
            "disabled" => Ok(Thinking { enabled: Some(false), budget: None }),
            _ => Err(thinking.expected("type", "one of \"enabled\", \"adaptive\", \"disabled\"")),
        }
    })?;
    Ok(asked.unwrap_or(Thinking { enabled: Some(false), budget: None }))
}

fn tool_choice(choice: &Fields<'_>) -> Result<ToolChoice, ApiError> {
    match choice.required_text("type")? {
        "auto" => Ok(ToolChoice::Auto),
        "any" => Ok(ToolChoice::Required),
        "none" => Ok(ToolChoice::None),
        "tool" => Ok(ToolChoice::Named(options::tool_name(choice)?.to_owned())),
        _ => Err(choice.expected("type", "one of \"auto\", \"any\", \"tool\", \"none\"")),
    }
}

/// A tool, in the shape of chat completions that templates know.
fn tool(value: &Value, place: &Place<'_>) -> Result<Tool, ApiError> {
    let tool = Fields::new(value, *place)?;
    if tool.text("type")?.is_some_and(|kind| kind != "custom") {
        return Err(tool.refused("type", "is a kind of tool that this server does not have; use \"custom\""));
    }
    let mut function = Map::new();
    function.insert("name".to_owned(), options::tool_name(&tool)?.into());
    if let Some(description) = tool.text("description")? {
        function.insert("description".to_owned(), description.into());
    }
    let schema =
        tool.object("input_schema")?.ok_or_else(|| tool.expected("input_schema", "a JSON schema"))?;
    function.insert("parameters".to_owned(), Value::Object(schema.clone()));
    options::tool(json!({"type": "function", "function": function}), place)
}

/// A string, or text blocks, which are joined by a newline.
fn text_blocks(fields: &Fields<'_>, name: &str) -> Result<Option<String>, ApiError> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(_)) => Ok(Some(fields.each(name, text_block)?.join("\n"))),
        Some(_) => Err(fields.expected(name, "a string or a list of text blocks")),
    }
}

fn text_block(value: &Value, place: &Place<'_>) -> Result<String, ApiError> {
    let block = Fields::new(value, *place)?;
    match block.required_text("type")? {
        "text" => block.required_text("text").map(str::to_owned),
        _ => Err(block.refused("type", "is not text, and this model reads only text")),
    }
}

fn message(value: &Value, place: &Place<'_>, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let fields = Fields::new(value, *place)?;
    let roles = [("user", Role::User), ("assistant", Role::Assistant), ("system", Role::System)];
    let role = fields.choice("role", &roles)?.ok_or_else(|| fields.expected("role", "a string"))?;
    match (fields.get("content"), role) {
        (Some(Value::String(text)), role) => messages.push(Message::new(role, text.as_str())),
        (Some(Value::Array(_)), Role::Assistant) => messages.push(assistant(&fields)?),
        (Some(Value::Array(_)), Role::User) => user(&fields, messages)?,
        (Some(Value::Array(_)), role) => {
            let text = text_blocks(&fields, "content")?.unwrap_or_default();
            messages.push(Message::new(role, text));
        }
        _ => return Err(fields.expected("content", "a string or a list of blocks")),
    }
    Ok(())
}

/// A user's blocks: results of tools as messages of their own, and text in between.
fn user(fields: &Fields<'_>, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let mut texts: Vec<String> = Vec::new();
    let mut flush = |texts: &mut Vec<String>, then: Option<Message>| {
        if !texts.is_empty() {
            messages.push(Message::new(Role::User, std::mem::take(texts).join("\n")));
        }
        messages.extend(then);
    };
    let blocks = fields.each("content", |value, place| {
        let block = Fields::new(value, *place)?;
        if block.required_text("type")? != "tool_result" {
            return text_block(value, place).map(Err);
        }
        block.flag("is_error")?;
        let id = block.required_text("tool_use_id")?.to_owned();
        let content = text_blocks(&block, "content")?.unwrap_or_default();
        Ok(Ok(Message { tool_call_id: Some(id), ..Message::new(Role::Tool, content) }))
    })?;
    for block in blocks {
        match block {
            Ok(result) => flush(&mut texts, Some(result)),
            Err(text) => texts.push(text),
        }
    }
    flush(&mut texts, None);
    Ok(())
}

/// An assistant's blocks, as one message.
fn assistant(fields: &Fields<'_>) -> Result<Message, ApiError> {
    let mut message = Message { content: None, ..Message::new(Role::Assistant, "") };
    fields.each("content", |value, place| {
        let block = Fields::new(value, *place)?;
        match block.required_text("type")? {
            "text" => {
                let text = block.required_text("text")?;
                message.content.get_or_insert_default().push_str(text);
            }
            "thinking" => {
                let text = block.required_text("thinking")?;
                block.text("signature")?;
                message.reasoning_content.get_or_insert_default().push_str(text);
            }
            // Nobody but its author can read it.
            "redacted_thinking" => {}
            "tool_use" => {
                let id = Some(block.required_text("id")?.to_owned());
                let name = block.required_text("name")?.to_owned();
                let arguments = block.object("input")?.ok_or_else(|| block.expected("input", "an object"))?;
                message.tool_calls.push(ToolCall { id, name, arguments: arguments.clone() });
            }
            _ => return Err(block.refused("type", "is a kind of block that this server does not have")),
        }
        Ok(())
    })?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<Request, ApiError> {
        request(&Fields::new(&body, Place::Root).expect("an object"))
    }

    fn with(field: &str, value: Value) -> Value {
        let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
        body[field] = value;
        body
    }

    #[test]
    fn blocks_become_messages_in_order() {
        let request = read(json!({
            "model": "m", "max_tokens": 5,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "text", "text": "Looking."},
                    {"type": "tool_use", "id": "a", "name": "w", "input": {"city": "Ulm"}}
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "rain"}]},
                    {"type": "text", "text": "And"}, {"type": "text", "text": "tomorrow?"}
                ]}
            ],
            "tools": [{"name": "w", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            "thinking": {"type": "enabled", "budget_tokens": 2048}
        }))
        .expect("valid");
        let Input::Chat(conversation) = &request.input else { panic!("a conversation") };
        let said: Vec<_> = conversation
            .messages
            .iter()
            .map(|message| (message.role.as_str(), message.content.as_deref().unwrap_or("-")))
            .collect();
        let expected = [
            ("system", "Be brief."),
            ("user", "Weather?"),
            ("assistant", "Looking."),
            ("tool", "rain"),
            ("user", "And\ntomorrow?"),
        ];
        assert_eq!(said, expected);
        assert_eq!(conversation.messages[2].reasoning_content.as_deref(), Some("Hm."));
        assert_eq!(conversation.messages[2].tool_calls[0].arguments["city"], "Ulm");
        assert_eq!(conversation.tools[0].definition()["function"]["parameters"]["type"], "object");
        assert_eq!(request.tool_choice, ToolChoice::Required);
        assert!(!request.parallel_tool_calls);
        assert_eq!(request.thinking, Thinking { enabled: Some(true), budget: Some(2048) });
    }

    #[test]
    fn thinking_is_off_unless_asked_for() {
        let request = read(with("temperature", json!(1))).expect("valid");
        assert_eq!(request.thinking.enabled, Some(false));
    }

    #[test]
    fn what_is_refused_is_named() {
        let image = json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]);
        let cases = [
            (with("max_tokens", Value::Null), "max_tokens"),
            (with("max_tokens", json!(0)), "max_tokens"),
            (with("model", json!(1)), "model"),
            (with("messages", json!([])), "messages"),
            (with("messages", image), "messages[0].content[0].type"),
            (with("temperature", json!(1.5)), "temperature"),
            (with("tools", json!([{"type": "bash_20250124", "name": "bash"}])), "tools[0].type"),
            (with("tools", json!([{"name": "f"}])), "tools[0].input_schema"),
            (with("tool_choice", json!({"type": "all"})), "tool_choice.type"),
            (with("thinking", json!({"type": "enabled", "budget_tokens": -1})), "thinking.budget_tokens"),
            (with("stop_sequences", json!([""])), "stop_sequences"),
        ];
        for (body, param) in cases {
            assert_eq!(read(body.clone()).expect_err("refused").param.as_deref(), Some(param), "{body}");
        }
    }
}
