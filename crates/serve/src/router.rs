//! All routes, and what holds for every request: sizes, origins, ids, and answers to what does not exist.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
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
    /// Names by which the server may be called, beside its addresses and `localhost`; `None` for all. Without it, a page
    /// anywhere could give its own name this machine's address, and call as if it were the server's page.
    pub hosts: Option<Vec<String>>,
}

impl Default for Options {
    fn default() -> Options {
        let BodyTime(body_time) = BodyTime::default();
        Options { cors_origins: Vec::new(), body_bytes_max: 32 << 20, body_time, hosts: Some(Vec::new()) }
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
    let routes = match options.hosts.clone() {
        Some(hosts) => routes.layer(from_fn_with_state(Arc::<[String]>::from(hosts), check_host)),
        None => routes,
    };
    routes.layer(from_fn(with_id)).with_state(app)
}

/// Refuses requests that call the server by a name that is not its own.
async fn check_host(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    match host {
        Some(host) if !is_own(host, &hosts) => {
            let message = format!(
                "this server is not {host:?}: call it by its address, or start it with --allow-host and this name"
            );
            ApiError::with_status(StatusCode::FORBIDDEN, message).into_response()
        }
        // Browsers always say whom they call.
        _ => next.run(request).await,
    }
}

/// Whether a `Host` header is an address, this machine, or one of these names.
fn is_own(host: &str, names: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_local = |name: &str| name == "localhost" || name.ends_with(".localhost");
    bare.parse::<IpAddr>().is_ok()
        || is_local(&name.to_ascii_lowercase())
        || names.iter().any(|own| own.eq_ignore_ascii_case(name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_own_names_are_told_from_others() {
        let names = ["models.example".to_owned()];
        for own in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "192.168.1.7",
            "localhost:8080",
            "LOCALHOST",
            "a.localhost",
            "Models.Example:443",
        ] {
            assert!(is_own(own, &names), "{own}");
        }
        for other in [
            "evil.example",
            "127.0.0.1.evil.example:8080",
            "localhost.evil.example",
            "notlocalhost",
            "",
            "a b",
        ] {
            assert!(!is_own(other, &names), "{other}");
        }
    }
}
