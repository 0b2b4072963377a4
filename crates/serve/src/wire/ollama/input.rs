//! The requests of Ollama's dialect.

use serde_json::{Map, Value};
use tangelo_chat::{Conversation, Message, Role, ToolCall};
use tangelo_core::limits::CONTEXT_TOKENS_MAX;

use crate::error::ApiError;
use crate::request::{Effort, Format, Input, Request, Thinking};
use crate::wire::fields::{Fields, Place};
use crate::wire::openai::options::{self, TOP_LOGPROBS_MAX};

/// The words for how much is to be thought.
const EFFORTS: [(&str, Effort); 3] =
    [("low", Effort::Low), ("medium", Effort::Medium), ("high", Effort::High)];

/// A request, and whether its answer is to be a stream. `None`: nothing is asked, which is how clients load a model.
pub type Asked = (Option<Request>, bool);

/// The request of `POST /api/chat`.
///
/// # Errors
/// It is malformed.
pub fn chat(fields: &Fields<'_>) -> Result<Asked, ApiError> {
    let messages = fields.each("messages", message)?;
    let tools = options::tools(fields)?;
    let is_empty = messages.is_empty();
    let request = common(fields, Input::Chat(Conversation { messages, tools }))?;
    Ok(((!is_empty).then_some(request), is_stream(fields)?))
}

/// The request of `POST /api/generate`.
///
/// # Errors
/// It is malformed, or wants what depends on Ollama's own templates.
pub fn generate(fields: &Fields<'_>) -> Result<Asked, ApiError> {
    for name in ["suffix", "template", "context", "images"] {
        let is_empty = |value: &Value| value == "" || value.as_array().is_some_and(Vec::is_empty);
        if fields.get(name).is_some_and(|value| !is_empty(value)) {
            return Err(fields.refused(name, "is not supported; use /api/chat, or `raw` with a whole prompt"));
        }
    }
    let prompt = fields.text("prompt")?.unwrap_or_default();
    let system = fields.text("system")?.filter(|text| !text.is_empty());
    let input = if fields.flag("raw")?.unwrap_or(false) {
        Input::Text(prompt.to_owned())
    } else {
        let system = system.map(|text| Message::new(Role::System, text));
        let messages = system.into_iter().chain([Message::new(Role::User, prompt)]).collect();
        Input::Chat(Conversation { messages, tools: Vec::new() })
    };
    let request = common(fields, input)?;
    Ok(((!prompt.is_empty()).then_some(request), is_stream(fields)?))
}

fn is_stream(fields: &Fields<'_>) -> Result<bool, ApiError> {
    Ok(fields.flag("stream")?.unwrap_or(true))
}

fn common(fields: &Fields<'_>, input: Input) -> Result<Request, ApiError> {
    let mut request = Request::new(input);
    request.model = Some(fields.required_text("model")?.to_owned());
    request.persona = fields.text("persona")?.map(str::to_owned);
    request.state = options::state(fields)?;
    request.format = format(fields)?;
    request.thinking = thinking(fields)?;
    let top = fields.count("top_logprobs", 0, TOP_LOGPROBS_MAX)?;
    if fields.flag("logprobs")?.unwrap_or(false) {
        request.logprobs = Some(top.unwrap_or(0));
    }
    fields.within("options", |options| read_options(&options, &mut request))?;
    Ok(request)
}

/// `options`: sampling and limits, under Ollama's names. Options about memory and threads are the server's.
fn read_options(fields: &Fields<'_>, request: &mut Request) -> Result<(), ApiError> {
    if fields.integer("mirostat", 0, 2)?.is_some_and(|version| version != 0) {
        return Err(fields.refused("mirostat", "is not supported; use `temperature`, `top_p` or `min_p`"));
    }
    let tokens_max = CONTEXT_TOKENS_MAX as i64;
    let sampling = &mut request.sampling;
    sampling.temperature = fields.number("temperature", 0.0, 100.0)?;
    sampling.top_p = options::top_p(fields)?;
    sampling.top_k = options::top_k(fields)?;
    sampling.min_p = fields.number("min_p", 0.0, 1.0)?;
    sampling.repetition_penalty = fields.number("repeat_penalty", 0.01, 100.0)?;
    sampling.presence_penalty = fields.number("presence_penalty", -2.0, 2.0)?;
    sampling.frequency_penalty = fields.number("frequency_penalty", -2.0, 2.0)?;
    // -1 looks at everything.
    let window = fields.integer("repeat_last_n", -1, tokens_max)?;
    sampling.penalty_window = window.and_then(|window| usize::try_from(window).ok());
    sampling.seed = options::seed(fields)?;
    request.sampling.stop = options::stops(fields, "stop")?;
    // Below one: until the model stops.
    let limit = fields.integer("num_predict", -2, tokens_max)?;
    request.sampling.max_tokens =
        limit.and_then(|limit| usize::try_from(limit).ok()).filter(|&limit| limit > 0);
    Ok(())
}

