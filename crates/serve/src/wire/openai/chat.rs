//! `POST /v1/chat/completions`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tangelo_chat::{Conversation, Event};
use tangelo_core::limits::CONTEXT_TOKENS_MAX;

use super::messages::messages;
use super::options::{self, TOP_LOGPROBS_MAX};
use super::write;
use crate::answer::{ChoiceUsage, Facts, Piece, Started, TokenLogprob};
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::request::{Input, Request};
use crate::wire::collect::{self, Answers, Choice};
use crate::wire::extract::Body;
use crate::wire::fields::Fields;
use crate::wire::json::with;
use crate::wire::sse::{self, Out, Writer};

/// Answers a conversation.
pub async fn create(State(app): State<App>, caller: Caller, Body(body): Body) -> Result<Response, ApiError> {
    let fields = Fields::of_body(&body);
    let (is_stream, with_usage) = options::streaming(&fields)?;
    let request = request(&fields)?;
    let n = request.n;
    let answer = app.ask(&caller, request).await?;
    let facts = answer.facts().clone();
    if is_stream {
        return Ok(sse::respond(sse::pieces(answer), Chunks::new(facts, n, with_usage)));
    }
    let answers = collect::collect(sse::pieces(answer)).await?;
    Ok(Json(completion(&facts, &answers)).into_response())
}

/// The request in the server's own terms.
///
/// # Errors
/// It is malformed.
pub fn request(fields: &Fields<'_>) -> Result<Request, ApiError> {
    for (name, instead) in [("functions", "tools"), ("function_call", "tool_choice")] {
        if fields.get(name).is_some() {
            return Err(fields.refused(name, &format!("is not supported; use `{instead}`")));
        }
    }
    let conversation = Conversation { messages: messages(fields)?, tools: options::tools(fields)? };
    let mut request = Request::new(Input::Chat(conversation));
    request.model = fields.text("model")?.map(str::to_owned);
    options::read_common(fields, &mut request)?;
    // Whoever only wants the prompt does not ask for a stream, but the field must be right all the same.
    options::streaming(fields)?;
    let max_tokens = fields.count("max_tokens", 1, CONTEXT_TOKENS_MAX)?;
    request.sampling.max_tokens =
        fields.count("max_completion_tokens", 1, CONTEXT_TOKENS_MAX)?.or(max_tokens);
    request.tool_choice = options::tool_choice(fields)?;
    request.parallel_tool_calls = fields.flag("parallel_tool_calls")?.unwrap_or(true);
    request.format = options::format(fields)?;
    request.thinking = options::thinking(fields)?;
    request.template_kwargs = options::template_kwargs(fields)?;
    let top = fields.count("top_logprobs", 0, TOP_LOGPROBS_MAX)?;
    request.logprobs = match fields.flag("logprobs")? {
        Some(true) => Some(top.unwrap_or(0)),
        Some(false) => None,
        None => top.filter(|&top| top > 0),
    };
    Ok(request)
}

/// The answers in one object.
pub fn completion(facts: &Facts, answers: &Answers) -> Value {
    let choices: Vec<Value> =
        answers.choices.iter().map(|(&index, choice)| choice_value(index, choice)).collect();
    json!({
        "id": format!("chatcmpl-{}", facts.id),
        "object": "chat.completion",
        "created": facts.created_unix_s,
        "model": facts.model,
        "choices": choices,
        "usage": write::usage(&answers.started, answers.usage()),
        "tangelo": write::extension(&answers.started),
    })
}

