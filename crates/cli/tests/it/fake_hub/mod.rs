//! A hub for tests: the two routes of the real one that matter, over plain TCP, with faults on demand.
//!
//! Large files answer with a redirect to a second server, the store, as the real hub does. Every request is
//! noted, so a test can say what was asked for, with which range, and who was shown the token.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// The commit of every repository unless a test moves it.
pub const COMMIT: &str = "1111111111111111111111111111111111111111";

/// How a file misbehaves.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Connections to drop, and after how many bytes of the body.
    pub drops: u32,
    /// See `drops`.
    pub drop_after: usize,
    /// Answer range requests with the whole file.
    pub ignores_ranges: bool,
    /// Announce another ETag than the contents'.
    pub etag: Option<String>,
    /// Pause in the middle of the body.
    pub is_slow: bool,
    /// Answer HEAD with 405.
    pub refuses_head: bool,
}

/// One file of a repository.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Its contents.
    pub bytes: Vec<u8>,
    /// Whether it is kept in the store.
    pub is_large: bool,
    /// What goes wrong.
    pub faults: Faults,
}

/// One request, as the server saw it.
#[derive(Clone, Debug)]
pub struct Request {
    /// HEAD or GET.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Whether it reached the store instead of the hub.
    pub at_store: bool,
    /// Bytes of the body that were sent.
    pub sent: usize,
}

/// What the server serves and what it saw.
#[derive(Default)]
pub struct State {
    /// Files by (model, path).
    pub files: BTreeMap<(String, String), Remote>,
    /// The commit that `main` stands for.
    pub commit: String,
    /// The token without which nothing is given.
    pub token: Option<String>,
    /// Answer everything with this status.
    pub status: Option<u16>,
    /// All requests so far.
    pub log: Vec<Request>,
}

/// A running hub.
pub struct Hub {
    /// What to set `HF_ENDPOINT` to.
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

/// Hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

impl Hub {
    /// Starts a hub without models, and its store.
    pub fn start() -> Hub {
        let state = Arc::new(Mutex::new(State { commit: COMMIT.into(), ..State::default() }));
        let (hub, store) = (listen(), listen());
        let address = |l: &TcpListener| format!("http://{}", l.local_addr().expect("a bound port"));
        let (endpoint, store_url) = (address(&hub), address(&store));
        for (listener, at_store) in [(hub, false), (store, true)] {
            let (state, store_url) = (state.clone(), store_url.clone());
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, store_url) = (state.clone(), store_url.clone());
                    thread::spawn(move || serve(stream, &state, &store_url, at_store));
                }
            });
        }
        Hub { endpoint, state }
    }

    /// The state, to change it or to look at it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no handler panics while it holds the state")
    }

    /// Adds a file; large ones are kept in the store.
    pub fn add(&self, model: &str, path: &str, bytes: &[u8], is_large: bool) {
        let file = Remote { bytes: bytes.to_vec(), is_large, faults: Faults::default() };
        self.state().files.insert((model.into(), path.into()), file);
    }

    /// Sets what goes wrong with a file.
    pub fn break_file(&self, model: &str, path: &str, faults: Faults) {
        self.state().files.get_mut(&(model.into(), path.into())).expect("the file was added").faults = faults;
    }

    /// Requests for contents (not HEAD) whose path ends with `ending`, as (range, bytes sent), and forgets all.
    pub fn take_transfers(&self, ending: &str) -> Vec<(Option<String>, usize)> {
        let log = std::mem::take(&mut self.state().log);
        let transfers =
            log.into_iter().filter(|r| r.method == "GET" && r.path.ends_with(ending) && r.sent > 0);
        transfers.map(|r| (r.headers.get("range").cloned(), r.sent)).collect()
    }
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port on the loopback interface")
}

/// Reads one request, answers it, closes. A client that goes away is none of our business.
fn serve(mut stream: TcpStream, state: &Mutex<State>, store: &str, at_store: bool) {
    let Some(request) = read_request(&stream, at_store) else { return };
    let index = {
        let mut state = state.lock().expect("no handler panics while it holds the state");
        state.log.push(request.clone());
        state.log.len() - 1
    };
    let answer = answer(&request, state, store);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", answer.body.len()));
    let body = if request.method == "HEAD" {
        &[][..]
    } else {
        &answer.body[..answer.cut.unwrap_or(answer.body.len())]
    };
    {
        // Noted before it is sent, so that a client that has everything finds it noted.
        let mut state = state.lock().expect("no handler panics while it holds the state");
        if let Some(entry) = state.log.get_mut(index) {
            entry.sent = if answer.status < 300 { body.len() } else { 0 };
        }
    }
    let (first, second) = body.split_at(body.len() / 2);
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(first));
    if answer.is_slow {
        thread::sleep(Duration::from_millis(400));
    }
    let _ = stream.write_all(second).and_then(|()| stream.flush());
}