/// `format`: absent or empty, "json", or a schema.
fn format(fields: &Fields<'_>) -> Result<Format, ApiError> {
    match fields.get("format") {
        None => Ok(Format::Text),
        Some(Value::String(name)) if name.is_empty() => Ok(Format::Text),
        Some(Value::String(name)) if name == "json" => Ok(Format::JsonObject),
        Some(schema @ Value::Object(_)) => Ok(Format::JsonSchema { schema: schema.clone(), strict: true }),
        Some(_) => Err(fields.expected("format", "\"json\" or a JSON schema")),
    }
}

/// `think`: a switch, or how much.
fn thinking(fields: &Fields<'_>) -> Result<Thinking, ApiError> {
    match fields.get("think") {
        None => Ok(Thinking::default()),
        Some(Value::Bool(enabled)) => Ok(Thinking { enabled: Some(*enabled), budget: None }),
        Some(_) => match fields.choice("think", &EFFORTS) {
            Ok(effort) => Ok(effort.map(Thinking::from).unwrap_or_default()),
            Err(_) => Err(fields.expected("think", "true, false, \"low\", \"medium\" or \"high\"")),
        },
    }
}

fn message(value: &Value, place: &Place<'_>) -> Result<Message, ApiError> {
    let fields = Fields::new(value, *place)?;
    let roles = [
        ("system", Role::System),
        ("user", Role::User),
        ("assistant", Role::Assistant),
        ("tool", Role::Tool),
    ];
    let role = fields.choice("role", &roles)?.ok_or_else(|| fields.expected("role", "a string"))?;
    if fields.list("images")?.is_some_and(|images| !images.is_empty()) {
        return Err(fields.refused("images", "cannot be read by this model"));
    }
    let mut message = Message::new(role, fields.text("content")?.unwrap_or_default());
    message.reasoning_content = fields.text("thinking")?.map(str::to_owned);
    message.tool_call_id = fields.text("tool_call_id")?.map(str::to_owned);
    message.name = fields.text("tool_name")?.map(str::to_owned);
    message.tool_calls = fields.each("tool_calls", tool_call)?;
    if message.role == Role::Assistant && !message.tool_calls.is_empty() {
        message.content = message.content.filter(|text| !text.is_empty());
    }
    Ok(message)
}

fn tool_call(value: &Value, place: &Place<'_>) -> Result<ToolCall, ApiError> {
    let call = Fields::new(value, *place)?;
    let id = call.text("id")?.map(str::to_owned);
    let function = call.within("function", |function| {
        let name = function.required_text("name")?.to_owned();
        let arguments: Map<String, Value> = function.object("arguments")?.cloned().unwrap_or_default();
        Ok(ToolCall { id, name, arguments })
    })?;
    function.ok_or_else(|| call.expected("function", "an object with `name` and `arguments`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_have_other_names() {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "think": "low",
            "options": {"num_predict": -1, "repeat_penalty": 1.1, "repeat_last_n": 64, "top_k": 0, "num_ctx": 9,
                        "stop": "END"}});
        let (request, is_stream) = chat(&Fields::new(&body, Place::Root).expect("an object")).expect("valid");
        let request = request.expect("a question");
        assert!(is_stream);
        assert_eq!(request.sampling.max_tokens, None);
        assert_eq!(request.sampling.stop, ["END"]);
        assert_eq!(request.sampling.repetition_penalty, Some(1.1));
        assert_eq!(request.sampling.penalty_window, Some(64));
        assert_eq!(request.thinking, Effort::Low.into());
    }

    #[test]
    fn nothing_asked_is_a_model_loaded() {
        let body = json!({"model": "m", "stream": false});
        let fields = Fields::new(&body, Place::Root).expect("an object");
        assert!(matches!(chat(&fields), Ok((None, false))));
        assert!(matches!(generate(&fields), Ok((None, false))));
    }

    #[test]
    fn raw_prompts_see_no_template() {
        let body = json!({"model": "m", "prompt": "<x>", "raw": true});
        let (request, _) = generate(&Fields::new(&body, Place::Root).expect("an object")).expect("valid");
        assert!(matches!(request.expect("a prompt").input, Input::Text(text) if text == "<x>"));
    }

    #[test]
    fn what_is_refused_is_named() {
        let cases = [
            (json!({"prompt": "x"}), "model"),
            (json!({"model": "m", "prompt": "x", "suffix": "y"}), "suffix"),
            (json!({"model": "m", "prompt": "x", "template": "{{ .Prompt }}"}), "template"),
            (json!({"model": "m", "prompt": "x", "format": "xml"}), "format"),
            (json!({"model": "m", "prompt": "x", "think": "much"}), "think"),
            (json!({"model": "m", "prompt": "x", "options": {"mirostat": 2}}), "options.mirostat"),
            (json!({"model": "m", "prompt": "x", "options": {"temperature": "hot"}}), "options.temperature"),
        ];
        for (body, param) in cases {
            let error = generate(&Fields::new(&body, Place::Root).expect("an object")).expect_err("refused");
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }
}
