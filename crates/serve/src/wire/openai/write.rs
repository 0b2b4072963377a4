//! What OpenAI's endpoints write alike: usage, log-probabilities, reasons to end.

use serde_json::{Value, json};

use crate::answer::{ChoiceUsage, Ending, Started, TokenLogprob};
use crate::wire::json::with;

/// Stands for minus infinity, which JSON does not have; OpenAI does the same.
const LOGPROB_MIN: f32 = -9999.0;

/// `finish_reason` of an answer.
pub fn finish_reason(ending: &Ending) -> &'static str {
    match ending {
        Ending::Stop | Ending::StopString(_) => "stop",
        Ending::ToolCalls => "tool_calls",
        Ending::Length | Ending::ContextFull | Ending::Cancelled => "length",
    }
}

/// `usage`, of one prompt and all its answers.
pub fn usage(started: &Started, total: ChoiceUsage) -> Value {
    json!({
        "prompt_tokens": started.prompt_tokens,
        "completion_tokens": total.answer_tokens,
        "total_tokens": started.prompt_tokens.saturating_add(total.answer_tokens),
        "prompt_tokens_details": {"cached_tokens": started.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": total.reasoning_tokens},
    })
}

/// The `tangelo` object: how the prompt came to be in memory.
pub fn extension(started: &Started) -> Value {
    let replayed = started.matched_tokens.saturating_sub(started.cached_tokens);
    json!({"cached_tokens": started.cached_tokens, "replayed_tokens": replayed})
}

/// `logprobs` of chat completions; null if none were asked for.
pub fn chat_logprobs(tokens: &[TokenLogprob]) -> Value {
    if tokens.is_empty() { Value::Null } else { json!({"content": token_logprobs(tokens), "refusal": null}) }
}

/// Tokens with their log-probabilities and alternatives.
pub fn token_logprobs(tokens: &[TokenLogprob]) -> Value {
    let one = |bytes: &[u8], logprob: f32| json!({"token": String::from_utf8_lossy(bytes), "logprob": finite(logprob), "bytes": bytes});
    let entries = tokens.iter().map(|token| {
        let top: Value = token.top.iter().map(|other| one(&other.bytes, other.logprob)).collect();
        with(one(&token.bytes, token.logprob), json!({ "top_logprobs": top }))
    });
    entries.collect()
}

/// A log-probability as JSON.
pub fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { LOGPROB_MIN }
}
