//! The fake server behind an address: streamable HTTP on a socket, one thread per connection.
//!
//! Calls are answered as a stream of events, everything else as JSON, so that both forms are met.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tangelo_mcp::{Secrets, ServerConfig, Transport};

use super::{Reply, reply};

/// What a request must carry.
pub const KEY: &str = "Bearer let-me-in";

/// A listening server, which ends with the program.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Sessions so far.
    sessions: AtomicUsize,
    /// The session that is known; a server that has died has forgotten it.
    current: Mutex<Option<String>>,
    /// Methods of the messages, in the order in which they came.
    seen: Mutex<Vec<String>>,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared::default());
        let server = Server { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        server
    }

    pub fn config(&self, key: &str) -> ServerConfig {
        let headers = Secrets([("Authorization".to_owned(), key.to_owned())].into());
        ServerConfig {
            name: "web".into(),
            transport: Transport::Http { url: format!("http://{}/mcp", self.address), headers },
            allow: Vec::new(),
            timeout: Duration::from_secs(20),
        }
    }

    /// Forgets the session, as a server does that is started again.
    pub fn forget(&self) {
        *self.shared.current.lock().expect("no panic holds it") = None;
    }

    /// How many sessions there have been.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::SeqCst)
    }

    /// Whether a message of this method has come, or comes within two seconds.
    pub fn has_seen(&self, method: &str) -> bool {
        let mut tries = 0..200;
        tries.any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            self.shared.seen.lock().expect("no panic holds it").iter().any(|seen| seen == method)
        })
    }
}

impl Shared {
    /// One request, whose connection is closed after the answer. A broken connection concerns nobody here.
    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a socket has two ends"));
        let mut first = String::new();
        let mut headers = HashMap::new();
        reader.read_line(&mut first).unwrap_or_default();
        for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let answer = match first.split(' ').next() {
            _ if headers.get("authorization").map(String::as_str) != Some(KEY) => {
                Some(response("401 Unauthorized", "", "text/plain", "who are you?"))
            }
            Some("POST") => self.post(&headers, &body),
            Some("DELETE") => Some(response("204 No Content", "", "text/plain", "")),
            _ => Some(response("405 Method Not Allowed", "", "text/plain", "")),
        };
        match answer {
            Some(answer) => drop(stream.write_all(answer.as_bytes())),
            // A server that hangs, hangs until the client leaves.
            None => drop(stream.read(&mut [0])),
        }
    }

    /// The response to a message; `None` to say nothing and keep the connection open.
    fn post(&self, headers: &HashMap<String, String>, body: &[u8]) -> Option<String> {
        let Ok(message) = serde_json::from_slice::<Value>(body) else {
            return Some(response("400 Bad Request", "", "text/plain", "no JSON"));
        };
        let method = message["method"].as_str().unwrap_or_default();
        self.seen.lock().expect("no panic holds it").push(method.to_owned());
        let mut current = self.current.lock().expect("no panic holds it");
        if method == "initialize" {
            let number = self.sessions.fetch_add(1, Ordering::SeqCst);
            *current = Some(format!("session-{number}"));
        } else if headers.get("mcp-session-id") != current.as_ref() || current.is_none() {
            return Some(response("404 Not Found", "", "text/plain", "there is no such session"));
        }
        let session = current.iter().map(|id| format!("mcp-session-id: {id}\r\n")).collect::<String>();
        drop(current);
        match reply(&message, None) {
            Reply::Answer(answer) if method == "tools/call" => {
                let noise = json!({"jsonrpc": "2.0", "method": "notifications/message",
                    "params": {"level": "info", "data": "working"}});
                let events = format!("data: {noise}\n\nevent: message\ndata: {answer}\n\n");
                Some(response("200 OK", &session, "text/event-stream", &events))
            }
            Reply::Answer(answer) => {
                Some(response("200 OK", &session, "application/json", &answer.to_string()))
            }
            Reply::Nothing => Some(response("202 Accepted", &session, "text/plain", "")),
            Reply::Hang => None,
            Reply::Die => Some(String::new()),
        }
    }
}

fn response(status: &str, headers: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}
