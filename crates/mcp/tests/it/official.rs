//! Servers by the protocol's official Python library, where `TANGELO_MCP_PYTHON` names a Python that has it (the package
//! `mcp`, of version 1 or 2).

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tangelo_mcp::Servers;

use crate::support::{arguments, call, config, names, run};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/official/server.py");

/// The Python; `None` says on standard error that there is none.
fn python() -> Option<String> {
    let python = std::env::var("TANGELO_MCP_PYTHON").ok();
    if python.is_none() {
        eprintln!("skipped: TANGELO_MCP_PYTHON does not name a Python with the package `mcp`");
    }
    python
}

/// What both transports are to give.
async fn check(entry: Value) -> Servers {
    let servers = Servers::connect(&config(json!({ "official": entry }))).await.expect("it is good");
    assert_eq!(names(&servers), ["add", "divide", "fragile", "picture", "sleep", "talk"]);
    let add = servers.tool("add").expect("it is listed");
    assert!(add.hints().is_read_only);
    let function = &add.tool().definition()["function"];
    assert_eq!(function["description"], "Adds two numbers.");
    assert_eq!(function["parameters"]["required"], json!(["a"]));
    let of = async |name: &str, given: Value| servers.call(name, arguments(given)).await;
    assert_eq!(of("add", json!({ "a": 2 })).await.expect("a sum").text, "2.5");
    let divided = of("divide", json!({ "a": 1, "b": 0 })).await.expect("an outcome");
    assert!(divided.is_error && divided.text.contains("Error executing tool divide"), "{divided:?}");
    let unfit = of("add", json!({ "a": "two" })).await.expect("an outcome");
    assert!(unfit.is_error && unfit.text.contains("valid number"), "{unfit:?}");
    let picture = of("picture", json!({})).await.expect("a picture");
    assert_eq!(picture.text, "[an image (image/pbm), 8 bytes, which cannot be shown to this model]");
    assert_eq!(of("talk", json!({})).await.expect("it talks").text, "done");
    let slept = of("sleep", json!({ "seconds": 60 })).await.expect_err("it takes too long").to_string();
    assert!(slept.contains("has not answered within 20 s"), "{slept}");
    assert_eq!(of("sleep", json!({ "seconds": 0 })).await.expect("at once").text, "awake");
    servers
}

#[test]
fn the_official_server_answers_over_stdio() {
    let Some(python) = python() else { return };
    run(async {
        let entry = json!({ "command": python, "args": [SERVER, "stdio"], "timeout_s": 20 });
        let servers = check(entry).await;
        assert_eq!(call(&servers, "fragile").await.as_deref(), Ok("whole"), "it is started again");
        servers.close().await;
    });
}

#[test]
fn the_official_server_answers_over_http() {
    let Some(python) = python() else { return };
    let mut child =
        Command::new(python).args([SERVER, "http"]).stdout(Stdio::piped()).spawn().expect("Python runs");
    let mut port = String::new();
    let out = child.stdout.take().expect("it is piped");
    BufReader::new(out).read_line(&mut port).expect("the port");
    run(async {
        let url = format!("http://127.0.0.1:{}/mcp", port.trim());
        check(json!({ "url": url, "timeout_s": 20 })).await.close().await;
    });
    child.kill().and_then(|()| child.wait()).expect("it ends");
}
