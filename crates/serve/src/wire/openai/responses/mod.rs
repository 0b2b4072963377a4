//! `/v1/responses`: answers as items, which the server can remember.
//!
//! `previous_response_id` names the conversation to go on with. Its tokens lead to the state that the model had at the
//! end of it, so such a request costs its new tokens only.

mod input;
mod output;
mod store;

use std::sync::Arc;

use axum::extract::{Path, State};
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
    /// The conversation before the answer.
    messages: Vec<Arc<Message>>,
    /// `None`: it is not kept.
    store: Option<(Arc<Store>, Owner)>,
}

impl Making {
    /// Keeps the response, unless it failed.
    fn keep(self) {
        let Some((store, owner)) = self.store.filter(|_| self.builder.error().is_none()) else { return };
        let mut messages = self.messages;
        messages.push(Arc::new(self.builder.message().clone()));
        store.insert(owner, self.builder.id(), Stored { response: self.builder.response(), messages });
    }
}

async fn create(
    State(app): State<App>,
    Extension(store): Extension<Arc<Store>>,
    caller: Caller,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let asked = input::read(&Fields::of_body(&body))?;
    let messages = history(&store, caller.owner, &asked)?;
    let Asked { mut request, instructions, tools, is_stored, is_stream, echo, .. } = asked;
    let system = instructions.map(|text| Message::new(Role::System, text));
    let all = system.into_iter().chain(messages.iter().map(|message| Message::clone(message)));
    request.input = Input::Chat(Conversation { messages: all.collect(), tools });
    let mut answer = app.ask(&caller, request).await?;
    let builder = Builder::new(answer.facts().clone(), echo);
    let mut making = Making { builder, messages, store: is_stored.then_some((store, caller.owner)) };
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

/// The messages of the response that this one follows, and the new ones.
fn history(store: &Store, owner: Owner, asked: &Asked) -> Result<Vec<Arc<Message>>, ApiError> {
    let mut messages = match &asked.previous {
        None => Vec::new(),
        Some(id) => store.get(owner, id).ok_or_else(|| unknown(id))?.messages,
    };
    messages.extend(asked.messages.iter().cloned().map(Arc::new));
    Ok(messages)
}

fn unknown(id: &str) -> ApiError {
    let message =
        format!("there is no response {id:?}; it was never stored, was deleted, or had to make room");
    ApiError::not_found(message)
}

async fn retrieve(
    Extension(store): Extension<Arc<Store>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    store.get(caller.owner, &id).map(|stored| Json(stored.response)).ok_or_else(|| unknown(&id))
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
