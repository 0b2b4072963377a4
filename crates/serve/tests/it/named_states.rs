//! `/v1/states`: names that stay, files that are believed only when they are sound.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::client::send;
use crate::server::{Plan, Scratch, Server};

fn plan(folder: &Path) -> Plan {
    Plan { state_folder: Some(folder.to_path_buf()), ..Plan::default() }
}

fn names(server: &Server) -> Vec<String> {
    let list = server.get("/v1/states").json(200);
    let data = list["data"].as_array().expect("a list");
    data.iter().map(|state| state["name"].as_str().expect("a name").to_owned()).collect()
}

fn conversation() -> Value {
    let system = "You are the keeper of a lighthouse and speak of nothing but the sea. ".repeat(30);
    json!([{"role": "system", "content": system}, {"role": "user", "content": "Is there a storm coming?"}])
}

fn state_files(folder: &Path) -> Vec<PathBuf> {
    let owners = fs::read_dir(folder.join("named")).expect("a folder");
    let files = owners.flat_map(|owner| fs::read_dir(owner.expect("an entry").path()).expect("a folder"));
    let paths = files.map(|file| file.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "state")).collect()
}

#[test]
fn a_state_survives_the_program_and_goes_on_as_if_nothing_had_been() {
    let scratch = Scratch::new("survives");
    let answer = |server: &Server| {
        let body = json!({
            "state": "lamp", "messages": [{"role": "user", "content": "And tomorrow?"}],
            "max_tokens": 30, "temperature": 0, "logprobs": true, "top_logprobs": 3,
        });
        server.post("/v1/chat/completions", &body).json(200)
    };
    let server = Server::start(plan(&scratch.0));
    let made = server.post("/v1/states", &json!({"name": "lamp", "messages": conversation()})).json(200);
    let before = answer(&server);
    // Not told to stop: the next server finds what a killed one leaves.
    let other = Server::start(plan(&scratch.0));
    assert_eq!(names(&other), ["lamp"]);
    let after = answer(&other);
    assert_eq!(after["choices"], before["choices"], "the same tokens with the same probabilities");
    let cached = after["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number");
    let state = made["tokens"].as_u64().expect("a number");
    assert!(cached as f64 >= 0.99 * state as f64, "{cached} of {state}");
    let whole = other.get("/v1/states/lamp").json(200);
    assert_eq!(whole["conversation"]["messages"].as_array().map(Vec::len), Some(2));
}

#[test]
fn states_are_forked_renamed_carried_elsewhere_and_deleted() {
    let (scratch, elsewhere) = (Scratch::new("forked"), Scratch::new("elsewhere"));
    let server = Server::start(plan(&scratch.0));
    let prompt = "The sea is calm today. ".repeat(40);
    server.post("/v1/states", &json!({"name": "one", "prompt": prompt})).json(200);
    assert_eq!(server.post("/v1/states/one/fork", &json!({"name": "two"})).json(200)["parent"], "one");
    server.request("PATCH", "/v1/states/one", &[], &json!({"name": "three"})).json(200);
    assert_eq!(names(&server), ["three", "two"]);
    server.post("/v1/states/two/fork", &json!({"name": "three"})).json(409);
    server.get("/v1/states/one").json(404);
    server.request("DELETE", "/v1/states/two", &[], &json!({})).json(200);
    let exported = server.get("/v1/states/three/export");
    assert_eq!(exported.status, 200);
    let bytes = exported.bytes();
    let other = Server::start(plan(&elsewhere.0));
    let imported = send(other.address, "PUT", "/v1/states/brought", &[], &bytes).json(200);
    assert!(imported["tokens"].as_u64() > Some(0), "{imported}");
    let body = json!({"state": "brought", "prompt": " And", "max_tokens": 8, "temperature": 0});
    let there = other.post("/v1/completions", &body).json(200);
    let full = json!({"prompt": format!("{prompt} And"), "max_tokens": 8, "temperature": 0});
    let here = server.post("/v1/completions", &full).json(200);
    assert_eq!(there["usage"]["prompt_tokens_details"]["cached_tokens"], imported["tokens"]);
    assert_eq!(there["usage"]["prompt_tokens"], here["usage"]["prompt_tokens"]);
    assert_eq!(there["choices"], here["choices"]);
}

