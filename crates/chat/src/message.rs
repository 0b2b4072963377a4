//! Messages, tool calls and tool definitions, in the JSON shape of OpenAI's chat completions.
//!
//! What is read is forgiving: `content` may be a string, null, absent or a list of text parts; `arguments` an object
//! or a string that holds one; a call or a tool may come with or without its `function` wrapper; a role may be any
//! word. What is written is one form: `arguments` as a string for clients ([`serde::Serialize`]), as an object for
//! templates ([`Message::template_value`]).

use std::fmt;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::error::Error;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Instructions that hold for the whole conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// A role that only the template may know, such as `developer`.
    Other(String),
}

impl Role {
    /// The name of the role in JSON and in templates.
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for Role {
    fn from(name: &str) -> Self {
        match name {
            "system" => Self::System,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" => Self::Tool,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(deserializer)?.as_str().into())
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said. `None` for an assistant message that is only tool calls.
    #[serde(default, deserialize_with = "content")]
    pub content: Option<String>,
    /// What the assistant thought before it spoke.
    #[serde(default, alias = "reasoning", skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Tools that the assistant calls.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Which call a tool message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The speaker's name, or the tool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A message with text only.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: Some(content.into()),
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }

    /// The message as a chat template expects it: like the wire form, but `arguments` is an object.
    pub fn template_value(&self) -> Value {
        let mut value = Map::new();
        value.insert("role".into(), self.role.as_str().into());
        let content = match (&self.content, &self.role) {
            (Some(text), _) => Value::from(text.as_str()),
            // Templates test an assistant's content for null; elsewhere they print it, and would print `None`.
            (None, Role::Assistant) => Value::Null,
            (None, _) => "".into(),
        };
        value.insert("content".into(), content);
        let optional = [
            ("reasoning_content", &self.reasoning_content),
            ("tool_call_id", &self.tool_call_id),
            ("name", &self.name),
        ];
        for (key, text) in optional {
            if let Some(text) = text {
                value.insert(key.into(), text.as_str().into());
            }
        }
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.iter().map(|call| call.value(Value::Object(call.arguments.clone())));
            value.insert("tool_calls".into(), calls.collect());
        }
        Value::Object(value)
    }
}

/// `content`: text, null, or a list of text parts, which are joined.
fn content<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Array(parts) => {
            parts.iter().map(part_text).collect::<Result<String, _>>().map(Some).map_err(D::Error::custom)
        }
        _ => Err(D::Error::custom("content must be a string, null or a list of text parts")),
    }
}

fn part_text(part: &Value) -> Result<&str, String> {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or("without a type");
    match (kind, part.get("text").and_then(Value::as_str)) {
        ("text" | "input_text" | "output_text", Some(text)) => Ok(text),
        _ => Err(format!("a content part is `{kind}`, but this model reads only text parts")),
    }
}

/// A list that may be null.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// One call of one tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Names the call, so that a tool message can answer it.
    pub id: Option<String>,
    /// The tool's name.
    pub name: String,
    /// Argument names and values, in the order in which they were written.
    pub arguments: Map<String, Value>,
}

impl ToolCall {
    fn value(&self, arguments: Value) -> Value {
        let mut call = Map::new();
        if let Some(id) = &self.id {
            call.insert("id".into(), id.as_str().into());
        }
        call.insert("type".into(), "function".into());
        call.insert("function".into(), json!({"name": self.name, "arguments": arguments}));
        Value::Object(call)
    }
}

impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let arguments = Value::Object(self.arguments.clone()).to_string();
        self.value(arguments.into()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ToolCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let call = Value::deserialize(deserializer)?;
        let function = call.get("function").unwrap_or(&call);
        let Some(name) = function.get("name").and_then(Value::as_str) else {
            return Err(D::Error::custom("a tool call has no function name"));
        };
        let arguments = arguments(function.get("arguments")).ok_or_else(|| {
            D::Error::custom(format!("the arguments of the call of `{name}` are not a JSON object"))
        })?;
        let id = call.get("id").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { id, name: name.to_owned(), arguments })
    }
}

/// Arguments as an object, or as a string that holds one; absent, null and empty mean none.
pub(crate) fn arguments(value: Option<&Value>) -> Option<Map<String, Value>> {
    match value {
        None | Some(Value::Null) => Some(Map::new()),
        Some(Value::Object(map)) => Some(map.clone()),
        Some(Value::String(text)) if text.trim().is_empty() => Some(Map::new()),
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        Some(_) => None,
    }
}

/// A tool that the model may call: its definition, kept exactly as given.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    definition: Value,
    name: String,
}

impl Tool {
    /// Checks a definition: `{"type": "function", "function": {"name", "description", "parameters"}}`, or the inner
    /// object alone. `index` is its place in the list, for the message.
    ///
    /// # Errors
    /// It has no name, or its parameters are not an object.
    pub fn new(definition: Value, index: usize) -> Result<Self, Error> {
        let problem = |problem| Error::Tool { index, problem };
        let function = definition.get("function").unwrap_or(&definition);
        let name =
            function.get("name").and_then(Value::as_str).ok_or(problem("has no function name"))?.to_owned();
        match function.get("parameters") {
            None | Some(Value::Null | Value::Object(_)) => Ok(Self { definition, name }),
            Some(_) => Err(problem("has parameters that are not a JSON schema object")),
        }
    }

    /// Checks a list of definitions, as in the `tools` field of a request or in a file.
    ///
    /// # Errors
    /// The value is not a list, or [`Tool::new`] fails for an element.
    pub fn list(definitions: Value) -> Result<Vec<Self>, Error> {
        match definitions {
            Value::Array(items) => {
                items.into_iter().enumerate().map(|(index, item)| Self::new(item, index)).collect()
            }
            _ => Err(Error::Tool { index: 0, problem: "is not in a list" }),
        }
    }

    /// The tool's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The definition as it was given.
    pub fn definition(&self) -> &Value {
        &self.definition
    }

    /// Whether calls must be of the schema of the arguments, to the letter.
    pub fn is_strict(&self) -> bool {
        let function = self.definition.get("function").unwrap_or(&self.definition);
        function.get("strict").and_then(Value::as_bool) == Some(true)
    }

    /// The JSON schema of the arguments.
    pub fn parameters(&self) -> Option<&Value> {
        self.definition
            .get("function")
            .unwrap_or(&self.definition)
            .get("parameters")
            .filter(|schema| schema.is_object())
    }

    /// The JSON schema of one argument.
    pub fn parameter(&self, name: &str) -> Option<&Value> {
        self.parameters()?.get("properties")?.get(name)
    }
}

impl Serialize for Tool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.definition.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Value::deserialize(deserializer)?, 0).map_err(D::Error::custom)
    }
}

/// Messages and the tools that they may use.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Conversation {
    /// The messages, oldest first.
    #[serde(default)]
    pub messages: Vec<Message>,
    /// The tools; may be empty.
    #[serde(default, deserialize_with = "list")]
    pub tools: Vec<Tool>,
}

impl Serialize for Conversation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("messages", &self.messages)?;
        if !self.tools.is_empty() {
            map.serialize_entry("tools", &self.tools)?;
        }
        map.end()
    }
}

impl Conversation {
    /// The tool of this name.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name() == name)
    }
}
