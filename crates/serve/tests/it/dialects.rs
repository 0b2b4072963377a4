//! The dialects over a real connection, and the document that describes them.

use serde_json::{Value, json};

use crate::client::send;
use crate::server::{Plan, Server};

fn question() -> Value {
    json!([{"role": "user", "content": "What is the weather in Ulm?"}])
}

/// The data of server-sent events, without the end mark.
fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).expect("JSON")).collect()
}

/// The texts at a path in all of them, joined.
fn joined(events: &[Value], path: &str) -> String {
    events.iter().filter_map(|event| event.pointer(path)?.as_str()).collect()
}

#[test]
fn the_document_lists_what_there_is_and_other_methods_are_refused_with_those_there_are() {
    let server = Server::start(Plan::default());
    let document = server.get("/openapi.json").json(200);
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 20);
    for (path, operations) in paths {
        let path = path.replace("{id}", "none").replace("{name}", "none");
        for method in operations.as_object().expect("operations").keys() {
            let method = method.to_uppercase();
            let response = server.request(&method, &path, &[], &json!({}));
            let status = response.status;
            let text = response.text();
            assert!(
                status != 405 && status < 500 && !text.contains("/openapi.json lists"),
                "{method} {path}: {text}"
            );
        }
        let response = server.request("TRACE", &path, &[], &json!({}));
        assert_eq!(response.status, 405, "{path}");
        let allowed =
            response.header("allow").unwrap_or_else(|| panic!("{path} says what it takes")).to_owned();
        for method in operations.as_object().expect("operations").keys() {
            assert!(allowed.contains(&method.to_uppercase()), "{path} allows {allowed}");
        }
    }
}

#[test]
fn errors_have_the_shape_of_the_dialect_they_were_asked_in() {
    let server = Server::start(Plan { keys: vec!["secret"], ..Plan::default() });
    for (key, status) in [("wrong", 401), ("secret", 400)] {
        let headers = [("x-api-key", key)];
        let refused = |path: &str| server.request("POST", path, &headers, &json!({"model": 5})).json(status);
        for path in ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"] {
            assert!(refused(path)["error"]["message"].is_string(), "{path}");
        }
        for path in ["/v1/messages", "/v1/messages/count_tokens"] {
            let error = refused(path);
            assert_eq!(error["type"], "error", "{path}");
            assert!(error["error"]["type"].is_string() && error["error"]["message"].is_string(), "{path}");
        }
        for path in ["/api/chat", "/api/generate", "/api/show"] {
            assert!(refused(path)["error"].is_string(), "{path}");
        }
    }
}

#[test]
fn a_page_of_somebody_else_cannot_send_what_it_need_not_ask_leave_for() {
    let server = Server::start(Plan::default());
    let headers = [("Origin", "https://example.org"), ("Content-Type", "text/plain")];
    let body = json!({ "messages": question(), "max_tokens": 1 }).to_string();
    let response = send(server.address, "POST", "/v1/chat/completions", &headers, body.as_bytes());
    assert_eq!(response.status, 415);
    let response = send(server.address, "POST", "/v1/chat/completions", &[], body.as_bytes());
    assert_eq!(response.status, 200);
}

#[test]
fn anthropics_stream_says_the_same_as_the_whole() {
    let server = Server::start(Plan::default());
    let mut body = json!({
        "model": "tiny", "max_tokens": 40, "temperature": 0, "messages": question(),
        "thinking": {"type": "enabled", "budget_tokens": 8},
    });
    let whole = server.post("/v1/messages", &body).json(200);
    body["stream"] = true.into();
    let events = events(&server.post("/v1/messages", &body).text());
    let text_of = |kind: &str, field: &str| -> String {
        let blocks = whole["content"].as_array().expect("blocks").iter();
        blocks.filter(|block| block["type"] == kind).filter_map(|block| block[field].as_str()).collect()
    };
    assert_eq!(joined(&events, "/delta/thinking"), text_of("thinking", "thinking"));
    assert_eq!(joined(&events, "/delta/text"), text_of("text", "text"));
    let kinds: Vec<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(kinds.first(), Some(&"message_start"));
    assert_eq!(kinds.last(), Some(&"message_stop"));
    let count = |kind| kinds.iter().filter(|other| **other == kind).count();
    assert_eq!(count("content_block_start"), whole["content"].as_array().map_or(0, Vec::len));
    assert_eq!(count("content_block_start"), count("content_block_stop"));
    let counted = server.post("/v1/messages/count_tokens", &body).json(200)["input_tokens"].as_u64();
    let usage = &whole["usage"];
    let read = usage["input_tokens"].as_u64().zip(usage["cache_read_input_tokens"].as_u64());
    assert_eq!(counted, read.map(|(new, cached)| new + cached));
}