#[test]
fn a_damaged_file_is_refused_with_a_reason() {
    let (scratch, elsewhere) = (Scratch::new("damaged"), Scratch::new("import"));
    let server = Server::start(plan(&scratch.0));
    server.post("/v1/states", &json!({"name": "lamp", "messages": conversation()})).json(200);
    let bytes = server.get("/v1/states/lamp/export").bytes();
    let other = Server::start(plan(&elsewhere.0));
    let mut tampered = bytes.clone();
    *tampered.last_mut().expect("it is not empty") ^= 1;
    for (body, expected) in [
        (&bytes[..bytes.len() / 2], "cut short"),
        (&tampered[..], "SHA-256"),
        (&b"no state at all, but long enough to look into"[..], "not a state file"),
    ] {
        let refused = send(other.address, "PUT", "/v1/states/bad", &[], body).json(400);
        let message = refused["error"]["message"].as_str().expect("a message");
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("tangelo-serve-"), "paths of the server are its own: {message}");
    }
    assert!(names(&other).is_empty() && state_files(&elsewhere.0).is_empty(), "nothing is left of it");
    // The file of a name is changed behind the server's back, of the same length.
    drop(server);
    let [file] = state_files(&scratch.0).try_into().expect("one file");
    fs::write(file, &tampered).expect("it is replaced");
    let server = Server::start(plan(&scratch.0));
    let body = json!({"state": "lamp", "messages": [{"role": "user", "content": "?"}], "max_tokens": 1});
    let refused = server.post("/v1/chat/completions", &body).json(409);
    assert!(refused["error"]["message"].as_str().is_some_and(|text| text.contains("SHA-256")), "{refused}");
}

#[test]
fn names_are_checked_and_a_server_without_a_folder_says_so() {
    let scratch = Scratch::new("names");
    let server = Server::start(plan(&scratch.0));
    for name in [".x", "a b", "a/b", ""] {
        let refused = server.post("/v1/states", &json!({"name": name, "prompt": "x"})).json(400);
        assert_eq!(refused["error"]["param"], "name");
    }
    server.post("/v1/states", &json!({"name": "x"})).json(400);
    let from = json!({"name": "x", "prompt": "x", "from_response": "resp_1"});
    assert_eq!(server.post("/v1/states", &from).json(400)["error"]["param"], "from_response");
    let body = json!({"state": "none", "prompt": "x", "max_tokens": 1});
    server.post("/v1/completions", &body).json(404);
    let without = Server::start(Plan::default());
    assert!(names(&without).is_empty());
    let refused = without.post("/v1/states", &json!({"name": "x", "prompt": "x"})).json(409);
    assert!(
        refused["error"]["message"].as_str().is_some_and(|text| text.contains("--state-dir")),
        "{refused}"
    );
}

#[test]
fn owners_do_not_see_each_other() {
    let scratch = Scratch::new("owners");
    let server = Server::start(Plan { keys: vec!["ann", "bob"], ..plan(&scratch.0) });
    let (ann, bob) = ([("Authorization", "Bearer ann")], [("x-api-key", "bob")]);
    let prompt = "Our secret is that there is none. ".repeat(20);
    let body = json!({"name": "secret", "prompt": prompt});
    server.request("POST", "/v1/states", &ann, &body).json(200);
    let list = |key| server.request("GET", "/v1/states", key, &json!({})).json(200)["data"].clone();
    assert_eq!((list(&ann).as_array().map(Vec::len), list(&bob)), (Some(1), json!([])));
    server.request("GET", "/v1/states/secret", &bob, &json!({})).json(404);
    server.request("GET", "/v1/states/secret/export", &bob, &json!({})).json(404);
    server.request("DELETE", "/v1/states/secret", &bob, &json!({})).json(404);
    let ask = json!({"prompt": prompt, "max_tokens": 1});
    let cached = |key| {
        let answer = server.request("POST", "/v1/completions", key, &ask).json(200);
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64()
    };
    assert_eq!(cached(&bob), Some(0), "what ann's prompt left is not bob's");
    assert!(cached(&ann) > Some(0));
    let explained =
        server.request("POST", "/v1/cache/explain", &bob, &json!({"prompt": "Our secret"})).json(200);
    let own = server.request("POST", "/v1/cache/explain", &ann, &json!({"prompt": "Our secret"})).json(200);
    assert_eq!(explained["matched_tokens"], own["matched_tokens"], "both have asked this by now");
    for wrong in [&[][..], &[("Authorization", "Bearer eve")], &[("x-api-key", "")]] {
        server.request("GET", "/v1/states", wrong, &json!({})).json(401);
        server.request("POST", "/v1/completions", wrong, &ask).json(401);
        server.request("GET", "/metrics", wrong, &json!({})).json(401);
    }
    assert_eq!(server.get("/health").status, 200, "whoever watches over the program has no key");
}
