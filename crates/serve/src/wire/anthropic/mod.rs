//! Anthropic's dialect: `POST /v1/messages` and `POST /v1/messages/count_tokens`.

mod input;
mod output;

use axum::extract::State;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use self::output::Events;
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::wire::collect;
use crate::wire::extract::{self, Body};
use crate::wire::fields::Fields;
use crate::wire::sse;

/// The routes of this dialect, errors included.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/messages", post(create))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .layer(map_response(|response| extract::errors_as(response, output::error)))
}

async fn create(State(app): State<App>, caller: Caller, Body(body): Body) -> Result<Response, ApiError> {
    let fields = Fields::of_body(&body);
    let is_stream = fields.flag("stream")?.unwrap_or(false);
    let answer = app.ask(&caller, input::request(&fields)?).await?;
    let facts = answer.facts().clone();
    if is_stream {
        return Ok(sse::respond(sse::pieces(answer), Events::new(facts)));
    }
    let answers = collect::collect(sse::pieces(answer)).await?;
    Ok(Json(output::message(&facts, &answers)).into_response())
}

async fn count_tokens(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<Value>, ApiError> {
    let request = input::conversation(&Fields::of_body(&body))?;
    let count = app.count_tokens(&caller, request).await?;
    Ok(Json(json!({ "input_tokens": count })))
}
