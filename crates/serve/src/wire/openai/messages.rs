//! The messages of chat completions.

use serde_json::{Map, Value};
use tangelo_chat::{Message, Role, ToolCall};

use crate::error::ApiError;
use crate::wire::fields::{Fields, Place};

/// Reads `messages`, which must hold at least one.
///
/// # Errors
/// A message is malformed or has parts that are not text.
pub fn messages(fields: &Fields<'_>) -> Result<Vec<Message>, ApiError> {
    let messages = fields.each("messages", message)?;
    if messages.is_empty() {
        return Err(fields.expected("messages", "a list of at least one message"));
    }
    Ok(messages)
}

fn message(value: &Value, place: &Place<'_>) -> Result<Message, ApiError> {
    let fields = Fields::new(value, *place)?;
    let roles = [
        ("system", Role::System),
        // What OpenAI calls instructions since its reasoning models.
        ("developer", Role::System),
        ("user", Role::User),
        ("assistant", Role::Assistant),
        ("tool", Role::Tool),
    ];
    let role = fields.choice("role", &roles)?;
    let role = role.ok_or_else(|| fields.expected("role", "a string"))?;
    let content = text_parts(&fields, "content")?;
    if content.is_none() && role != Role::Assistant {
        return Err(fields.expected("content", "a string or a list of text parts"));
    }
    let mut message = Message::new(role, "");
    message.content = content;
    message.name = fields.text("name")?.map(str::to_owned);
    message.tool_call_id = fields.text("tool_call_id")?.map(str::to_owned);
    let reasoning = fields.text("reasoning_content")?;
    message.reasoning_content = reasoning.or(fields.text("reasoning")?).map(str::to_owned);
    message.tool_calls = fields.each("tool_calls", tool_call)?;
    Ok(message)
}

/// A string, or a list of text parts, which are joined; `None` if there is neither.
///
/// # Errors
/// It is something else, or a part is no text.
pub fn text_parts(fields: &Fields<'_>, name: &str) -> Result<Option<String>, ApiError> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(_)) => Ok(Some(fields.each(name, text_part)?.concat())),
        Some(_) => Err(fields.expected(name, "a string or a list of text parts")),
    }
}

fn text_part(value: &Value, place: &Place<'_>) -> Result<String, ApiError> {
    let part = Fields::new(value, *place)?;
    match part.required_text("type")? {
        "text" | "input_text" | "output_text" => part.required_text("text").map(str::to_owned),
        "refusal" => part.required_text("refusal").map(str::to_owned),
        _ => Err(part.refused("type", "is not text, and this model reads only text")),
    }
}

fn tool_call(value: &Value, place: &Place<'_>) -> Result<ToolCall, ApiError> {
    let call = Fields::new(value, *place)?;
    call.choice("type", &[("function", ())])?;
    let id = call.text("id")?.map(str::to_owned);
    let function = call.within("function", |function| {
        let name = function.required_text("name")?.to_owned();
        Ok(ToolCall { id, name, arguments: arguments(&function, "arguments")? })
    })?;
    function.ok_or_else(|| call.expected("function", "an object with `name` and `arguments`"))
}

/// Arguments of a past call: an object, or the text of one; absent and empty mean none.
///
/// # Errors
/// They are something else.
pub fn arguments(fields: &Fields<'_>, name: &str) -> Result<Map<String, Value>, ApiError> {
    let wrong = || fields.expected(name, "a JSON object or the text of one");
    match fields.get(name) {
        None => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map.clone()),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(Map::new()),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| wrong()),
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(list: Value) -> Result<Vec<Message>, ApiError> {
        let body = json!({ "messages": list });
        messages(&Fields::new(&body, Place::Root).expect("an object"))
    }

    #[test]
    fn a_conversation_with_tools_and_reasoning() {
        let read = read(json!([
            {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            {"role": "user", "content": "Weather?", "name": "ann"},
            {"role": "assistant", "content": null, "reasoning_content": "Look it up.", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "w", "arguments": "{\"city\": \"Ulm\"}"}}
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"}
        ]))
        .expect("valid");
        assert_eq!(read[0], Message::new(Role::System, "Be brief."));
        assert_eq!(read[1].name.as_deref(), Some("ann"));
        assert_eq!(read[2].reasoning_content.as_deref(), Some("Look it up."));
        assert_eq!(read[2].tool_calls[0].arguments["city"], "Ulm");
        assert_eq!(read[3].tool_call_id.as_deref(), Some("c1"));
    }

    #[test]
    fn what_is_refused_is_named() {
        let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
        let cases = [
            (json!([]), "messages"),
            (json!("hello"), "messages"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([{"role": "robot", "content": "x"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": 5}]), "messages[0].content"),
            (image, "messages[0].content[0].type"),
            (
                json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "["}}]}]),
                "messages[0].tool_calls[0].function.arguments",
            ),
        ];
        for (list, param) in cases {
            let error = read(list.clone()).expect_err("malformed");
            assert_eq!(error.param.as_deref(), Some(param), "{list}");
        }
    }
}