#[test]
fn ollamas_lines_say_the_same_as_the_whole() {
    let server = Server::start(Plan::default());
    let mut body = json!({
        "model": "tiny", "messages": question(), "think": false, "stream": false,
        "options": {"num_predict": 20, "temperature": 0},
    });
    let whole = server.post("/api/chat", &body).json(200);
    body["stream"] = Value::Null;
    let stream = server.post("/api/chat", &body);
    assert_eq!(stream.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> =
        stream.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(joined(&lines, "/message/content"), whole["message"]["content"].as_str().expect("text"));
    let last = lines.last().expect("lines");
    assert_eq!((&last["done"], &last["eval_count"]), (&json!(true), &whole["eval_count"]));
    assert!(lines.len() > 2, "it is no stream");
}

#[test]
fn a_response_is_continued_by_its_owner_only_and_until_it_is_deleted() {
    let server = Server::start(Plan { keys: vec!["ann", "bob"], ..Plan::default() });
    let ask = |key: &str, body: &Value| server.request("POST", "/v1/responses", &[("x-api-key", key)], body);
    let instructions = "You answer in a few words. ".repeat(30);
    let first = json!({"input": "Hello", "instructions": instructions, "max_output_tokens": 4});
    let id = ask("ann", &first).json(200)["id"].as_str().expect("an id").to_owned();
    let mut next = first.clone();
    next["input"] = "And now?".into();
    next["previous_response_id"] = id.as_str().into();
    let followed = ask("ann", &next).json(200);
    assert_eq!(followed["previous_response_id"], id.as_str());
    let cached = followed["usage"]["input_tokens_details"]["cached_tokens"].as_u64().expect("a number");
    assert!(cached > 100, "the instructions are in memory: {cached}");
    assert_eq!(ask("bob", &next).status, 404);
    let path = format!("/v1/responses/{id}");
    let by =
        |method: &str, key: &str| server.request(method, &path, &[("x-api-key", key)], &json!({})).status;
    assert_eq!(by("GET", "bob"), 404);
    assert_eq!(by("DELETE", "bob"), 404);
    assert_eq!(by("GET", "ann"), 200);
    assert_eq!(by("DELETE", "ann"), 200);
    assert_eq!(by("GET", "ann"), 404);
    assert_eq!(ask("ann", &next).status, 404);
    let unstored = json!({"input": "Hello", "store": false, "max_output_tokens": 1});
    let id = ask("ann", &unstored).json(200)["id"].as_str().expect("an id").to_owned();
    let gone = server.request("GET", &format!("/v1/responses/{id}"), &[("x-api-key", "ann")], &json!({}));
    assert_eq!(gone.status, 404);
}

#[test]
fn prompts_are_answered_together_and_echoed() {
    let server = Server::start(Plan::default());
    let tokens = server.post("/tokenize", &json!({"prompt": "Two"})).json(200)["tokens"].clone();
    let one = server.post("/v1/completions", &json!({"prompt": "One", "max_tokens": 3, "temperature": 0}));
    let alone = one.json(200)["choices"][0]["text"].as_str().expect("text").to_owned();
    let mut body = json!({
        "prompt": ["One", "Two"], "n": 2, "max_tokens": 3, "temperature": 0, "echo": true,
    });
    let whole = server.post("/v1/completions", &body).json(200);
    let texts: Vec<_> =
        whole["choices"].as_array().expect("answers").iter().map(|one| one["text"].clone()).collect();
    assert_eq!(texts.len(), 4);
    assert_eq!(texts[0], format!("One{alone}"));
    assert_eq!(texts[0], texts[1]);
    assert!(texts[2].as_str().is_some_and(|text| text.starts_with("Two")), "{texts:?}");
    assert_eq!(whole["usage"]["completion_tokens"], 12);
    body["stream"] = true.into();
    let events = events(&server.post("/v1/completions", &body).text());
    for (index, text) in texts.iter().enumerate() {
        let mine: Vec<Value> =
            events.iter().filter(|event| event["choices"][0]["index"] == index).cloned().collect();
        assert_eq!(&joined(&mine, "/choices/0/text"), text.as_str().expect("text"));
    }
    let of_tokens = json!({"prompt": tokens, "max_tokens": 3, "temperature": 0, "echo": true});
    assert_eq!(server.post("/v1/completions", &of_tokens).json(200)["choices"][0]["text"], texts[2]);
    let unknown = server.post("/v1/completions", &json!({"prompt": [4_000_000_000u32]})).json(400);
    assert_eq!(unknown["error"]["param"], "prompt");
}

#[test]
fn embeddings_have_one_length_and_two_forms() {
    let server = Server::start(Plan::default());
    let body = json!({"input": ["One", "Two"]});
    let plain = server.post("/v1/embeddings", &body).json(200);
    let vectors = [&plain["data"][0]["embedding"], &plain["data"][1]["embedding"]];
    let len = vectors[0].as_array().expect("numbers").len();
    assert_eq!(vectors[1].as_array().map(Vec::len), Some(len));
    assert_ne!(vectors[0], vectors[1]);
    let coded =
        server.post("/v1/embeddings", &json!({"input": "One", "encoding_format": "base64"})).json(200);
    let text = coded["data"][0]["embedding"].as_str().expect("base64");
    assert_eq!(text.len(), (len * 4).div_ceil(3) * 4);
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "One", "dimensions": 8})).status, 400);
}

#[test]
fn a_required_call_is_made_and_its_stream_adds_up() {
    let server = Server::start(Plan::default());
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}},
        "required": ["city"],
        "additionalProperties": false,
    });
    let mut body = json!({
        "messages": question(), "max_tokens": 200, "temperature": 0, "reasoning_effort": "none",
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": parameters}}],
        "tool_choice": "required", "parallel_tool_calls": false,
    });
    let whole = server.post("/v1/chat/completions", &body).json(200);
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    let call = &whole["choices"][0]["message"]["tool_calls"][0]["function"];
    let arguments = call["arguments"].as_str().expect("JSON");
    let read: Value = serde_json::from_str(arguments).expect("an object");
    assert_eq!((&call["name"], read.as_object().map(serde_json::Map::len)), (&json!("weather"), Some(1)));
    body["stream"] = true.into();
    let events = events(&server.post("/v1/chat/completions", &body).text());
    let path = "/choices/0/delta/tool_calls/0/function/arguments";
    assert_eq!(joined(&events, path), arguments);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "other"}});
    assert_eq!(server.post("/v1/chat/completions", &body).json(400)["error"]["param"], "tool_choice");
}
