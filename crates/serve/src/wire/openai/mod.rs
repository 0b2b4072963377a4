//! OpenAI's dialect: chat completions, completions, responses, embeddings, models.

pub mod chat;
pub mod completions;
mod embeddings;
mod messages;
mod models;
pub mod options;
mod responses;
pub mod write;

use axum::Router;
use axum::routing::{get, post};

use crate::app::App;

/// The routes of this dialect.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/embeddings", post(embeddings::create))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{name}", get(models::retrieve))
        .merge(responses::routes())
}