fn read_request(stream: &TcpStream, at_store: bool) -> Option<Request> {
    let mut reader = BufReader::new(stream.try_clone().ok()?.take(1 << 16));
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_string());
    }
    Some(Request { method, path, headers, at_store, sent: 0 })
}

#[derive(Default)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Close the connection after so many bytes.
    cut: Option<usize>,
    is_slow: bool,
}

fn answer(request: &Request, state: &Mutex<State>, store: &str) -> Answer {
    let mut state = state.lock().expect("no handler panics while it holds the state");
    let refused = |status| Answer { status, body: b"refused".to_vec(), ..Answer::default() };
    if let Some(status) = state.status {
        return refused(status);
    }
    if request.at_store {
        return store_answer(request, &mut state);
    }
    let shown = request.headers.get("authorization").map(String::as_str);
    if state.token.as_ref().is_some_and(|t| shown != Some(&format!("Bearer {t}"))) {
        return refused(401);
    }
    if let Some(rest) = request.path.strip_prefix("/api/") {
        return rest
            .strip_prefix("models/")
            .unwrap_or(rest)
            .split_once("/revision/")
            .map_or(refused(404), |(model, rev)| listing(&state, model, rev));
    }
    let parts =
        request.path[1..].split_once("/resolve/").and_then(|(m, rest)| Some((m, rest.split_once('/')?)));
    let Some((model, (revision, path))) = parts else { return refused(404) };
    let commit = state.commit.clone();
    let Some(file) = state.files.get_mut(&(model.to_string(), path.to_string())) else { return refused(404) };
    if revision != "main" && revision != commit {
        return refused(404);
    }
    if request.method == "HEAD" && file.faults.refuses_head {
        return refused(405);
    }
    let etag = file.faults.etag.clone().unwrap_or_else(|| sha256(&file.bytes));
    let commit = ("X-Repo-Commit", commit);
    if file.is_large {
        let headers = vec![
            commit,
            ("X-Linked-Etag", format!("\"{etag}\"")),
            ("X-Linked-Size", file.bytes.len().to_string()),
            ("ETag", "\"of-the-redirect\"".to_string()),
            ("Location", format!("{store}/{model}/-/{path}")),
        ];
        return Answer { status: 302, headers, body: b"elsewhere".to_vec(), ..Answer::default() };
    }
    let mut answer = contents(request, file);
    // A small file is named by a hash that is not the SHA-256 of its contents.
    let etag = file.faults.etag.clone().unwrap_or_else(|| etag[..40].to_string());
    answer.headers.extend([commit, ("ETag", format!("W/\"{etag}\""))]);
    answer
}

fn listing(state: &State, model: &str, revision: &str) -> Answer {
    let files: Vec<_> = state.files.keys().filter(|(m, _)| m == model).collect();
    if files.is_empty() || (revision != "main" && revision != state.commit) {
        return Answer { status: 404, body: b"no such model".to_vec(), ..Answer::default() };
    }
    let siblings: Vec<_> =
        files.iter().map(|(_, path)| serde_json::json!({ "rfilename": path, "more": 1 })).collect();
    let body =
        serde_json::json!({ "id": model, "sha": state.commit, "siblings": siblings, "private": false });
    Answer { status: 200, body: body.to_string().into_bytes(), ..Answer::default() }
}

fn store_answer(request: &Request, state: &mut State) -> Answer {
    let key = request.path[1..].split_once("/-/").map(|(m, p)| (m.to_string(), p.to_string()));
    match key.and_then(|key| state.files.get_mut(&key)) {
        Some(file) => contents(request, file),
        None => Answer { status: 404, ..Answer::default() },
    }
}

/// The contents from where the request wants them, with the file's faults.
fn contents(request: &Request, file: &mut Remote) -> Answer {
    let total = file.bytes.len();
    let range = request.headers.get("range").filter(|_| !file.faults.ignores_ranges);
    let bounds = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    let from: usize = bounds.map_or(0, |(from, _)| from.parse().expect("a number"));
    let to = bounds.and_then(|(_, to)| to.parse::<usize>().ok()).map_or(total, |to| (to + 1).min(total));
    let mut answer = Answer { status: 200, is_slow: file.faults.is_slow, ..Answer::default() };
    if bounds.is_some() {
        if from >= total {
            let headers = vec![("Content-Range", format!("bytes */{total}"))];
            return Answer { status: 416, headers, ..Answer::default() };
        }
        answer.status = 206;
        answer.headers.push(("Content-Range", format!("bytes {from}-{}/{total}", to - 1)));
    }
    answer.body = file.bytes[from..to].to_vec();
    if request.method == "GET" && file.faults.drops > 0 {
        file.faults.drops -= 1;
        answer.cut = Some(file.faults.drop_after.min(answer.body.len()));
    }
    answer
}
