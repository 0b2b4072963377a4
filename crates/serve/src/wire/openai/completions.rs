//! `POST /v1/completions`: text that goes on, without a template.
//!
//! Several prompts are answered at once; answer k of prompt p of n answers each has the index p·n + k.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::{Map, Value, json};
use tangelo_chat::Event;
use tangelo_core::TokenId;
use tangelo_core::limits::CONTEXT_TOKENS_MAX;

use super::{options, write};
use crate::answer::{AnswerStream, ChoiceUsage, Facts, Piece, Started, TokenLogprob};
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::request::{Input, Request};
use crate::wire::collect::{self, Answers};
use crate::wire::extract::Body;
use crate::wire::fields::{Fields, Place, whole};
use crate::wire::json::with;
use crate::wire::sse::{self, Out, Writer};

/// Most prompts in one request.
const PROMPTS_MAX: usize = 64;
/// Tokens of an answer, unless told otherwise; OpenAI's own.
const MAX_TOKENS: usize = 16;
/// Most alternatives per token.
const LOGPROBS_MAX: usize = 20;

/// Continues texts.
pub async fn create(State(app): State<App>, caller: Caller, Body(body): Body) -> Result<Response, ApiError> {
    let fields = Fields::of_body(&body);
    let (is_stream, with_usage) = options::streaming(&fields)?;
    let requests = requests(&fields)?;
    let n = requests.first().map_or(1, |request| request.n);
    let is_echoed = fields.flag("echo")?.unwrap_or(false);
    let echoes: Vec<_> = requests.iter().map(|one| is_echoed.then(|| text_of(&app, &one.input))).collect();
    let answers = try_join_all(requests.into_iter().map(|request| app.ask(&caller, request))).await?;
    let Some(facts) = answers.first().map(|answer| answer.facts().clone()) else {
        return Err(fields.expected("prompt", "at least one prompt"));
    };
    let each = answers.into_iter().zip(echoes).enumerate();
    let pieces = stream::select_all(each.map(|(p, (answer, echo))| numbered(answer, echo, p, n)));
    if is_stream {
        return Ok(sse::respond(pieces, Chunks::new(facts, with_usage)));
    }
    let answers = collect::collect(pieces).await?;
    Ok(Json(completion(&facts, &answers)).into_response())
}

/// A prompt as text.
fn text_of(app: &App, input: &Input) -> String {
    match input {
        Input::Text(text) => text.clone(),
        Input::Tokens(tokens) => app.tokenizer().decode(tokens, false),
        Input::Chat(_) => String::new(),
    }
}

/// The pieces of the answers to prompt `prompt`, with the numbers that they have among all answers. Each begins with
/// the `echo`.
fn numbered(
    answer: AnswerStream,
    echo: Option<String>,
    prompt: usize,
    n: usize,
) -> impl Stream<Item = Piece> + Send + Unpin {
    let echoes = echo.into_iter().flat_map(move |text| {
        (0..n).map(move |choice| Piece::Event {
            choice,
            event: Event::Content(text.clone()),
            tokens: Vec::new(),
        })
    });
    let renumber = move |mut piece| {
        if let Piece::Event { choice, .. } | Piece::Finished { choice, .. } = &mut piece {
            *choice = choice.saturating_add(prompt.saturating_mul(n));
        }
        piece
    };
    Box::pin(stream::iter(echoes).chain(sse::pieces(answer)).map(renumber))
}

/// One request per prompt.
fn requests(fields: &Fields<'_>) -> Result<Vec<Request>, ApiError> {
    for name in ["suffix", "best_of"] {
        if fields.get(name).is_some() {
            return Err(fields.refused(name, "is not supported; leave it out"));
        }
    }
    let mut common = Request::new(Input::Tokens(Vec::new()));
    common.model = fields.text("model")?.map(str::to_owned);
    options::read_common(fields, &mut common)?;
    common.sampling.max_tokens = fields.count("max_tokens", 1, CONTEXT_TOKENS_MAX)?.or(Some(MAX_TOKENS));
    common.format = options::format(fields)?;
    common.logprobs = fields.count("logprobs", 0, LOGPROBS_MAX)?;
    if fields.flag("echo")? == Some(true) && common.logprobs.is_some() {
        return Err(fields
            .refused("echo", "with `logprobs` would need probabilities of the prompt; ask for one of them"));
    }
    let prompts = prompts(fields)?;
    Ok(prompts.into_iter().map(|input| Request { input, ..common.clone() }).collect())
}

