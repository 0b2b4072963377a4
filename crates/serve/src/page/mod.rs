//! The page at `/`: a chat in the browser, as files in the program.
//!
//! No build step, no framework, nothing from elsewhere: the modules next to this file are served as they are, and the
//! page is a client of the same API as everybody's (`main.js` is where to enter). The policy it is served with makes
//! the browser refuse scripts, styles and connections of any other origin, and text that is turned to HTML.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

/// What the page may do. `require-trusted-types-for` with no type allowed is a ban on `innerHTML` and its like.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// One file of the page.
#[derive(Debug, Clone, Copy)]
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

/// Writes the entry of a file that is served under `/page/`.
macro_rules! file {
    ($name:literal, $kind:expr) => {
        File { path: concat!("/page/", $name), kind: $kind, text: include_str!($name) }
    };
}

const FILES: [File; 18] = [
    File { path: "/", kind: HTML, text: include_str!("index.html") },
    file!("style.css", CSS),
    file!("icon.svg", SVG),
    file!("answer.js", JS),
    file!("api.js", JS),
    file!("article.js", JS),
    file!("chats.js", JS),
    file!("dom.js", JS),
    file!("inline.js", JS),
    file!("main.js", JS),
    file!("markdown.js", JS),
    file!("numbers.js", JS),
    file!("panel.js", JS),
    file!("prose.js", JS),
    file!("settings.js", JS),
    file!("sse.js", JS),
    file!("tree.js", JS),
    file!("view.js", JS),
];

/// The routes. They ask for no key: the files are no secret, and the page has to be there for a key to be typed in.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, file| {
        let tag = tag(file.text);
        router.route(file.path, get(move |headers: HeaderMap| async move { respond(file, &tag, &headers) }))
    })
}

/// A tag of the content, which browsers send back to ask whether they have it already.
fn tag(text: &str) -> String {
    let hash = Sha256::digest(text);
    let hex: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

fn respond(file: File, tag: &str, request: &HeaderMap) -> Response {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, file.kind);
    set(header::ETAG, tag);
    // To be asked for again each time, so that a page never meets modules of another version.
    set(header::CACHE_CONTROL, "no-cache");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    if is_known(tag, request) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, file.text).into_response()
}

/// Whether `If-None-Match` lists the tag (RFC 9110, section 13.1.2; weak tags count).
fn is_known(tag: &str, request: &HeaderMap) -> bool {
    let lists = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows each `before` up to the next `after`.
    fn between<'a>(text: &'a str, before: &'a str, after: char) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).filter_map(move |rest| rest.split(after).next())
    }

    #[test]
    fn every_file_that_is_asked_for_is_there_and_none_is_left_over() {
        let html = FILES[0].text;
        let mut asked: Vec<String> = vec!["/".to_owned()];
        asked.extend(between(html, "\"/page/", '"').map(|name| format!("/page/{name}")));
        for file in FILES.iter().filter(|file| file.kind == JS) {
            asked.extend(between(file.text, "from './", '\'').map(|name| format!("/page/{name}")));
        }
        for file in &FILES {
            assert!(asked.iter().any(|path| path == file.path), "nobody asks for {}", file.path);
        }
        for path in &asked {
            assert!(FILES.iter().any(|file| file.path == path), "there is no {path}");
        }
    }

    #[test]
    fn every_element_that_is_looked_up_is_there() {
        let ids: Vec<&str> = between(FILES[0].text, " id=\"", '"').collect();
        for file in FILES.iter().filter(|file| file.kind == JS) {
            for id in between(file.text, "getElementById('", '\'') {
                assert!(ids.contains(&id), "{} looks for #{id}", file.path);
            }
        }
    }

    #[test]
    fn text_never_becomes_html() {
        for file in FILES.iter().filter(|file| file.kind == JS) {
            for way in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
            {
                assert!(!file.text.contains(way), "{} has {way}", file.path);
            }
        }
    }

    #[test]
    fn a_browser_that_has_a_file_is_told_so() {
        let file = FILES[0];
        let tag = tag(file.text);
        let status = |value: Option<&str>| {
            let value = value.map(|value| HeaderValue::from_str(value).expect("a value"));
            let headers = value.into_iter().map(|value| (header::IF_NONE_MATCH, value)).collect();
            respond(file, &tag, &headers).status()
        };
        for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            assert_eq!(status(Some(&known)), StatusCode::NOT_MODIFIED, "{known}");
        }
        for unknown in [None, Some("\"other\""), Some("")] {
            assert_eq!(status(unknown), StatusCode::OK, "{unknown:?}");
        }
    }

    #[test]
    fn every_file_comes_with_the_policy_and_its_type() {
        for file in FILES {
            let response = respond(file, &tag(file.text), &HeaderMap::new());
            let headers = response.headers();
            assert_eq!(headers[header::CONTENT_TYPE], file.kind);
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
            assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
        }
    }
}
