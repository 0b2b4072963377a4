//! A server with tools that do what servers do: answer, fail, refuse, hang, die, talk too much.
//!
//! It is written without a library of the protocol, so that it shares no mistake with the one under test. As a program
//! it is this test program, started again with [`fake_program`] as the only test.

pub mod http;

use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::path::Path;
use std::process::exit;
use std::time::Duration;

use serde_json::{Value, json};
use tangelo_mcp::{Secrets, ServerConfig, Transport};

/// Set in the environment of a program that is to be a server; its value is the name of a file that [`FLAKY`] makes.
const MARK: &str = "FAKE_MCP_MARK";
/// A tool that only reads and ends the server when it is called for the first time.
pub const FLAKY: &str = "flaky";
/// Bytes that the tool `big` returns.
pub const BIG_BYTES: usize = 1 << 20;

/// What comes of a message.
pub enum Reply {
    Answer(Value),
    /// Nothing is said to a notification.
    Nothing,
    /// Never an answer.
    Hang,
    /// The end of the server.
    Die,
}

/// The program of the fake server; `mark` is a file that does not exist yet.
pub fn program(mark: &Path) -> ServerConfig {
    let command = std::env::current_exe().expect("the test program has a name");
    let env = [(MARK.to_owned(), mark.display().to_string()), ("GREETING".to_owned(), "hello".to_owned())];
    let transport = Transport::Stdio {
        command: command.display().to_string(),
        args: ["--exact", "fake::fake_program", "--nocapture"].map(String::from).into(),
        env: Secrets(env.into()),
        cwd: None,
    };
    ServerConfig { name: "fake".into(), transport, allow: Vec::new(), timeout: Duration::from_secs(20) }
}

/// The server where it is asked for; else a check of its own manners. The test harness writes a line of its own to
/// standard output first, as many servers do: that a client has to look past such lines is part of every test here.
#[test]
fn fake_program() {
    let Some(mark) = std::env::var_os(MARK) else {
        let id = json!({"jsonrpc": "2.0", "id": 7, "method": "ping"});
        assert!(matches!(reply(&id, None), Reply::Answer(answer) if answer["id"] == 7));
        return;
    };
    for line in stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        match reply(&message, Some(Path::new(&mark))) {
            Reply::Answer(answer) => writeln!(stdout(), "{answer}").expect("somebody reads"),
            Reply::Nothing | Reply::Hang => {}
            Reply::Die => {
                eprintln!("the fake server has been told to die");
                exit(3);
            }
        }
    }
    exit(0);
}

/// The answer to a message. Without a mark, nothing is remembered and [`FLAKY`] answers.
pub fn reply(message: &Value, mark: Option<&Path>) -> Reply {
    let Some(id) = message.get("id") else { return Reply::Nothing };
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {"listChanged": true}},
            "serverInfo": {"name": "fake", "version": "1"},
        }),
        Some("ping") => json!({}),
        Some("tools/list") => tools(message["params"]["cursor"].as_str()),
        Some("tools/call") => match call(&message["params"], mark) {
            Ok(result) => result,
            Err(reply) => return reply(id),
        },
        _ => return error(id, -32601, "there is no such method"),
    };
    Reply::Answer(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

/// Two pages, in no order.
fn tools(cursor: Option<&str>) -> Value {
    let tool = |name: &str, hints: Value| {
        json!({
            "name": name,
            "description": format!("The tool {name}."),
            "inputSchema": {"type": "object", "properties": {"x": {"type": "integer", "minimum": 1}}},
            "annotations": hints,
        })
    };
    match cursor {
        None => json!({
            "tools": [
                tool("refuse", json!({})),
                tool("echo", json!({"readOnlyHint": true})),
                tool("crash", json!({"destructiveHint": true})),
            ],
            "nextCursor": "page two",
        }),
        Some("page two") => json!({
            "tools": [
                tool(FLAKY, json!({"readOnlyHint": true})),
                tool("big", json!({"destructiveHint": false, "idempotentHint": true})),
                tool("fail", json!({})),
                tool("hang", json!({})),
                tool("picture", json!({})),
                tool("environment", json!({})),
            ],
        }),
        Some(other) => json!({"tools": [tool(&format!("wrong cursor {other}"), json!({}))]}),
    }
}

/// The result of a call, or what comes of it instead.
fn call(params: &Value, mark: Option<&Path>) -> Result<Value, fn(&Value) -> Reply> {
    let text = |text: String| json!({"content": [{"type": "text", "text": text}]});
    let result = match params["name"].as_str().unwrap_or_default() {
        "echo" => text(params["arguments"].to_string()),
        "fail" => json!({"content": [{"type": "text", "text": "no luck"}], "isError": true}),
        "refuse" => return Err(|id| error(id, -32602, "x must be at least 1")),
        "hang" => return Err(|_| Reply::Hang),
        "crash" => return Err(|_| Reply::Die),
        FLAKY => match mark {
            Some(mark) if !mark.exists() => {
                std::fs::write(mark, "once").expect("the mark is made");
                return Err(|_| Reply::Die);
            }
            _ => text("alive".into()),
        },
        "big" => text("x".repeat(BIG_BYTES)),
        "picture" => json!({"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]}),
        "environment" => {
            let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
            names.sort_unstable();
            json!({"structuredContent": {"names": names, "greeting": std::env::var("GREETING").ok()}})
        }
        _ => return Err(|id| error(id, -32602, "there is no such tool")),
    };
    Ok(result)
}

fn error(id: &Value, code: i64, message: &str) -> Reply {
    Reply::Answer(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}))
}