fn choice_value(index: usize, choice: &Choice) -> Value {
    let (reasoning, content) = (choice.reasoning(), choice.content());
    let calls: Vec<Value> = choice
        .calls()
        .map(|call| {
            let function = json!({"name": call.name, "arguments": call.json});
            json!({"id": call.id, "type": "function", "function": function})
        })
        .collect();
    let says_nothing = content.is_empty() && !calls.is_empty();
    let mut message = Map::new();
    message.insert("role".into(), "assistant".into());
    message.insert("content".into(), if says_nothing { Value::Null } else { content.into() });
    message.insert("refusal".into(), Value::Null);
    if !reasoning.is_empty() {
        message.insert("reasoning_content".into(), reasoning.into());
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    json!({
        "index": index,
        "message": message,
        "logprobs": write::chat_logprobs(&choice.tokens),
        "finish_reason": choice.ending.as_ref().map_or("length", write::finish_reason),
    })
}

/// Writes the stream.
struct Chunks {
    facts: Facts,
    n: usize,
    with_usage: bool,
    started: Started,
    total: ChoiceUsage,
    has_failed: bool,
}

impl Chunks {
    fn new(facts: Facts, n: usize, with_usage: bool) -> Self {
        let (started, total) = Default::default();
        Self { facts, n, with_usage, started, total, has_failed: false }
    }

    fn chunk(&self, choices: Value) -> Value {
        let chunk = json!({
            "id": format!("chatcmpl-{}", self.facts.id),
            "object": "chat.completion.chunk",
            "created": self.facts.created_unix_s,
            "model": self.facts.model,
            "choices": choices,
        });
        if self.with_usage { with(chunk, json!({"usage": null})) } else { chunk }
    }

    fn delta(&self, index: usize, delta: Value, tokens: &[TokenLogprob], ending: Option<&str>) -> Value {
        self.chunk(json!([{
            "index": index,
            "delta": delta,
            "logprobs": write::chat_logprobs(tokens),
            "finish_reason": ending,
        }]))
    }

    fn event(&self, choice: usize, event: Event, tokens: &[TokenLogprob], out: &mut Out) {
        let delta = match event {
            Event::Reasoning(text) => json!({"reasoning_content": text}),
            Event::Content(text) => json!({"content": text}),
            Event::ToolCallStart { index, id, name } => json!({"tool_calls": [{
                "index": index,
                "id": id,
                "type": "function",
                "function": {"name": name, "arguments": ""},
            }]}),
            Event::ToolCallArguments { index, json_delta } => json!({"tool_calls": [{
                "index": index,
                "function": {"arguments": json_delta},
            }]}),
            Event::ToolCallEnd { .. } if tokens.is_empty() => return,
            Event::ToolCallEnd { .. } => json!({}),
        };
        out.data(&self.delta(choice, delta, tokens, None));
    }
}

impl Writer for Chunks {
    fn piece(&mut self, piece: Piece, out: &mut Out) {
        match piece {
            Piece::Started(started) => {
                for index in 0..self.n {
                    let delta = json!({"role": "assistant", "content": ""});
                    let chunk = self.delta(index, delta, &[], None);
                    out.data(&with(chunk, json!({"tangelo": write::extension(&started)})));
                }
                self.started = started;
            }
            Piece::Event { choice, event, tokens } => self.event(choice, event, &tokens, out),
            Piece::Finished { choice, ending, usage, tokens } => {
                self.total += usage;
                let reason = write::finish_reason(&ending);
                out.data(&self.delta(choice, json!({}), &tokens, Some(reason)));
            }
            Piece::Failed(error) => {
                self.has_failed = true;
                out.data(&error.openai());
            }
        }
    }

    fn end(&mut self, out: &mut Out) {
        if self.with_usage && !self.has_failed {
            let usage = write::usage(&self.started, self.total);
            out.data(&with(self.chunk(json!([])), json!({ "usage": usage })));
        }
        out.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Ending;
    use crate::request::{Effort, Format, ToolChoice};
    use crate::wire::fields::Place;
    use crate::wire::testing::{answers, data, facts, pieces, transcript};

    fn read(body: Value) -> Result<Request, ApiError> {
        request(&Fields::new(&body, Place::Root).expect("an object"))
    }

    fn with(field: &str, value: Value) -> Value {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        body[field] = value;
        body
    }

    #[test]
    fn a_stream_word_for_word() {
        let head = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":0,"delta":"#;
        let tail = r#","logprobs":null,"finish_reason":null}],"usage":null}"#;
        let delta = |delta: &str| format!("data: {head}{delta}{tail}\n\n");
        let expected = [
            delta(r#"{"role":"assistant","content":""}"#).replace(
                "\"usage\":null}",
                r#""usage":null,"tangelo":{"cached_tokens":16,"replayed_tokens":3}}"#,
            ),
            delta(r#"{"reasoning_content":"Look "}"#),
            delta(r#"{"reasoning_content":"it up."}"#),
            delta(r#"{"content":"One moment."}"#),
            delta(
                r#"{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"weather","arguments":""}}]}"#,
            ),
            delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]}"#),
            delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":"\"Ulm\"}"}}]}"#),
            delta("{}").replace(r#""finish_reason":null"#, r#""finish_reason":"tool_calls""#),
        ];
        let text = transcript(Chunks::new(facts(), 1, true), pieces());
        let (stream, end) = text.split_once("data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",\"choices\":[],").expect("usage at the end");
        assert_eq!(stream, expected.concat());
        assert!(end.ends_with("\n\ndata: [DONE]\n\n"), "{end}");
        let usage = &data(&text).pop().expect("chunks")["usage"];
        assert_eq!(usage["total_tokens"], 29);
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 16);
        assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 2);
    }

    #[test]
    fn the_stream_adds_up_to_the_whole() {
        let whole = completion(&facts(), &answers());
        let message = &whole["choices"][0]["message"];
        let chunks = data(&transcript(Chunks::new(facts(), 1, false), pieces()));
        let joined = |path: &str| -> String {
            let texts =
                chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"].pointer(path)?.as_str());
            texts.collect()
        };
        assert_eq!(message["content"], joined("/content"));
        assert_eq!(message["reasoning_content"], joined("/reasoning_content"));
        let call = &message["tool_calls"][0]["function"];
        assert_eq!(call["arguments"], joined("/tool_calls/0/function/arguments"));
        assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    }

    #[test]
    fn a_failure_ends_the_stream_without_usage() {
        let failure = ApiError::invalid(None, "the dog ate it");
        let text = transcript(Chunks::new(facts(), 1, true), vec![Piece::Failed(failure)]);
        assert_eq!(data(&text).len(), 1, "{text}");
        assert_eq!(data(&text)[0]["error"]["message"], "the dog ate it");
    }

    #[test]
    fn every_answer_begins_and_ends_by_itself() {
        let finished = |choice| Piece::Finished {
            choice,
            ending: Ending::Length,
            usage: ChoiceUsage::default(),
            tokens: Vec::new(),
        };
        let all = vec![Piece::Started(Started::default()), finished(1), finished(0)];
        let chunks = data(&transcript(Chunks::new(facts(), 2, false), all));
        let indexes: Vec<_> = chunks.iter().map(|chunk| chunk["choices"][0]["index"].clone()).collect();
        assert_eq!(indexes, [0, 1, 1, 0]);
    }

    #[test]
    fn formats_are_read_under_all_their_names() {
        let schema = json!({"type": "object"});
        let wanted = Format::JsonSchema { schema: schema.clone(), strict: true };
        let cases = [
            (with("response_format", json!({"type": "text"})), Format::Text),
            (with("response_format", json!({"type": "json_object"})), Format::JsonObject),
            (
                with(
                    "response_format",
                    json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}),
                ),
                wanted.clone(),
            ),
            (
                with("response_format", json!({"type": "regex", "regex": "a+"})),
                Format::Regex("a+".to_owned()),
            ),
            (
                with("response_format", json!({"type": "grammar", "grammar": "start: \"a\""})),
                Format::Lark("start: \"a\"".to_owned()),
            ),
            (with("guided_json", schema.clone()), wanted.clone()),
            (with("guided_json", json!(schema.to_string())), wanted.clone()),
            (with("structured_outputs", json!({"json": schema})), wanted),
            (with("guided_regex", json!("a+")), Format::Regex("a+".to_owned())),
            (with("guided_choice", json!(["a.b", "c<d"])), Format::Regex(r"a\.b|c<d".to_owned())),
        ];
        for (body, format) in cases {
            assert_eq!(read(body.clone()).expect("valid").format, format, "{body}");
        }
        let mut twice = with("guided_regex", json!("a"));
        twice["response_format"] = json!({"type": "json_object"});
        assert_eq!(read(twice).expect_err("two formats").param.as_deref(), Some("response_format"));
    }

    #[test]
    fn choices_of_tools_and_thinking() {
        let named = json!({"type": "function", "function": {"name": "f"}});
        assert_eq!(
            read(with("tool_choice", named)).expect("valid").tool_choice,
            ToolChoice::Named("f".to_owned())
        );
        assert_eq!(
            read(with("tool_choice", json!("required"))).expect("valid").tool_choice,
            ToolChoice::Required
        );
        let thinking = |body| read(body).expect("valid").thinking;
        assert_eq!(thinking(with("reasoning_effort", json!("low"))), Effort::Low.into());
        assert_eq!(thinking(with("reasoning", json!({"max_tokens": 5, "enabled": true}))).budget, Some(5));
        assert_eq!(thinking(with("thinking_budget", json!(7))).budget, Some(7));
    }

    #[test]
    fn what_is_refused_is_named() {
        let cases = [
            (json!({}), "messages"),
            (with("functions", json!([])), "functions"),
            (with("temperature", json!(2.5)), "temperature"),
            (with("temperature", json!("1")), "temperature"),
            (with("n", json!(0)), "n"),
            (with("max_tokens", json!(-1)), "max_tokens"),
            (with("stop", json!([1])), "stop"),
            (with("stream_options", json!({"include_usage": 1})), "stream_options.include_usage"),
            (with("logit_bias", json!({"x": 1})), "logit_bias"),
            (with("tool_choice", json!("maybe")), "tool_choice"),
            (with("tools", json!([{"type": "web_search"}])), "tools[0].type"),
            (
                with("tools", json!([{"type": "function", "function": {"name": "a b"}}])),
                "tools[0].function.name",
            ),
            (with("response_format", json!({"type": "xml"})), "response_format.type"),
            (with("response_format", json!({"type": "json_schema"})), "response_format.json_schema"),
            (with("reasoning_effort", json!("max")), "reasoning_effort"),
            (with("top_logprobs", json!(21)), "top_logprobs"),
        ];
        for (body, param) in cases {
            let error = read(body.clone()).expect_err("refused");
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }
}
