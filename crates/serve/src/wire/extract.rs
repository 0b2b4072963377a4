//! Bodies of requests, and errors in a dialect's own shape.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::error::ApiError;

/// In what time a body must have arrived, or the next piece of one without a limit to its size. An extension of requests.
#[derive(Debug, Clone, Copy)]
pub struct BodyTime(pub Duration);

impl Default for BodyTime {
    fn default() -> BodyTime {
        BodyTime(Duration::from_secs(60))
    }
}

/// A JSON object.
///
/// Its `Content-Type` need not say so, since many short examples forget it, unless a page in a browser sends it:
/// browsers ask a server for leave before they send it JSON, but not before they send it plain text.
#[derive(Debug)]
pub struct Body(pub Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if request.headers().contains_key(header::ORIGIN) && !is_json(request.headers()) {
            let message = "the body must be sent with `Content-Type: application/json`";
            return Err(ApiError::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let BodyTime(time) = request.extensions().get().copied().unwrap_or_default();
        let arriving = tokio::time::timeout(time, Bytes::from_request(request, state));
        let late = |_| {
            let message = format!("the body did not arrive within {} seconds", time.as_secs_f32());
            ApiError::with_status(StatusCode::REQUEST_TIMEOUT, message)
        };
        let bytes = arriving.await.map_err(late)?.map_err(|rejection| {
            let too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
            let message = if too_large {
                "the body is larger than this server accepts; send less, or raise its limit"
            } else {
                "the body did not arrive whole"
            };
            ApiError::with_status(rejection.status(), message)
        })?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(ApiError::invalid(None, "the body must be a JSON object")),
            Err(error) => Err(ApiError::invalid(None, format!("the body must be a JSON object: {error}"))),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Puts the error of a response into the shape that a dialect has for it. Headers and status stay.
pub async fn errors_as(response: Response, shape: fn(&ApiError) -> Value) -> Response {
    let Some(error) = response.extensions().get::<ApiError>() else { return response };
    let body = Json(shape(error)).into_response();
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body.into_body())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn read(
        headers: &[(header::HeaderName, &str)],
        body: &str,
    ) -> Result<Map<String, Value>, ApiError> {
        let mut request = Request::new(axum::body::Body::from(body.to_owned()));
        for (name, value) in headers {
            request.headers_mut().insert(name, value.parse().expect("a header"));
        }
        Body::from_request(request, &()).await.map(|Body(map)| map)
    }

    #[tokio::test]
    async fn a_page_must_say_that_it_sends_json_and_others_need_not() {
        let origin = (header::ORIGIN, "https://example.org");
        let plain = (header::CONTENT_TYPE, "text/plain");
        let json = (header::CONTENT_TYPE, "application/json; charset=utf-8");
        for headers in [vec![], vec![plain.clone()], vec![json.clone()], vec![origin.clone(), json]] {
            assert!(read(&headers, "{}").await.is_ok(), "{headers:?}");
        }
        for headers in [vec![origin.clone()], vec![origin, plain]] {
            let error = read(&headers, "{}").await.expect_err("refused");
            assert_eq!(error.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{headers:?}");
        }
    }

    #[tokio::test]
    async fn only_an_object_is_a_body() {
        for body in ["", "[]", "5", "{\"a\":", "{\"a\": \u{1}}", &"[".repeat(100_000)] {
            let error = read(&[], body).await.expect_err("no object");
            assert_eq!(error.status, StatusCode::BAD_REQUEST, "{body:.20}");
        }
        assert_eq!(read(&[], "{\"a\": 1}").await.expect("an object")["a"], 1);
    }

    #[tokio::test]
    async fn an_error_changes_its_shape_and_nothing_else() {
        let error = ApiError { retry_after: Some(Duration::from_secs(3)), ..ApiError::invalid(None, "no") };
        let response = errors_as(error.into_response(), |error| json!({ "error": error.message })).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
        let body = axum::body::to_bytes(response.into_body(), 1000).await.expect("a body");
        assert_eq!(&body[..], b"{\"error\":\"no\"}");
        let fine = errors_as("fine".into_response(), |_| json!({})).await;
        let body = axum::body::to_bytes(fine.into_body(), 1000).await.expect("a body");
        assert_eq!(&body[..], b"fine");
    }
}
