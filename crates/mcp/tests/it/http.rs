//! Servers at an address: streamable HTTP over a loopback socket, written by hand.
//!
//! A POST with a request is answered by JSON, or, for `huge` and `more`, by a stream of events; a GET is refused, which
//! the protocol allows; the session id is checked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tangelo_mcp::Servers;

use crate::protocol::{Reply, Script};
use crate::support::{call, config, names, run, scratch, until_changed};

/// The key that requests must have.
const KEY: &str = "Bearer s3cret";

/// A server on a port of its own. Its sessions end when `session` is set to another number.
struct Loopback {
    address: String,
    session: Arc<AtomicUsize>,
}

impl Loopback {
    fn start(name: &str) -> Loopback {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let session = Arc::new(AtomicUsize::new(1));
        let script = Arc::new(Script::new(&scratch(name)));
        let shared = Arc::clone(&session);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, session) = (Arc::clone(&script), Arc::clone(&shared));
                // A client that goes away ends its thread, and no other.
                std::thread::spawn(move || drop(serve(stream, &script, &session)));
            }
        });
        Loopback { address, session }
    }

    fn entry(&self, path: &str, key: &str) -> Value {
        let url = format!("{}{path}", self.address);
        json!({ "url": url, "headers": { "authorization": key }, "timeout_s": 5 })
    }
}

/// One request per connection.
fn serve(stream: TcpStream, script: &Script, session: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    respond(stream, &head, &message, script, session)
}

fn respond(
    mut stream: TcpStream,
    head: &str,
    message: &Value,
    script: &Script,
    session: &AtomicUsize,
) -> std::io::Result<()> {
    let session = format!("mcp-session-id: {}", session.load(Ordering::Relaxed));
    let is_greeting = message["method"] == "initialize";
    let mut send = |status: &str, headers: &str, body: &str| {
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
        )
    };
    if head.starts_with("post /old ") {
        return send("307 Temporary Redirect", "location: /mcp\r\n", "");
    }
    if head.starts_with("post /away ") {
        return send("307 Temporary Redirect", "location: http://localhost:9/mcp\r\n", "");
    }
    if !head.contains(&format!("authorization: {KEY}").to_ascii_lowercase()) {
        return send("403 Forbidden", "", "who are you?");
    }
    if head.starts_with("get ") {
        return send("405 Method Not Allowed", "", "");
    }
    if !is_greeting && !head.contains(&session) {
        return send("404 Not Found", "", "");
    }
    match script.answer(message) {
        Reply::Nothing if message["method"] == "tools/call" => {
            std::thread::sleep(std::time::Duration::from_secs(20));
            Ok(())
        }
        Reply::Nothing => send("202 Accepted", "", ""),
        Reply::Die(words) => Err(std::io::Error::other(words)),
        Reply::Messages(messages) => {
            let session = format!("{session}\r\n");
            match messages.as_slice() {
                [only] if message["params"]["name"] != "huge" => {
                    send("200 OK", &format!("{session}content-type: application/json\r\n"), &only.to_string())
                }
                all => {
                    let events: String =
                        all.iter().map(|m| format!("event: message\ndata: {m}\n\n")).collect();
                    send("200 OK", &format!("{session}content-type: text/event-stream\r\n"), &events)
                }
            }
        }
    }
}

#[test]
fn tools_are_listed_and_called_over_http() {
    let server = Loopback::start("http");
    run(async {
        let mut entry = server.entry("/mcp", KEY);
        entry["timeout_s"] = json!(2);
        let servers = Servers::connect(&config(json!({ "web": entry }))).await.expect("it is good");
        assert_eq!(names(&servers).len(), 11);
        assert_eq!(call(&servers, "echo").await.as_deref(), Ok("{}"));
        assert_eq!(call(&servers, "fail").await.as_deref(), Ok("The tool failed: no such file"));
        let huge = call(&servers, "huge").await.expect("a stream of events");
        assert!(huge.ends_with("more bytes were cut off here.]"));
        let refused = call(&servers, "refuse").await.expect_err("it refuses");
        assert_eq!(refused, "the MCP server `web` did not run the tool `refuse`: a is missing");
        let hung = call(&servers, "hang").await.expect_err("it hangs");
        assert!(hung.contains("has not answered within 2 s"), "{hung}");
        let dropped = call(&servers, "crash").await.expect_err("the connection is closed");
        assert!(!dropped.contains("127.0.0.1"), "addresses may hold keys: {dropped}");
        assert_eq!(call(&servers, "more").await.as_deref(), Ok("there is one more"));
        until_changed(&servers).await;
        assert_eq!(names(&servers)[0], "another");
        servers.close().await;
    });
}

#[test]
fn a_server_that_has_forgotten_us_is_greeted_again() {
    let server = Loopback::start("session");
    run(async {
        let servers = Servers::connect(&config(json!({ "web": server.entry("/mcp", KEY) }))).await;
        let servers = servers.expect("it is good");
        server.session.store(2, Ordering::Relaxed);
        assert_eq!(call(&servers, "echo").await.as_deref(), Ok("{}"));
        servers.close().await;
    });
}

#[test]
fn only_redirections_that_keep_keys_where_they_belong_are_followed() {
    let server = Loopback::start("redirect");
    run(async {
        let servers = Servers::connect(&config(json!({ "web": server.entry("/old", KEY) }))).await;
        let servers = servers.expect("the redirection is followed");
        assert_eq!(call(&servers, "echo").await.as_deref(), Ok("{}"));
        servers.close().await;
        let away = Servers::connect(&config(json!({ "web": server.entry("/away", KEY) }))).await;
        let error = away.expect_err("it is not followed").to_string();
        assert!(error.contains("307"), "{error}");
    });
}

#[test]
fn what_is_wrong_with_an_address_is_said_without_the_address() {
    let server = Loopback::start("wrong");
    let refused = |entry: Value| {
        let error =
            run(Servers::connect(&config(json!({ "web": entry })))).expect_err("it is wrong").to_string();
        assert!(error.starts_with("cannot connect to the MCP server `web`: "), "{error}");
        assert!(!error.contains("127.0.0.1"), "{error}");
        error
    };
    assert!(refused(server.entry("/mcp", "Bearer wrong")).contains("403"));
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let error = refused(json!({ "url": format!("http://{free}/mcp?key=s3cret"), "timeout_s": 5 }));
    assert!(error.to_lowercase().contains("connection refused") && !error.contains("s3cret"), "{error}");
    let error = refused(json!({ "url": "https://127.0.0.1:1/", "headers": { "a b": "c" } }));
    assert!(error.contains("`a b` cannot be the name of a header"), "{error}");
    let error = refused(json!({ "url": "http://127.0.0.1:1/", "headers": { "key": "line\nline" } }));
    assert!(error.contains("the value of the header `key`") && !error.contains("line\n"), "{error}");
}
