//! `GET /openapi.json`: what this server takes and gives, in OpenAPI 3.1.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;

/// The document, but for what depends on the model.
const DOCUMENT: &str = include_str!("../../openapi.json");

/// The one route.
pub fn routes() -> Router<App> {
    Router::new().route("/openapi.json", get(document))
}

async fn document(State(app): State<App>) -> Result<Response, ApiError> {
    let mut document: Value =
        serde_json::from_str(DOCUMENT).map_err(|error| ApiError::internal(error.to_string()))?;
    document["components"]["schemas"]["TokenId"]["maximum"] = app.model().vocabulary.saturating_sub(1).into();
    Ok(Json(document).into_response())
}
