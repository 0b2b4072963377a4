//! What is refused, and how it is said.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::client::send;
use crate::server::{Plan, Server};

#[test]
fn whatever_a_client_sends_is_its_own_fault() {
    let server = Server::start(Plan { body_bytes_max: 4096, ..Plan::default() });
    let url = "/v1/chat/completions";
    let json_type = [("Content-Type", "application/json")];
    for (method, path, body, status) in [
        ("POST", url, &b"{"[..], 400),
        ("POST", url, b"[]", 400),
        ("POST", url, b"{}", 400),
        ("POST", url, b"\xff\xfe", 400),
        ("POST", url, &[b' '; 5000], 413),
        ("GET", url, b"", 405),
        ("POST", "/v1/nothing", b"{}", 404),
        ("POST", "/tokenize", b"{\"prompt\":5}", 400),
        ("POST", "/detokenize", b"{\"tokens\":[123456789]}", 400),
        ("POST", "/v1/cache/explain", b"{}", 400),
    ] {
        let response = send(server.address, method, path, &json_type, body);
        assert_eq!(response.header("content-type"), Some("application/json"), "{method} {path}");
        assert!(response.header("x-request-id").is_some());
        let error = response.json(status);
        assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_page_that_gives_its_own_name_this_address_is_kept_out() {
    let server = Server::start(Plan::default());
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    stream
        .write_all(b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    assert!(response.starts_with("HTTP/1.1 403 ") && response.contains("--allow-host"), "{response}");
}

#[test]
fn what_cannot_be_honoured_is_refused_before_anything_is_said() {
    let server = Server::start(Plan::default());
    let base = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 2});
    let tool = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    for (extra, param) in [
        (json!({"model": "another"}), "model"),
        (json!({"persona": "nobody"}), "persona"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (
            json!({"tools": tool, "tool_choice": {"type": "function", "function": {"name": "g"}}}),
            "tool_choice",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": 5}}}}),
            "response_format",
        ),
        (json!({"max_tokens": 2, "min_tokens": 3}), "min_tokens"),
        (json!({"temperature": -1}), "temperature"),
    ] {
        let mut body = base.clone();
        for (name, value) in extra.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let response = server.post("/v1/chat/completions", &body);
        let status = if param == "model" || param == "persona" { 404 } else { 400 };
        let error = response.json(status);
        assert_eq!(error["error"]["param"], param, "{error}");
    }
    let long = "word ".repeat(5000);
    let error = server.post("/v1/completions", &json!({"prompt": long})).json(400);
    assert!(
        error["error"]["message"].as_str().is_some_and(|text| text.contains("context holds 4096")),
        "{error}"
    );
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::start(Plan { body_time: Duration::from_millis(100), ..Plan::default() });
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).expect("the head is sent");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("the server ends the connection");
    assert!(said.starts_with("HTTP/1.1 408") && said.contains("did not arrive within 0.1 seconds"), "{said}");
}

#[test]
fn a_request_keeps_the_id_that_it_came_with() {
    let server = Server::start(Plan::default());
    let response = send(server.address, "GET", "/health", &[("X-Request-Id", "mine-1")], b"");
    assert_eq!(response.header("x-request-id"), Some("mine-1"));
    let (one, two) = (server.get("/health"), server.get("/health"));
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[test]
fn an_address_that_others_reach_needs_a_key() {
    let everywhere = ([0, 0, 0, 0], 0).into();
    let refused = tangelo_serve::bind(everywhere, false, false).expect_err("everybody could use it");
    assert!(refused.to_string().contains("--api-key"), "{refused}");
    tangelo_serve::bind(everywhere, true, false).expect("keys are asked for");
    tangelo_serve::bind(everywhere, false, true).expect("it was said in so many words");
    let taken = tangelo_serve::bind(([127, 0, 0, 1], 0).into(), false, false).expect("a port");
    let again = tangelo_serve::bind(taken.local_addr().expect("an address"), false, false);
    assert!(again.expect_err("it is taken").to_string().starts_with("cannot listen on 127.0.0.1"));
}
