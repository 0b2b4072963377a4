//! Ollama's dialect: `/api/chat`, `/api/generate`, and what there is to know about the model.

mod info;
mod input;
mod output;

use axum::extract::State;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use self::input::Asked;
use self::output::{Endpoint, Lines};
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::wire::extract::{self, Body};
use crate::wire::fields::Fields;
use crate::wire::sse;

/// The routes of this dialect, errors included.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/api/chat", post(chat))
        .route("/api/generate", post(generate))
        .route("/api/tags", get(info::tags))
        .route("/api/ps", get(info::ps))
        .route("/api/show", post(info::show))
        .route("/api/version", get(info::version))
        .layer(map_response(|response| extract::errors_as(response, output::error)))
}

async fn chat(State(app): State<App>, caller: Caller, Body(body): Body) -> Result<Response, ApiError> {
    let asked = input::chat(&Fields::of_body(&body))?;
    answer(&app, &caller, asked, Endpoint::Chat).await
}

async fn generate(State(app): State<App>, caller: Caller, Body(body): Body) -> Result<Response, ApiError> {
    let asked = input::generate(&Fields::of_body(&body))?;
    answer(&app, &caller, asked, Endpoint::Generate).await
}

async fn answer(
    app: &App,
    caller: &Caller,
    (request, is_stream): Asked,
    endpoint: Endpoint,
) -> Result<Response, ApiError> {
    let Some(request) = request else {
        return Ok(Json(output::loaded(&app.model().name, endpoint)).into_response());
    };
    let answer = app.ask(caller, request).await?;
    let lines = Lines::new(answer.facts(), endpoint);
    if is_stream {
        return Ok(sse::respond(sse::pieces(answer), lines));
    }
    Ok(Json(lines.whole(answer).await?).into_response())
}
