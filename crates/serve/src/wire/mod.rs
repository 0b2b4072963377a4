//! The dialects that clients speak, one folder each.
//!
//! A dialect is a translation: a JSON body to a [`crate::request::Request`], and the pieces of the answer to JSON or to
//! a stream. What a request means for the model is decided elsewhere.

mod anthropic;
mod collect;
pub mod extract;
pub mod fields;
mod json;
mod ollama;
pub mod openai;
mod openapi;
mod sse;
#[cfg(test)]
mod testing;

use axum::Router;

use crate::app::App;

/// The routes of all dialects.
pub fn routes() -> Router<App> {
    Router::new()
        .merge(openai::routes())
        .merge(anthropic::routes())
        .merge(ollama::routes())
        .merge(openapi::routes())
}