/// `prompt`: text, tokens, or a list of either.
///
/// # Errors
/// It is missing, empty or something else.
fn prompts(fields: &Fields<'_>) -> Result<Vec<Input>, ApiError> {
    inputs(fields, "prompt", PROMPTS_MAX)
}

/// Text, tokens, or a list of either, in the field `name`.
///
/// # Errors
/// It is missing, empty, too long or something else.
pub fn inputs(fields: &Fields<'_>, name: &str, count_max: usize) -> Result<Vec<Input>, ApiError> {
    let expected =
        format!("a non-empty string, a non-empty list of tokens, or a list of 1 to {count_max} of those");
    match fields.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(vec![Input::Text(text.clone())]),
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => {
            Ok(vec![Input::Tokens(fields.each(name, token)?)])
        }
        Some(Value::Array(items)) if (1..=count_max).contains(&items.len()) => {
            fields.each(name, |value, place| match value {
                Value::String(text) if !text.is_empty() => Ok(Input::Text(text.clone())),
                Value::Array(ids) if !ids.is_empty() => {
                    let ids =
                        ids.iter().enumerate().map(|(index, id)| token(id, &Place::Element(place, index)));
                    Ok(Input::Tokens(ids.collect::<Result<_, _>>()?))
                }
                _ => Err(place.expected("a non-empty string or a non-empty list of tokens", value)),
            })
        }
        _ => Err(fields.expected(name, &expected)),
    }
}

/// The id of a token.
///
/// # Errors
/// It is something else.
pub fn token(value: &Value, place: &Place<'_>) -> Result<TokenId, ApiError> {
    let id = whole(value).and_then(|id| TokenId::try_from(id).ok());
    id.ok_or_else(|| place.expected("the id of a token", value))
}

fn completion(facts: &Facts, answers: &Answers) -> Value {
    let choices = answers.choices.iter().map(|(index, choice)| {
        json!({
            "index": index,
            "text": format!("{}{}", choice.reasoning(), choice.content()),
            "logprobs": logprobs(&choice.tokens, &mut 0),
            "finish_reason": choice.ending.as_ref().map_or("length", write::finish_reason),
        })
    });
    json!({
        "id": format!("cmpl-{}", facts.id),
        "object": "text_completion",
        "created": facts.created_unix_s,
        "model": facts.model,
        "choices": choices.collect::<Vec<_>>(),
        "usage": write::usage(&answers.started, answers.usage()),
        "tangelo": write::extension(&answers.started),
    })
}

/// `logprobs` of completions. `offset`: characters of the answer before these tokens, brought up to date.
fn logprobs(tokens: &[TokenLogprob], offset: &mut usize) -> Value {
    if tokens.is_empty() {
        return Value::Null;
    }
    let (mut texts, mut chosen, mut top, mut offsets) = (vec![], vec![], vec![], vec![]);
    for token in tokens {
        let text = String::from_utf8_lossy(&token.bytes);
        offsets.push(*offset);
        *offset = offset.saturating_add(text.chars().count());
        texts.push(text.into_owned());
        chosen.push(write::finite(token.logprob));
        let others = token.top.iter().map(|other| {
            (String::from_utf8_lossy(&other.bytes).into_owned(), Value::from(write::finite(other.logprob)))
        });
        top.push(others.collect::<Map<_, _>>());
    }
    json!({"tokens": texts, "token_logprobs": chosen, "top_logprobs": top, "text_offset": offsets})
}

/// Writes the stream.
struct Chunks {
    facts: Facts,
    with_usage: bool,
    started: Started,
    total: ChoiceUsage,
    /// Characters of each answer so far.
    offsets: Vec<usize>,
    has_failed: bool,
}

impl Chunks {
    fn new(facts: Facts, with_usage: bool) -> Self {
        let (started, total) = Default::default();
        Self { facts, with_usage, started, total, offsets: Vec::new(), has_failed: false }
    }

