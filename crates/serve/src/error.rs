//! The one error of the server, and its shapes.
//!
//! Every failure is made here, with a status, a kind and a sentence. OpenAI's shape is the default; a dialect with another
//! one replaces the body on the way out (`wire::extract::errors_as`), for which the error travels with the response.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tangelo_engine::Error as EngineError;
use tangelo_engine::scheduler::Refused;

/// How long a client is asked to wait when too many are waiting already.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What went wrong, for a client.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// One sentence: what was expected, what was found, what to do.
    pub message: String,
    /// The field that is to blame, as `messages[0].content`.
    pub param: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// The request is wrong; `param` names the field.
    pub fn invalid(param: Option<String>, message: impl Into<String>) -> ApiError {
        ApiError { param, ..ApiError::with_status(StatusCode::BAD_REQUEST, message) }
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::with_status(StatusCode::NOT_FOUND, message)
    }

    /// The server is to blame.
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::with_status(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// An error with any status.
    pub fn with_status(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), param: None, retry_after: None }
    }

    /// The word for the kind of error, in OpenAI's and Anthropic's vocabulary.
    pub fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            status if status.is_server_error() => "api_error",
            _ => "invalid_request_error",
        }
    }

    /// The body in OpenAI's shape.
    pub fn openai(&self) -> Value {
        json!({
            "error": {
                "message": self.message,
                "type": self.kind(),
                "param": self.param,
                "code": self.status.as_u16().to_string(),
            }
        })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.openai())).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = HeaderValue::from(wait.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        match refused {
            Refused::QueueFull { .. } => ApiError {
                retry_after: Some(RETRY_AFTER),
                ..ApiError::with_status(StatusCode::TOO_MANY_REQUESTS, refused.to_string())
            },
            Refused::Impossible(error) => error.into(),
            _ => ApiError {
                retry_after: Some(RETRY_AFTER),
                ..ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, refused.to_string())
            },
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> ApiError {
        let message = match &error {
            // Where the server keeps its files is nobody's business.
            EngineError::StateFile { problem, .. } => problem.to_string(),
            EngineError::Io { action, cause, .. } => {
                format!("a file of the server cannot be {action}: {cause}")
            }
            other => other.to_string(),
        };
        match error {
            EngineError::PromptTooLong { .. }
            | EngineError::ContextTooLong { .. }
            | EngineError::NotEnoughMemory { .. }
            | EngineError::EmptyPrompt
            | EngineError::TooManyAnswers { .. }
            | EngineError::Parameter { .. }
            | EngineError::NoCandidates
            | EngineError::StateFile { .. }
            | EngineError::Model(tangelo_model::Error::Token { .. }) => ApiError::invalid(None, message),
            EngineError::Cancelled => ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, message),
            _ => ApiError::internal(message),
        }
    }
}

impl From<tangelo_chat::Error> for ApiError {
    fn from(error: tangelo_chat::Error) -> ApiError {
        let param = match error {
            tangelo_chat::Error::Tool { .. } => "tools",
            _ => "messages",
        };
        ApiError::invalid(Some(param.to_owned()), error.to_string())
    }
}
