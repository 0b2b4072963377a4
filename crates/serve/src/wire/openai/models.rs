//! `GET /v1/models`: the model and its personas.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;

/// All names that a request may use as its model.
pub async fn list(State(app): State<App>, _: Caller) -> Json<Value> {
    let models: Vec<Value> = app.model_names().iter().map(|name| model(&app, name)).collect();
    Json(json!({"object": "list", "data": models}))
}

/// One of them.
pub async fn retrieve(
    State(app): State<App>,
    _: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    app.model_for(Some(&name))?;
    Ok(Json(model(&app, &name)))
}

fn model(app: &App, name: &str) -> Value {
    let facts = app.model();
    json!({
        "id": name,
        "object": "model",
        "created": facts.created_unix_s,
        "owned_by": "tangelo",
        "context_length": facts.context_tokens,
    })
}