    fn chunk(&self, choices: Value) -> Value {
        let chunk = json!({
            "id": format!("cmpl-{}", self.facts.id),
            "object": "text_completion",
            "created": self.facts.created_unix_s,
            "model": self.facts.model,
            "choices": choices,
        });
        if self.with_usage { with(chunk, json!({"usage": null})) } else { chunk }
    }

    fn text(&mut self, index: usize, text: &str, tokens: &[TokenLogprob], ending: Option<&str>) -> Value {
        let count = self.offsets.len().max(index.saturating_add(1));
        self.offsets.resize(count, 0);
        let logprobs = self.offsets.get_mut(index).map(|offset| logprobs(tokens, offset));
        self.chunk(json!([{"index": index, "text": text, "logprobs": logprobs, "finish_reason": ending}]))
    }
}

impl Writer for Chunks {
    fn piece(&mut self, piece: Piece, out: &mut Out) {
        match piece {
            Piece::Started(started) => {
                self.started = self.started + started;
            }
            Piece::Event { choice, event, tokens } => {
                if let Event::Content(text) | Event::Reasoning(text) = event {
                    out.data(&self.text(choice, &text, &tokens, None));
                }
            }
            Piece::Finished { choice, ending, usage, tokens } => {
                self.total += usage;
                let chunk = self.text(choice, "", &tokens, Some(write::finish_reason(&ending)));
                out.data(&chunk);
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
            let end = json!({"usage": usage, "tangelo": write::extension(&self.started)});
            out.data(&with(self.chunk(json!([])), end));
        }
        out.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Ending, TokenAlternative};
    use crate::wire::testing::{data, facts, transcript};

    fn read(body: Value) -> Result<Vec<Request>, ApiError> {
        requests(&Fields::new(&body, Place::Root).expect("an object"))
    }

    #[test]
    fn prompts_are_text_tokens_or_lists_of_either() {
        let inputs = |prompt: Value| -> Vec<String> {
            let requests = read(json!({ "prompt": prompt })).expect("valid");
            requests.iter().map(|request| format!("{:?}", request.input)).collect()
        };
        assert_eq!(inputs(json!("a")), ["Text(\"a\")"]);
        assert_eq!(inputs(json!(["a", "b"])), ["Text(\"a\")", "Text(\"b\")"]);
        assert_eq!(inputs(json!([1, 2])), ["Tokens([1, 2])"]);
        assert_eq!(inputs(json!([[1], [2, 3]])), ["Tokens([1])", "Tokens([2, 3])"]);
        for (prompt, param) in [
            (Value::Null, "prompt"),
            (json!(""), "prompt"),
            (json!([]), "prompt"),
            (json!([[]]), "prompt[0]"),
            (json!([1, "a"]), "prompt[1]"),
            (json!([[1, -2]]), "prompt[0][1]"),
            (json!([1.5]), "prompt[0]"),
        ] {
            let error = read(json!({ "prompt": prompt })).expect_err("malformed");
            assert_eq!(error.param.as_deref(), Some(param), "{prompt}");
        }
        assert!(read(json!({"prompt": "a", "suffix": "b"})).is_err());
    }

    #[test]
    fn offsets_of_tokens_go_on_from_chunk_to_chunk() {
        let token = |text: &str| {
            let top = vec![TokenAlternative { id: 5, bytes: b"x".to_vec(), logprob: f32::NEG_INFINITY }];
            vec![TokenLogprob { id: 4, bytes: text.as_bytes().to_vec(), logprob: -0.5, top }]
        };
        let piece = |text: &str| Piece::Event {
            choice: 1,
            event: Event::Content(text.to_owned()),
            tokens: token(text),
        };
        let (ending, usage) = (Ending::Stop, ChoiceUsage::default());
        let end = Piece::Finished { choice: 1, ending, usage, tokens: Vec::new() };
        let chunks = data(&transcript(Chunks::new(facts(), false), vec![piece("äb"), piece("c"), end]));
        let logprobs = |index: usize| chunks[index]["choices"][0]["logprobs"].clone();
        assert_eq!(logprobs(0)["text_offset"], json!([0]));
        assert_eq!(logprobs(1)["text_offset"], json!([2]));
        assert_eq!(logprobs(1)["top_logprobs"][0]["x"], json!(-9999.0));
        assert_eq!(chunks[2]["choices"][0]["finish_reason"], "stop");
    }
}
