//! Talking to the hub: one HTTP agent, its errors as sentences, what a repository holds and what a file is.
//!
//! Redirects are followed by hand. The hub answers for a large file with a redirect to a store whose own
//! headers say nothing about the file, so what the hub said on the way must be kept; and the token must not
//! travel to another host.

use std::fmt;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hf_hub::api::RepoInfo;
use tangelo_core::limits::HUB_LISTING_BYTES_MAX;
use ureq::{Agent, Response};

use super::cache::{home, variable};
use super::id::{HubId, is_name, is_path, repository};

/// Where models come from unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection may stay silent.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Most redirects followed for one request.
const REDIRECTS_MAX: usize = 8;

/// A connection to the hub.
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What a repository holds at one commit.
pub struct Listing {
    /// The commit.
    pub commit: String,
    /// Paths of the files; those that could lead out of a folder are left out.
    pub files: Vec<String>,
}

/// A file on the hub, as its headers describe it.
#[derive(Debug, Default)]
pub struct Remote {
    /// Where it is.
    pub url: String,
    /// The commit it was found at.
    pub commit: Option<String>,
    /// Name of its contents: the SHA-256 of a large file.
    pub etag: String,
    /// Bytes, if the hub says so.
    pub size: Option<u64>,
}

/// A request that brought no answer to use.
#[derive(Debug)]
pub enum RequestError {
    /// The hub answered with an error.
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// There was no answer.
    Network {
        /// What was asked for.
        url: String,
        /// Why, in the words of the HTTP library.
        why: String,
    },
    /// The answer was not the hub's.
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl RequestError {
    /// Whether the hub says that it does not have this.
    pub fn is_missing(&self) -> bool {
        matches!(self, RequestError::Status { status: 404, .. })
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            RequestError::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            RequestError::Network { .. } => true,
            RequestError::Answer { .. } => false,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Status { url, status: 401 | 403 } => write!(
                f,
                "the hub refused access to {url}: the model is private, gated or does not exist; check its name, accept \
                 its licence on the hub, and set HF_TOKEN to a token that may read it"
            ),
            RequestError::Status { url, status: 404 } => {
                write!(f, "the hub has nothing at {url}; check the model's name and its revision")
            }
            RequestError::Status { url, status: 429 } => {
                write!(
                    f,
                    "the hub asks to slow down at {url}; wait some minutes, or set HF_TOKEN, and try again"
                )
            }
            RequestError::Status { url, status } => {
                write!(f, "the hub answered {url} with HTTP status {status}; try again later")
            }
            RequestError::Network { url, why } => write!(
                f,
                "there is no connection to {url} ({why}); check the network or HF_ENDPOINT, and run the command again: a \
                 download continues where it stopped"
            ),
            RequestError::Answer { url, why } => {
                write!(f, "the answer of {url} is not a hub's: {why}; check HF_ENDPOINT")
            }
        }
    }
}

impl std::error::Error for RequestError {}

impl Client {
    /// A client for the endpoint and with the token that the environment names.
    ///
    /// # Errors
    /// If the network is switched off by `HF_HUB_OFFLINE`, or the endpoint or the token is unusable.
    pub fn from_env() -> Result<Client> {
        let is_offline = variable("HF_HUB_OFFLINE")
            .is_some_and(|v| ["1", "true", "yes", "on"].contains(&v.to_lowercase().as_str()));
        ensure!(
            !is_offline,
            "HF_HUB_OFFLINE forbids downloads; unset it, or name a model that `tangelo ls` lists"
        );
        let endpoint = variable("HF_ENDPOINT").unwrap_or(ENDPOINT.into()).trim_end_matches('/').to_string();
        ensure!(
            endpoint.starts_with("https://") || endpoint.starts_with("http://"),
            "HF_ENDPOINT is `{endpoint}`, which does not start with https:// or http://"
        );
        let agent = ureq::builder()
            .user_agent(concat!("tangelo/", env!("CARGO_PKG_VERSION")))
            .try_proxy_from_env(true)
            .timeout_connect(CONNECT_TIMEOUT)
            .timeout_read(READ_TIMEOUT)
            .redirects(0)
            .build();
        Ok(Client { agent, endpoint, token: token()? })
    }

