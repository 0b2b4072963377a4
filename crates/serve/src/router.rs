//! All routes, and what holds for every request: sizes, origins, ids, and answers to what does not exist.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Extension, Router};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::app::App;
use crate::error::ApiError;
use crate::wire::extract::BodyTime;
use crate::{admin, explain, page, personas, states, wire};

/// Names the request in logs on both sides.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most bytes of an id that a client gives.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What holds for every request.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pages of which origins may call from a browser, such as `https://example.org`, or `*` for all. Without any, the
    /// server's own page only.
    pub cors_origins: Vec<String>,
    /// Most bytes of a body, but for imported states.
    pub body_bytes_max: usize,
    /// In what time a body must have arrived, and each piece of an imported state.
    pub body_time: Duration,
}

impl Default for Options {
    fn default() -> Options {
        let BodyTime(body_time) = BodyTime::default();
        Options { cors_origins: Vec::new(), body_bytes_max: 32 << 20, body_time }
    }
}

/// The whole server as one service.
pub fn router(app: App, options: &Options) -> Router {
    let routes = wire::routes()
        .merge(states::routes())
        .merge(explain::routes())
        .merge(personas::routes())
        .merge(admin::routes())
        .merge(page::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(options.body_bytes_max))
        .layer(Extension(BodyTime(options.body_time)));
    let routes = match cors(&options.cors_origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.layer(from_fn(with_id)).with_state(app)
}

async fn unknown_path(request: Request) -> ApiError {
    ApiError::not_found(format!("there is no {}; /openapi.json lists what there is", request.uri().path()))
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::with_status(StatusCode::METHOD_NOT_ALLOWED, message)
}

/// `None` leaves browsers to their default, which is to keep pages of other origins out.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    (!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers([
                header::CONTENT_TYPE,
                header::AUTHORIZATION,
                HeaderName::from_static("x-api-key"),
            ])
            .expose_headers([REQUEST_ID, header::RETRY_AFTER])
    })
}

/// Gives the response an id: the client's, if it sent one, or a new one.
async fn with_id(request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).filter(|id| id.len() <= REQUEST_ID_BYTES_MAX).cloned();
    let id = given.or_else(|| HeaderValue::from_str(&new_id()).ok());
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// An id that no other request to any server has, as far as one can tell.
pub fn new_id() -> String {
    static RUN: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}{:08x}", *RUN, NEXT.fetch_add(1, Ordering::Relaxed))
}
