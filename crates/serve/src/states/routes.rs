//! The routes of `/v1/states`.

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::store::Summary;
use super::transfer;
use crate::app::{App, now_unix_s};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::request::Request;
use crate::router::new_id;
use crate::wire::extract::Body;
use crate::wire::fields::Fields;
use crate::wire::openai::{chat, completions, options};

/// The routes. An imported state may be as large as the disk budget allows, and not only as a request may.
pub fn routes() -> Router<App> {
    let one = get(retrieve).patch(rename).delete(delete);
    let import = axum::routing::put(transfer::import).layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/v1/states", get(list).post(create))
        .route("/v1/states/{name}", one.merge(import))
        .route("/v1/states/{name}/fork", post(fork))
        .route("/v1/states/{name}/export", get(transfer::export))
}

/// Computes the state after a conversation (`messages`, `tools`, … as in chat completions) or a text or tokens
/// (`prompt`), and gives it a name.
async fn create(State(app): State<App>, caller: Caller, Body(body): Body) -> Result<Json<Value>, ApiError> {
    let fields = Fields::of_body(&body);
    let name = new_name(&fields)?;
    if fields.get("from_response").is_some() {
        return Err(fields.refused("from_response", "is not supported; send the conversation as `messages`"));
    }
    let origin = app.ingredients(&caller, prompt_of(&fields)?).await?;
    Ok(Json(object(&app.keep_as(caller.owner, &name, origin).await?)))
}

/// The request whose prompt is meant: that of a chat completion if there are `messages`, else that of a completion.
///
/// # Errors
/// It is malformed.
pub fn prompt_of(fields: &Fields<'_>) -> Result<Request, ApiError> {
    if fields.get("messages").is_some() {
        return chat::request(fields);
    }
    let mut inputs = completions::inputs(fields, "prompt", 1)?;
    let input = inputs.pop().ok_or_else(|| fields.expected("prompt", "a prompt"))?;
    let mut request = Request::new(input);
    options::read_common(fields, &mut request)?;
    Ok(request)
}

async fn list(State(app): State<App>, caller: Caller) -> Json<Value> {
    let states = app.states().map(|store| store.list(caller.owner)).unwrap_or_default();
    Json(json!({"object": "list", "data": states.iter().map(object).collect::<Vec<_>>()}))
}

async fn retrieve(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let wanted = name.clone();
    let entry = app.with_store(move |store| store.get(caller.owner, &wanted)).await?;
    let mut state = object(&entry.summary(&name));
    if let Some(fields) = state.as_object_mut() {
        fields.insert("conversation".to_owned(), json!(entry.conversation));
    }
    Ok(Json(state))
}

async fn fork(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Json<Value>, ApiError> {
    let new_name = new_name(&Fields::of_body(&body))?;
    let fork = move |store: &super::Store| store.fork(caller.owner, &name, &new_name, now_unix_s());
    Ok(Json(object(&app.with_store(fork).await?)))
}

async fn rename(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Json<Value>, ApiError> {
    let new_name = Fields::of_body(&body).required_text("name")?.to_owned();
    let rename = move |store: &super::Store| store.rename(caller.owner, &name, &new_name);
    Ok(Json(object(&app.with_store(rename).await?)))
}

async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let deleted = json!({"name": name, "object": "state", "deleted": true});
    app.with_store(move |store| store.remove(caller.owner, &name)).await?;
    Ok(Json(deleted))
}

/// The name that the client gives, or one that nobody has.
fn new_name(fields: &Fields<'_>) -> Result<String, ApiError> {
    Ok(fields.text("name")?.map_or_else(|| format!("state-{}", new_id()), str::to_owned))
}

/// A state as clients see it.
pub(super) fn object(summary: &Summary) -> Value {
    json!({
        "object": "state",
        "name": summary.name,
        "created": summary.created_unix_s,
        "tokens": summary.tokens,
        "messages": summary.messages,
        "bytes": summary.bytes,
        "parent": summary.parent,
    })
}