    /// What `id` holds at its revision.
    ///
    /// # Errors
    /// If there is no usable answer.
    pub fn listing(&self, id: &HubId) -> Result<Listing, RequestError> {
        let repo = repository(&id.repo, &id.revision);
        let url = format!("{}/api/{}", self.endpoint, repo.api_url());
        let (response, _) = self.follow("GET", &url, None)?;
        let wrong = |why: String| RequestError::Answer { url: url.clone(), why };
        let mut body = Vec::new();
        let read = response.into_reader().take(HUB_LISTING_BYTES_MAX + 1).read_to_end(&mut body);
        read.map_err(|e| RequestError::Network { url: url.clone(), why: e.to_string() })?;
        if body.len() as u64 > HUB_LISTING_BYTES_MAX {
            return Err(wrong(format!("the list of files is longer than {HUB_LISTING_BYTES_MAX} bytes")));
        }
        let info: RepoInfo =
            serde_json::from_slice(&body).map_err(|e| wrong(format!("it is no list of files ({e})")))?;
        if !is_name(&info.sha) {
            return Err(wrong(format!("`{}` is no commit", info.sha)));
        }
        let names = info.siblings.into_iter().map(|s| s.rfilename).filter(|n| is_path(n));
        Ok(Listing { commit: info.sha, files: names.collect() })
    }

    /// What `file` is at the commit of a listing; a mirror that serves branches only is asked for the revision.
    ///
    /// # Errors
    /// As [`Client::metadata`].
    pub fn metadata_at(&self, id: &HubId, commit: &str, file: &str) -> Result<Remote, RequestError> {
        match self.metadata(id, commit, file) {
            Err(error) if error.is_missing() && commit != id.revision => {
                self.metadata(id, &id.revision, file)
            }
            answer => answer,
        }
    }

    /// What `file` is at `revision`: name, size and commit, without its contents.
    ///
    /// # Errors
    /// If there is no usable answer.
    pub fn metadata(&self, id: &HubId, revision: &str, file: &str) -> Result<Remote, RequestError> {
        let repo = repository(&id.repo, revision);
        let url = format!("{}/{}/resolve/{}/{file}", self.endpoint, repo.url(), repo.url_revision());
        let (response, seen) = match self.follow("HEAD", &url, None) {
            // Not every mirror answers HEAD; the first byte brings the same headers.
            Err(RequestError::Status { status: 405 | 501, .. }) => {
                self.follow("GET", &url, Some("bytes=0-0".into()))?
            }
            answer => answer?,
        };
        let etag = seen
            .etag
            .or_else(|| response.header("ETag").map(str::to_string))
            .ok_or_else(|| RequestError::Answer { url: url.clone(), why: "it has no ETag".to_string() })?;
        let total = |range: &str| range.rsplit('/').next().and_then(|n| n.parse().ok());
        let length = response.header("Content-Length").and_then(|n| n.parse().ok());
        let size = match response.status() {
            206 => response.header("Content-Range").and_then(total),
            200..=299 => length,
            _ => None, // A redirect that was not followed: the length is that of its own body.
        };
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_string();
        Ok(Remote { url, commit: seen.commit, etag, size: seen.size.or(size) })
    }

