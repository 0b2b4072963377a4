//! `tangelo chat --mcp`: a server's tools are the model's, and calls are made only where somebody has allowed them.
//!
//! The model of the tests calls nothing by itself, so the calls are those of a saved conversation, which are taken up
//! where it ended. The server is a few lines of shell.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{arg, fixture, output, refused, scratch};
use serde_json::{Value, json};

/// Answers what a client asks; a call is noted in the file `calls`.
const SERVER: &str = r#"
while read -r line; do
    id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
    case "$line" in
    *'"method":"initialize"'*)
        result='{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
    *'"method":"tools/list"'*)
        result='{"tools":[{"name":"greet","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}]}' ;;
    *'"method":"tools/call"'*)
        echo "$line" >> calls
        result='{"content":[{"type":"text","text":"1\n2\n3\n4\n5"}]}' ;;
    *) continue ;;
    esac
    printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
"#;

struct Setting {
    folder: PathBuf,
    servers: PathBuf,
    talk: PathBuf,
}

/// A server, and a conversation that ends with these calls.
fn setting(test: &str, calls: &[&str]) -> Setting {
    let folder = scratch(test);
    let write = |name: &str, value: Value| {
        let path = folder.join(name);
        fs::write(&path, value.to_string()).expect("a file");
        path
    };
    let servers = write(
        "servers.json",
        json!({"mcpServers": {"shell": {"command": "sh", "args": ["-c", SERVER], "cwd": arg(&folder)}}}),
    );
    let call = |name: &&str| json!({"id": name, "function": {"name": name, "arguments": {"who": "you"}}});
    let calls: Vec<Value> = calls.iter().map(call).collect();
    let talk = write(
        "talk.json",
        json!({"messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": null, "tool_calls": calls},
        ]}),
    );
    Setting { folder, servers, talk }
}

impl Setting {
    /// What goes to standard output and to standard error, and the messages when it is over.
    #[track_caller]
    fn chat(&self, args: &[&str], lines: &[&str]) -> (String, String, Vec<Value>) {
        let (model, saved) = (fixture("tiny"), self.folder.join("saved.json"));
        let own = ["chat", arg(&model), "-n", "20", "--greedy", "--no-think", "--mcp", arg(&self.servers)];
        let typed: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let output = output(&[&own[..], args].concat(), format!("{typed}/save {}\n", arg(&saved)).as_bytes());
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{err}");
        let saved: Value = serde_json::from_slice(&fs::read(saved).expect("the file")).expect("JSON");
        (out, err, saved["messages"].as_array().expect("messages").clone())
    }

    fn calls(&self) -> usize {
        fs::read_to_string(self.folder.join("calls")).map_or(0, |calls| calls.lines().count())
    }
}

fn told(message: &Value) -> (&str, &str) {
    (message["name"].as_str().unwrap_or_default(), message["content"].as_str().unwrap_or_default())
}

#[cfg(unix)]
#[test]
fn allowed_calls_are_made_and_the_model_goes_on() {
    let setting = setting("mcp-allowed", &["greet", "greet"]);
    let load = ["--load", arg(&setting.talk), "--mcp-allow", "gr*"];
    let (out, err, messages) = setting.chat(&load, &["/tools", "/stats"]);
    assert_eq!(setting.calls(), 2);
    assert_eq!(messages.len(), 5, "{messages:?}");
    assert_eq!(
        (told(&messages[2]), told(&messages[3])),
        (("greet", "1\n2\n3\n4\n5"), ("greet", "1\n2\n3\n4\n5"))
    );
    assert_eq!(messages[4]["role"], "assistant");
    assert_eq!(out.lines().count(), 1, "one answer after both: {out}");
    let folded = "[result] 1\n2\n3\n4\n... (5 lines, 9 bytes; the model sees all of it)";
    assert_eq!(err.matches(folded).count(), 2, "{err}");
    assert!(err.contains("greet of shell, said to change nothing; called without asking"), "{err}");
}

#[cfg(unix)]
#[test]
fn without_anybody_to_ask_calls_are_refused() {
    let setting = setting("mcp-refused", &["greet"]);
    let load = ["--load", arg(&setting.talk)];
    let (_, err, messages) = setting.chat(&load, &["/tools"]);
    assert_eq!((setting.calls(), messages.len()), (0, 4), "{messages:?}");
    assert_eq!(told(&messages[2]), ("greet", "The call was not made: nobody is there who could allow it."));
    assert_eq!(messages[3]["role"], "assistant", "the model answers to that");
    assert!(err.contains("--mcp-allow names tools that need no consent"), "{err}");
    assert!(err.contains("greet of shell, said to change nothing; asks first"), "{err}");
}

#[cfg(unix)]
#[test]
fn calls_of_other_tools_are_the_user_s_and_the_rest_goes_on_behind_them() {
    let setting = setting("mcp-mixed", &["greet", "weather", "greet"]);
    let load = ["--load", arg(&setting.talk), "--mcp-allow", "*"];
    let (_, err, messages) = setting.chat(&load, &["/stats", "31 C"]);
    assert!(err.contains("3 messages; "), "the first result is there, the second is waited for: {err}");
    let told: Vec<&str> = messages[2..5].iter().map(|message| told(message).1).collect();
    assert_eq!(told, ["1\n2\n3\n4\n5", "31 C", "1\n2\n3\n4\n5"]);
    assert_eq!((messages.len(), setting.calls()), (6, 2));
}

#[cfg(unix)]
#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let setting = setting("mcp-wrong", &[]);
    let model = fixture("tiny");
    let with = |servers: &Path, more: &[&str], status: i32, expected: &str| {
        refused(&[&["chat", arg(&model), "--mcp", arg(servers)], more].concat(), status, expected);
    };
    with(Path::new("/no/such/file"), &[], 1, "cannot read the MCP configuration /no/such/file");
    let broken = setting.folder.join("broken.json");
    fs::write(&broken, r#"{"mcpServers": {"b": {"command": "no-such-program-anywhere"}}}"#).expect("a file");
    with(&broken, &[], 1, "cannot connect to the MCP server `b`: cannot run `no-such-program-anywhere`");
    let tools = setting.folder.join("tools.json");
    fs::write(&tools, r#"[{"function": {"name": "greet"}}]"#).expect("a file");
    let expected = "both the file of tools and an MCP server have a tool `greet`: rename one";
    with(&setting.servers, &["--tools", arg(&tools)], 1, expected);
    refused(&["chat", arg(&model), "--mcp-allow", "x"], 2, "--mcp <FILE>");
}
