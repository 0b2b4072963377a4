//! State files out of the server and into it, in pieces: they may be larger than memory should hold.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tangelo_engine::Reason;
use tokio::sync::mpsc;

use super::routes::object;
use super::store::{New, NewFile, check_name};
use crate::app::{App, blocking, now_unix_s};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::wire::extract::BodyTime;

/// Bytes read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that may wait for the slower side.
const PIECES_WAITING: usize = 4;

/// `GET /v1/states/{name}/export`: the state file.
pub async fn export(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let wanted = name.clone();
    let (entry, path) = app
        .with_store(move |store| {
            let entry = store.get(caller.owner, &wanted)?;
            let path = store.file(caller.owner, &entry);
            Ok((entry, path))
        })
        .await?;
    let file = blocking(move || File::open(path)).await?.map_err(|error| unreadable(&name, &error))?;
    let (sender, pieces) = mpsc::channel(PIECES_WAITING);
    tokio::task::spawn_blocking(move || read_pieces(file, &sender));
    let body = stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}.state\""));
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(entry.bytes));
    if let Ok(disposition) = disposition {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

fn unreadable(name: &str, error: &io::Error) -> ApiError {
    ApiError::internal(format!("the file of the state {name:?} cannot be read: {error}"))
}

/// Ends when the file does, or when nobody takes the pieces any more.
fn read_pieces(mut file: File, sender: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let read = match file.read(&mut piece) {
            Ok(0) => return,
            Ok(len) => {
                piece.truncate(len);
                Ok(Bytes::from(piece))
            }
            Err(error) => Err(error),
        };
        let is_over = read.is_err();
        if sender.blocking_send(read).is_err() || is_over {
            return;
        }
    }
}

/// `PUT /v1/states/{name}`: a state file gets a name, after it has been read over.
pub async fn import(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Extension(time): Extension<BodyTime>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let owner = caller.owner;
    let checked = name.clone();
    let (file, bytes_max) = app
        .with_store(move |store| {
            check_name(&checked)?;
            Ok((store.new_file(owner)?, store.bytes_left()))
        })
        .await?;
    let file = receive(body, file, bytes_max, time).await?;
    let path: PathBuf = file.path().to_path_buf();
    let restored = app.restore(&path).await?;
    let tokens = restored.sequence.tokens().to_vec();
    let context = app.model().context_tokens;
    if tokens.len() >= context {
        let prompt = tokens.len();
        return Err(tangelo_engine::Error::PromptTooLong { prompt, context }.into());
    }
    let kept = restored.sequence.into_kept();
    app.worker().call(move |scheduler| scheduler.tree().insert(owner, kept, Reason::Cut)).await?;
    let template = restored.template;
    let new = New { file, created_unix_s: now_unix_s(), parent: None, template, conversation: None, tokens };
    Ok(Json(object(&app.with_store(move |store| store.add(owner, &name, new, true)).await?)))
}

/// Writes a body to a file.
async fn receive(
    body: Body,
    file: NewFile,
    bytes_max: u64,
    BodyTime(time): BodyTime,
) -> Result<NewFile, ApiError> {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(PIECES_WAITING);
    let written = tokio::task::spawn_blocking(move || -> io::Result<NewFile> {
        let mut out = File::create(file.path())?;
        while let Some(piece) = pieces.blocking_recv() {
            out.write_all(&piece)?;
        }
        out.sync_all()?;
        Ok(file)
    });
    let mut body = body.into_data_stream();
    let mut left = bytes_max;
    let late =
        |_| ApiError::with_status(StatusCode::REQUEST_TIMEOUT, "the rest of the state file did not come");
    while let Some(piece) = tokio::time::timeout(time, body.next()).await.map_err(late)? {
        let broken = |_| ApiError::invalid(None, "the state file did not arrive whole");
        let piece = piece.map_err(broken)?;
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| {
            let message =
                format!("the state has more than the {bytes_max} bytes that are left of the disk budget");
            ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, message)
        })?;
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    let failed =
        |error: &dyn std::fmt::Display| ApiError::internal(format!("the state cannot be written: {error}"));
    written.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}
