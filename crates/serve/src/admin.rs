//! What operators and tools ask: health, numbers, memory, tokens.

use std::fs;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::request::{Input, Request};
use crate::wire::extract::Body;
use crate::wire::fields::Fields;
use crate::wire::openai::{chat, completions};

/// The routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/memory", get(memory))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
}

/// Whether new work is taken. Asks for no key: it is for whoever watches over the program.
async fn health(State(app): State<App>) -> Response {
    if app.is_closing() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "shutting down"}))).into_response();
    }
    Json(json!({"status": "ok"})).into_response()
}

/// Numbers for Prometheus.
async fn metrics(State(app): State<App>, _: Caller) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics().text()).into_response()
}

/// Where the memory is.
async fn memory(State(app): State<App>, _: Caller) -> Json<Value> {
    let (stats, tree) = app.metrics().engine();
    let facts = app.model();
    let (named, named_bytes) = app.states().map_or((0, 0), |store| store.totals());
    Json(json!({
        "weights": {"bytes": facts.weight_bytes, "device_bytes": facts.device_bytes},
        "states": {
            "budget_bytes": app.state_bytes(),
            "active_bytes": stats.active_bytes,
            "kept": tree.states,
            "kept_bytes": tree.bytes,
            "kept_bytes_allowed": tree.allowed_bytes,
            "files": tree.files,
            "file_bytes": tree.file_bytes,
            "named": named,
            "named_bytes": named_bytes,
        },
        "resident_bytes": resident_bytes(),
    }))
}

/// Bytes of this process in memory, where the system says so.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The tokens of a text (`prompt`, or `content`) or of a conversation (`messages`, as in chat completions).
async fn tokenize(State(app): State<App>, caller: Caller, Body(body): Body) -> Result<Json<Value>, ApiError> {
    let fields = Fields::of_body(&body);
    let name = if fields.get("content").is_some() { "content" } else { "prompt" };
    let request = match fields.get("messages") {
        Some(_) => chat::request(&fields)?,
        None => Request::new(Input::Text(fields.required_text(name)?.to_owned())),
    };
    let tokens = app.prompt_tokens(&caller, request).await?;
    let context = app.model().context_tokens;
    Ok(Json(json!({"count": tokens.len(), "tokens": tokens, "max_model_len": context})))
}

/// The text of tokens.
async fn detokenize(State(app): State<App>, _: Caller, Body(body): Body) -> Result<Json<Value>, ApiError> {
    let fields = Fields::of_body(&body);
    if fields.get("tokens").is_none() {
        return Err(fields.expected("tokens", "a list of tokens"));
    }
    let tokens = fields.each("tokens", completions::token)?;
    app.model().check_tokens(&tokens, "tokens")?;
    let text = app.tokenizer().decode(&tokens, false);
    Ok(Json(json!({"prompt": text, "content": text})))
}
