//! What Ollama's dialect says about the model and its personas.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tangelo_formats::template::rfc3339;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::wire::extract::Body;
use crate::wire::fields::Fields;
use crate::wire::json::with;

/// `GET /api/version`: the version of this server, not of an Ollama.
pub async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /api/tags`: all names that a request may use as its model.
pub async fn tags(State(app): State<App>, _: Caller) -> Json<Value> {
    let models = app.model_names().iter().map(|name| entry(&app, name)).collect::<Vec<_>>();
    Json(json!({ "models": models }))
}

/// `GET /api/ps`: the one model, which stays loaded.
pub async fn ps(State(app): State<App>, _: Caller) -> Json<Value> {
    let facts = app.model();
    let running = json!({
        // The last second that a date can name: the model is not unloaded.
        "expires_at": rfc3339(i64::MAX),
        "size_vram": facts.device_bytes,
        "context_length": facts.context_tokens,
    });
    Json(json!({"models": [with(entry(&app, &facts.name), running)]}))
}

/// `POST /api/show`: one model.
pub async fn show(State(app): State<App>, _: Caller, Body(body): Body) -> Result<Json<Value>, ApiError> {
    let fields = Fields::of_body(&body);
    let name = match fields.text("model")? {
        Some(name) => name,
        // What older clients send.
        None => fields.text("name")?.ok_or_else(|| fields.expected("model", "a string"))?,
    };
    let facts = app.model_for(Some(name))?;
    let mut capabilities = vec!["completion"];
    if facts.has_tools {
        capabilities.push("tools");
    }
    if facts.has_thinking {
        capabilities.push("thinking");
    }
    Ok(Json(json!({
        "modified_at": rfc3339(facts.created_unix_s),
        "details": details(&app),
        "template": facts.template,
        "parameters": "",
        "modelfile": "",
        "capabilities": capabilities,
        "model_info": {
            "general.architecture": facts.architecture,
            "general.parameter_count": facts.parameters,
            format!("{}.context_length", facts.architecture): facts.context_tokens,
            format!("{}.embedding_length", facts.architecture): facts.width,
            format!("{}.block_count", facts.architecture): facts.layers,
        },
    })))
}

fn entry(app: &App, name: &str) -> Value {
    let facts = app.model();
    json!({
        "name": name,
        "model": name,
        "modified_at": rfc3339(facts.created_unix_s),
        "size": facts.weight_bytes,
        "digest": facts.identity,
        "details": details(app),
    })
}

fn details(app: &App) -> Value {
    let facts = app.model();
    json!({
        "parent_model": "",
        "format": facts.container,
        "family": facts.architecture,
        "families": [facts.architecture],
        "parameter_size": in_words(facts.parameters),
        "quantization_level": facts.dtype,
    })
}

/// A number of parameters as model names have it: `3.97B`, `30.0M`.
fn in_words(parameters: u64) -> String {
    let number = parameters as f64;
    match parameters {
        0..1_000_000 => format!("{:.2}K", number / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}M", number / 1e6),
        _ => format!("{:.2}B", number / 1e9),
    }
}
