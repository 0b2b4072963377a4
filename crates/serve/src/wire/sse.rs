//! Answers written while they are made: server-sent events, or JSON lines.
//!
//! A dialect says with a [`Writer`] what each piece of an answer amounts to; [`respond`] pulls the pieces and sends
//! the text. The answer lives inside the body of the response: when the client leaves, the body is dropped, and the
//! answer with it.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::Value;

use crate::answer::{AnswerStream, Piece};

/// How long nothing is sent before a sign of life is. Proxies commonly give up after 30 or 60 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Text that is about to be sent.
#[derive(Debug, Default)]
pub struct Out(String);

impl Out {
    /// A server-sent event without a name.
    pub fn data(&mut self, data: &Value) {
        self.raw("data: ", &data.to_string());
        self.0.push('\n');
    }

    /// A server-sent event with a name.
    pub fn event(&mut self, name: &str, data: &Value) {
        self.raw("event: ", name);
        self.data(data);
    }

    /// The end of a stream in OpenAI's fashion.
    pub fn done(&mut self) {
        self.0.push_str("data: [DONE]\n\n");
    }

    /// A comment, which readers of server-sent events drop.
    pub fn comment(&mut self, text: &str) {
        self.raw(": ", text);
        self.0.push('\n');
    }

    /// A line of JSON.
    pub fn line(&mut self, value: &Value) {
        self.raw("", &value.to_string());
    }

    /// The text so far.
    #[cfg(test)]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn raw(&mut self, prefix: &str, text: &str) {
        self.0.push_str(prefix);
        self.0.push_str(text);
        self.0.push('\n');
    }
}

/// How a dialect writes an answer as it arrives.
pub trait Writer: Send + 'static {
    /// The `Content-Type` of the whole.
    const CONTENT_TYPE: &'static str = "text/event-stream";

    /// Writes what a piece amounts to; may be nothing.
    fn piece(&mut self, piece: Piece, out: &mut Out);

    /// Writes what comes after the last piece.
    fn end(&mut self, out: &mut Out);

    /// Writes a sign of life.
    fn keep_alive(&mut self, out: &mut Out) {
        out.comment("still working");
    }
}

/// The pieces of an answer as a stream.
pub fn pieces(answer: AnswerStream) -> impl Stream<Item = Piece> + Send {
    stream::unfold(answer, |mut answer| async { Some((answer.next().await?, answer)) })
}

/// The response that sends pieces as they come.
pub fn respond<W: Writer>(pieces: impl Stream<Item = Piece> + Send + 'static, writer: W) -> Response {
    let body = stream::unfold(Some((Box::pin(pieces), writer)), |state| async {
        let (mut pieces, mut writer) = state?;
        let mut out = Out::default();
        let mut is_over = false;
        while out.0.is_empty() && !is_over {
            match tokio::time::timeout(KEEP_ALIVE, pieces.next()).await {
                Ok(Some(piece)) => writer.piece(piece, &mut out),
                Ok(None) => {
                    writer.end(&mut out);
                    is_over = true;
                }
                Err(_) => writer.keep_alive(&mut out),
            }
        }
        let next = (!is_over).then_some((pieces, writer));
        Some((Ok::<_, Infallible>(out.0), next))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(W::CONTENT_TYPE)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // Asks proxies in the way of nginx not to collect the stream.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(body)).into_response()
}
