//! `/v1/responses`: answers as items, which the server can remember.
//!
//! `previous_response_id` names the conversation to go on with. Its tokens lead to the state that the model had at the
//! end of it, so such a request costs its new tokens only.

mod input;
mod output;
mod store;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use tangelo_chat::{Conversation, Message, Role};
use tangelo_engine::Owner;

use self::input::Asked;
use self::output::Builder;
use self::store::{Store, Stored};
use crate::answer::Piece;
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::request::Input;
use crate::wire::extract::Body;
use crate::wire::fields::Fields;
use crate::wire::sse::{self, Out, Writer};

/// The routes, with a store of their own.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/responses", post(create))
        .route("/v1/responses/{id}", get(retrieve).delete(delete))
        .layer(Extension(Arc::new(Store::default())))
}

/// A response in the making, and where it goes when it is made.
struct Making {
    builder: Builder,
    /// The conversation before this turn.
    turns: Vec<Arc<str>>,
    /// What this turn adds to it, but for the answer.
    messages: Vec<Message>,
    /// `None`: it is not kept.
    store: Option<(Arc<Store>, Owner)>,
}

impl Making {
    /// Keeps the response, unless it failed.
    fn keep(self) {
        let Some((store, owner)) = self.store.filter(|_| self.builder.error().is_none()) else { return };
        let (mut turns, mut messages) = (self.turns, self.messages);
        messages.push(self.builder.message().clone());
        // Every message can be written.
        let Ok(turn) = serde_json::to_string(&messages) else { return };
        turns.push(turn.into());
        let response = self.builder.response().to_string().into();
        store.insert(owner, self.builder.id(), Stored { response, turns });
    }
}

async fn create(
    State(app): State<App>,
    Extension(store): Extension<Arc<Store>>,
    caller: Caller,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let asked = input::read(&Fields::of_body(&body))?;
    let turns = turns_before(&store, caller.owner, asked.previous.as_deref())?;
    let Asked { mut request, instructions, messages, tools, is_stored, is_stream, echo, .. } = asked;
    let mut all: Vec<Message> =
        instructions.into_iter().map(|text| Message::new(Role::System, text)).collect();
    for turn in &turns {
        all.extend(messages_of(turn)?);
    }
    all.extend(messages.iter().cloned());
    request.input = Input::Chat(Conversation { messages: all, tools });
    let mut answer = app.ask(&caller, request).await?;
    let builder = Builder::new(answer.facts().clone(), echo);
    let store = is_stored.then_some((store, caller.owner));
    let mut making = Making { builder, turns, messages, store };
    if is_stream {
        return Ok(sse::respond(sse::pieces(answer), Events { making: Some(making), is_begun: false }));
    }
    while let Some(piece) = answer.next().await {
        making.builder.push(piece);
    }
    if let Some(error) = making.builder.error() {
        return Err(error.clone());
    }
    let response = making.builder.response();
    making.keep();
    Ok(Json(response).into_response())
}

/// The conversation of the response that a request follows.
fn turns_before(store: &Store, owner: Owner, previous: Option<&str>) -> Result<Vec<Arc<str>>, ApiError> {
    let Some(id) = previous else { return Ok(Vec::new()) };
    Ok(store.get(owner, id).ok_or_else(|| unknown(id))?.turns)
}

fn messages_of(turn: &str) -> Result<Vec<Message>, ApiError> {
    let broken = |_| ApiError::internal("the conversation was kept in a form that cannot be read");
    serde_json::from_str(turn).map_err(broken)
}

fn unknown(id: &str) -> ApiError {
    let message = format!(
        "there is no response {id:?}; it was never stored, was too long to keep, was deleted, or had to make room"
    );
    ApiError::not_found(message)
}

async fn retrieve(
    Extension(store): Extension<Arc<Store>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let stored = store.get(caller.owner, &id).ok_or_else(|| unknown(&id))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], stored.response.to_string()).into_response())
}

async fn delete(
    Extension(store): Extension<Arc<Store>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if store.remove(caller.owner, &id) {
        Ok(Json(json!({"id": id, "object": "response", "deleted": true})))
    } else {
        Err(unknown(&id))
    }
}

/// Writes the stream.
struct Events {
    /// Taken at the end.
    making: Option<Making>,
    is_begun: bool,
}

impl Writer for Events {
    fn piece(&mut self, piece: Piece, out: &mut Out) {
        let Some(making) = &mut self.making else { return };
        let mut events = if self.is_begun { Vec::new() } else { making.builder.begin() };
        self.is_begun = true;
        events.extend(making.builder.push(piece));
        send(&events, out);
    }

    fn end(&mut self, out: &mut Out) {
        let Some(mut making) = self.making.take() else { return };
        send(&[making.builder.end()], out);
        making.keep();
    }
}

fn send(events: &[Value], out: &mut Out) {
    for event in events {
        out.event(event.get("type").and_then(Value::as_str).unwrap_or("error"), event);
    }
}
