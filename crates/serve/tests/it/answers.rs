//! What is answered, and what is said about it.

use serde_json::{Value, json};

use crate::server::{Plan, Server};

fn chat(messages: &[(&str, &str)], max_tokens: usize) -> Value {
    let messages: Vec<Value> =
        messages.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    json!({"messages": messages, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true})
}

#[test]
fn the_server_says_how_it_is_and_counts_what_it_does() {
    let server = Server::start(Plan::default());
    assert_eq!(server.get("/health").json(200), json!({"status": "ok"}));
    server.post("/v1/chat/completions", &chat(&[("user", "hello")], 5)).json(200);
    server.wait_for("tangelo_answers_active", 0);
    assert_eq!(server.metric("tangelo_answers_total"), 1);
    assert_eq!(server.metric("tangelo_answer_tokens_total"), 5);
    assert_eq!(server.metric("tangelo_time_to_first_token_seconds_count"), 1);
    assert_eq!(server.metric("tangelo_inter_token_seconds_count"), 4);
    let memory = server.get("/v1/memory").json(200);
    assert!(memory["states"]["kept_bytes"].as_u64() > Some(0), "{memory}");
    assert!(memory["weights"]["bytes"].as_u64() > Some(0), "{memory}");
}

#[test]
fn text_becomes_tokens_and_text_again() {
    let server = Server::start(Plan::default());
    let text = "Grüße, <think>\u{1f34a}";
    let tokens = server.post("/tokenize", &json!({"prompt": text})).json(200);
    assert_eq!(tokens["count"].as_u64(), tokens["tokens"].as_array().map(|list| list.len() as u64));
    let back = server.post("/detokenize", &json!({"tokens": tokens["tokens"]})).json(200);
    assert_eq!(back["prompt"], text);
}

#[test]
fn a_stream_says_the_same_as_the_whole() {
    let server = Server::start(Plan::default());
    let mut body = chat(&[("user", "Tell me something.")], 40);
    let whole = server.post("/v1/chat/completions", &body).json(200);
    let said = &whole["choices"][0]["message"];
    body["stream"] = true.into();
    let stream = server.post("/v1/chat/completions", &body).text();
    assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
    let events =
        stream.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let (mut reasoning, mut content) = (String::new(), String::new());
    for event in events {
        let event: Value = serde_json::from_str(event).expect("JSON");
        let delta = &event["choices"][0]["delta"];
        reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
        content += delta["content"].as_str().unwrap_or_default();
    }
    assert_eq!(reasoning, said["reasoning_content"].as_str().unwrap_or_default());
    assert_eq!(content, said["content"].as_str().unwrap_or_default());
    assert!(!reasoning.is_empty() || !content.is_empty());
}

#[test]
fn the_next_turn_starts_warm_in_whichever_form_the_client_sends_the_last() {
    let server = Server::start(Plan::default());
    let system = "You answer every question in a few words and never make anything up. ".repeat(20);
    let first = chat(&[("system", &system), ("user", "Who are you?")], 30);
    let answer = server.post("/v1/chat/completions", &first).json(200);
    let message = &answer["choices"][0]["message"];
    // What follows from the answer is computed while there is nothing else to do.
    server.wait_for("tangelo_answers_active", 0);
    wait_for_warm(&server, 1);
    let with_reasoning = message.clone();
    let mut without = message.clone();
    without.as_object_mut().expect("an object").remove("reasoning_content");
    for said in [with_reasoning, without] {
        let mut second = first.clone();
        let messages = second["messages"].as_array_mut().expect("a list");
        messages.push(said);
        messages.push(json!({"role": "user", "content": "And who made you?"}));
        let usage = server.post("/v1/chat/completions", &second).json(200)["usage"].clone();
        let prompt = usage["prompt_tokens"].as_u64().expect("a number");
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number");
        let new =
            server.post("/tokenize", &json!({"prompt": "And who made you?"})).json(200)["count"].clone();
        // The new message, its markers and those of the answer to come.
        let most = new.as_u64().expect("a number") + 40;
        assert!(prompt - cached <= most, "{prompt} tokens, of them {cached} known, {most} new at most");
    }
}

/// Waits until as many prompts have been computed ahead as an answer has forms.
fn wait_for_warm(server: &Server, least: u64) {
    let started = std::time::Instant::now();
    while server.metric("tangelo_prompt_tokens_warmed_total") < least
        || server.metric("tangelo_warm_waiting") > 0
    {
        assert!(started.elapsed().as_secs() < 60, "nothing is computed ahead");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_miss_is_explained_by_the_field_it_comes_from() {
    let server = Server::start(Plan::default());
    let question = chat(&[("system", "Be brief."), ("user", "What is a tangelo?")], 4);
    server.post("/v1/chat/completions", &question).json(200);
    let other = chat(&[("system", "Be brief."), ("user", "What is a tangerine?")], 4);
    let report = server.post("/v1/cache/explain", &other).json(200);
    assert_eq!(report["difference"]["field"], "messages[1].content");
    assert!(
        report["reason"].as_str().is_some_and(|reason| reason.contains("goes on differently")),
        "{report}"
    );
    let matched = report["matched_tokens"].as_u64().expect("a number");
    assert!(matched > 0 && Some(matched) < report["prompt_tokens"].as_u64());
    let same = server.post("/v1/cache/explain", &question).json(200);
    assert_eq!(same["cached_tokens"], same["prompt_tokens"]);
    let nothing = server.post("/v1/cache/explain", &json!({"prompt": "zzz"})).json(200);
    assert_eq!((&nothing["cached_tokens"], &nothing["matched_tokens"]), (&json!(0), &json!(0)));
}

#[test]
fn a_schema_holds_after_the_reasoning_even_for_a_model_that_knows_nothing() {
    let server = Server::start(Plan::default());
    let schema = json!({
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "sure": {"type": "boolean"}},
        "required": ["colour", "sure"],
        "additionalProperties": false,
    });
    for seed in 0..4 {
        let body = json!({
            "messages": [{"role": "user", "content": "Which colour?"}],
            "max_tokens": 200,
            "seed": seed,
            "response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": schema, "strict": true}},
        });
        let answer = server.post("/v1/chat/completions", &body).json(200);
        let content = answer["choices"][0]["message"]["content"].as_str().expect("content").to_owned();
        let value: Value =
            serde_json::from_str(&content).unwrap_or_else(|error| panic!("{error} in {content}"));
        assert!(value["colour"] == "red" || value["colour"] == "blue", "{value}");
        assert!(value["sure"].is_boolean(), "{value}");
    }
}
