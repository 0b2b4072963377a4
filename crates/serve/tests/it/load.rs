//! More work than there is room for, clients that leave, and the end.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Response;
use crate::server::{Plan, Server};

/// An answer that goes on for as long as the context lasts.
fn endless() -> Value {
    json!({"prompt": "On and on", "max_tokens": 4000, "ignore_eos": true, "stream": true})
}

fn begin(server: &Server) -> Response {
    let mut response = server.post("/v1/completions", &endless());
    assert_eq!(response.status, 200);
    assert!(response.chunk().is_some(), "it begins");
    response
}

#[test]
fn a_full_queue_refuses_at_once_and_the_server_stays_responsive() {
    let server = Server::start(Plan { parallel: 1, queue: 1, ..Plan::default() });
    let first = begin(&server);
    let waiting = thread::scope(|scope| {
        let second = scope.spawn(|| {
            server.post("/v1/completions", &json!({"prompt": "x", "max_tokens": 1, "ignore_eos": true}))
        });
        server.wait_for("tangelo_requests_waiting", 1);
        let started = Instant::now();
        for _ in 0..20 {
            let refused = server.post("/v1/completions", &json!({"prompt": "y", "max_tokens": 1}));
            assert_eq!(refused.header("retry-after"), Some("1"));
            let error = refused.json(429);
            assert_eq!(error["error"]["type"], "rate_limit_error");
        }
        assert_eq!(server.get("/health").status, 200);
        assert!(started.elapsed() < Duration::from_secs(10), "refusals cost next to nothing");
        assert_eq!(server.metric("tangelo_requests_refused_total"), 20);
        drop(first);
        second.join().expect("it waited for its turn")
    });
    assert_eq!(waiting.json(200)["usage"]["completion_tokens"], 1);
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let server = Server::start(Plan { parallel: 1, ..Plan::default() });
    let response = begin(&server);
    assert_eq!(server.metric("tangelo_answers_active"), 1);
    drop(response);
    server.wait_for("tangelo_answers_active", 0);
    assert_eq!(server.metric("tangelo_answers_cancelled_total"), 1);
    let tokens = server.metric("tangelo_answer_tokens_total");
    assert!(tokens < 4000, "it did not go on to its end: {tokens}");
    server.post("/v1/completions", &json!({"prompt": "x", "max_tokens": 1, "ignore_eos": true})).json(200);
}

#[test]
fn told_to_stop_it_refuses_new_work_and_finishes_the_old() {
    let mut server = Server::start(Plan::default());
    let mut body = endless();
    body["max_tokens"] = 2500.into();
    let mut response = server.post("/v1/completions", &body);
    assert!(response.chunk().is_some(), "it begins");
    server.stop();
    // The signal is on its way to another thread.
    let refused = loop {
        let refused =
            server.post("/v1/completions", &json!({"prompt": "x", "max_tokens": 1, "ignore_eos": true}));
        if refused.status != 200 {
            break refused;
        }
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(server.get("/health").status, 503);
    let rest = response.text();
    assert!(rest.contains("\"finish_reason\":\"length\"") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
    server.join();
}

#[test]
fn time_for_the_rest_is_limited_and_told_twice_it_ends_at_once() {
    for drain_time in [Duration::from_millis(50), Duration::from_secs(600)] {
        let mut server = Server::start(Plan { drain_time, ..Plan::default() });
        let mut body = endless();
        // As long as this test has patience for.
        body["n"] = 4.into();
        let mut response = server.post("/v1/completions", &body);
        assert!(response.chunk().is_some(), "it begins");
        let started = Instant::now();
        server.stop();
        if drain_time > Duration::from_secs(60) {
            server.stop();
        }
        server.join();
        assert!(started.elapsed() < Duration::from_secs(20));
        let rest = response.text();
        assert!(rest.ends_with("data: [DONE]\n\n"), "the client is told the end: {rest}");
    }
}

#[test]
fn many_at_once_get_what_each_would_get_alone() {
    let server = Server::start(Plan { parallel: 8, queue: 64, ..Plan::default() });
    let ask = |n: usize| {
        let body =
            json!({"prompt": format!("Number {n} of many"), "max_tokens": 24, "seed": n, "ignore_eos": true});
        server.post("/v1/completions", &body).json(200)["choices"].clone()
    };
    let alone: Vec<Value> = (0..16).map(ask).collect();
    let together: Vec<Value> = thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|n| scope.spawn(move || ask(n))).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!(together, alone);
}
