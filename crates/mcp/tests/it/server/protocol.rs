//! What the scripted server says: JSON-RPC by hand, so that the client is tested against the protocol and not against
//! its own library. `tools/list` has two tools a page.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// Tools per page of the list.
const PAGE: usize = 2;
/// How long one of two callers of `meet` waits for the other.
const MEET_WAIT: Duration = Duration::from_secs(5);

/// What is remembered between requests.
pub struct Script {
    /// Where what is to outlive the server is written.
    folder: PathBuf,
    has_more: Mutex<bool>,
    meeting: Mutex<usize>,
    met: Condvar,
}

/// What comes of a message.
pub enum Reply {
    /// Nothing is sent: it was a notification, or the client is to wait.
    Nothing,
    /// These messages, the answer last.
    Messages(Vec<Value>),
    /// The server ends, with these last words.
    Die(&'static str),
}

impl Script {
    pub fn new(folder: &Path) -> Script {
        let has_more = folder.join("more").exists().into();
        Script { folder: folder.into(), has_more, meeting: 0.into(), met: Condvar::new() }
    }

    /// Answers one message.
    pub fn answer(&self, message: &Value) -> Reply {
        let params = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "initialize" => result(
                message,
                json!({
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": { "tools": { "listChanged": true } },
                    "serverInfo": { "name": "scripted", "version": "1" },
                }),
            ),
            "tools/list" => {
                let tools = self.tools();
                let from = params["cursor"].as_str().map_or(0, |cursor| cursor.parse().expect("our cursor"));
                let mut page = json!({ "tools": tools[from..tools.len().min(from + PAGE)] });
                if from + PAGE < tools.len() {
                    page["nextCursor"] = (from + PAGE).to_string().into();
                }
                result(message, page)
            }
            "tools/call" => self.call(message, params["name"].as_str().unwrap_or_default()),
            "notifications/cancelled" => {
                self.note("cancelled");
                Reply::Nothing
            }
            method if method.starts_with("notifications/") => Reply::Nothing,
            _ => error(message, -32601, "no such method"),
        }
    }

    /// In no order, as servers that keep them in a hash map list them.
    fn tools(&self) -> Vec<Value> {
        let tool = |name: &str, annotations: Value| {
            json!({
                "name": name,
                "description": format!("Does {name}."),
                "inputSchema": { "type": "object", "properties": { "a": { "type": "number" } } },
                "annotations": annotations,
            })
        };
        let mut tools: Vec<Value> =
            ["refuse", "fail", "hang", "crash", "huge", "image", "meet", "environment", "more"]
                .iter()
                .map(|name| tool(name, json!({})))
                .collect();
        tools.push(tool("echo", json!({ "readOnlyHint": true })));
        tools.push(tool("crash_once", json!({ "idempotentHint": true, "destructiveHint": false })));
        if *self.has_more.lock().expect("no panics") {
            tools.push(tool("another", json!({})));
        }
        tools
    }

    fn call(&self, message: &Value, name: &str) -> Reply {
        let text = |text: String| result(message, json!({ "content": [{ "type": "text", "text": text }] }));
        match name {
            "echo" => text(message["params"]["arguments"].to_string()),
            "fail" => result(
                message,
                json!({ "content": [{ "type": "text", "text": "no such file" }], "isError": true }),
            ),
            "refuse" => error(message, -32602, "a is missing"),
            "hang" => Reply::Nothing,
            "crash" => Reply::Die("out of cheese"),
            "crash_once" if self.note("crashed") => Reply::Die("once"),
            "crash_once" => text("the second time".into()),
            "huge" => text("x".repeat(1 << 20)),
            "image" => result(
                message,
                json!({ "content": [{ "type": "image", "data": "AAAA", "mimeType": "image/png" }] }),
            ),
            "meet" => text(if self.meet() { "met".into() } else { "nobody came".into() }),
            "environment" => {
                let names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
                text(names.join(" "))
            }
            "more" => {
                *self.has_more.lock().expect("no panics") = true;
                let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
                match text("there is one more".into()) {
                    Reply::Messages(answer) => Reply::Messages([vec![changed], answer].concat()),
                    other => other,
                }
            }
            _ => error(message, -32602, "no such tool"),
        }
    }

    /// Whether two callers were here at the same time.
    fn meet(&self) -> bool {
        let mut present = self.meeting.lock().expect("no panics");
        *present += 1;
        self.met.notify_all();
        let (_present, waited) =
            self.met.wait_timeout_while(present, MEET_WAIT, |present| *present < 2).expect("no panics");
        !waited.timed_out()
    }

    /// Leaves a mark in the folder; returns whether it is the first.
    fn note(&self, name: &str) -> bool {
        std::fs::File::create_new(self.folder.join(name)).is_ok()
    }
}

fn result(message: &Value, result: Value) -> Reply {
    Reply::Messages(vec![json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })])
}

fn error(message: &Value, code: i64, text: &str) -> Reply {
    let error = json!({ "code": code, "message": text });
    Reply::Messages(vec![json!({ "jsonrpc": "2.0", "id": message["id"], "error": error })])
}