    /// The contents of a file from byte `from` on. The caller must look at the status: a server may ignore `from`.
    ///
    /// # Errors
    /// If there is no answer, or one with an error status.
    pub fn contents(&self, url: &str, from: u64) -> Result<Response, RequestError> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        self.follow("GET", url, range).map(|(response, _)| response)
    }

    /// Sends a request and follows its redirects. HEAD stops where the hub has described the file.
    fn follow(
        &self,
        method: &str,
        url: &str,
        range: Option<String>,
    ) -> Result<(Response, Seen), RequestError> {
        let mut seen = Seen::default();
        let mut at = url.to_string();
        for _ in 0..REDIRECTS_MAX {
            let response = self.send(method, &at, range.as_deref())?;
            seen.note(&response);
            let is_redirect = matches!(response.status(), 301 | 302 | 303 | 307 | 308);
            if !is_redirect || (method == "HEAD" && seen.etag.is_some()) {
                return Ok((response, seen));
            }
            at = match response.header("Location") {
                Some(location) if location.starts_with('/') => format!("{}{location}", origin(&at)),
                Some(location) if location.contains("://") => location.to_string(),
                _ => {
                    return Err(RequestError::Answer { url: at, why: "it redirects to nowhere".to_string() });
                }
            };
        }
        Err(RequestError::Answer {
            url: url.to_string(),
            why: format!("it redirects more than {REDIRECTS_MAX} times"),
        })
    }

    fn send(&self, method: &str, url: &str, range: Option<&str>) -> Result<Response, RequestError> {
        // Without this the library asks for compressed bodies, whose length is not the file's.
        let mut request = self.agent.request(method, url).set("Accept-Encoding", "identity");
        if let Some(range) = range {
            request = request.set("Range", range);
        }
        if let Some(token) = self.token.as_ref().filter(|_| origin(url) == origin(&self.endpoint)) {
            request = request.set("Authorization", &format!("Bearer {token}"));
        }
        request.call().map_err(|error| match error {
            ureq::Error::Status(status, _) => RequestError::Status { url: url.to_string(), status },
            ureq::Error::Transport(t) => {
                let why = t.message().map_or_else(|| t.kind().to_string(), str::to_string);
                RequestError::Network { url: url.to_string(), why }
            }
        })
    }
}

/// What the hub said about a file on the way to its contents; the first word counts.
#[derive(Default)]
struct Seen {
    commit: Option<String>,
    etag: Option<String>,
    size: Option<u64>,
}

impl Seen {
    fn note(&mut self, response: &Response) {
        let header = |name: &str| response.header(name).map(str::to_string);
        self.commit = self.commit.take().or_else(|| header("X-Repo-Commit"));
        self.etag = self.etag.take().or_else(|| header("X-Linked-Etag"));
        self.size = self.size.or_else(|| header("X-Linked-Size")?.parse().ok());
    }
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// The token of the environment, else the one that the hub's own tools have stored.
fn token() -> Result<Option<String>> {
    let token = match variable("HF_TOKEN") {
        Some(token) => token,
        None => {
            let path =
                variable("HF_TOKEN_PATH").map_or_else(|| home().map(|h| h.join("token")), |p| Ok(p.into()));
            match std::fs::read_to_string(path?) {
                Ok(token) => token,
                Err(_) => return Ok(None),
            }
        }
    };
    let token = token.trim().to_string();
    let is_printable = token.chars().all(|c| c.is_ascii_graphic());
    is_printable
        .then_some(())
        .context("the token in HF_TOKEN has characters that no token has; set it anew")?;
    Ok(Some(token).filter(|t| !t.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_end_before_the_path() {
        assert_eq!(origin("https://hub.example:8080/a/b?c"), "https://hub.example:8080");
        assert_eq!(origin("http://hub.example"), "http://hub.example");
        assert_ne!(origin("https://hub.example/x"), origin("https://hub.example.org/x"));
        assert_ne!(origin("https://hub.example/x"), origin("http://hub.example/x"));
    }

    #[test]
    fn errors_are_one_sentence_with_a_remedy() {
        for status in [401, 404, 429, 500] {
            let error = RequestError::Status { url: "http://h/x".into(), status };
            let text = error.to_string();
            assert!(text.contains("http://h/x") && !text.ends_with('.') && !text.contains('\n'), "{text}");
            assert_eq!(error.is_transient(), status >= 429, "{status}");
        }
    }
}
