//! MCP servers beside this one: how they end.

use std::fs;

use serde_json::json;
use tangelo_mcp::{Allowed, Config};

use crate::server::{Plan, Scratch, Server};

/// Has one tool; when its input ends it takes a moment to write that it has ended.
const SERVER: &str = r#"
    while read -r line; do
        id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
        case "$line" in
        *'"method":"initialize"'*)
            result='{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
        *'"method":"tools/list"'*)
            result='{"tools":[{"name":"ours","inputSchema":{"type":"object"}}]}' ;;
        *) continue ;;
        esac
        printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
    done
    sleep 0.3
    echo ended >"$1/ended"
"#;

#[test]
fn an_mcp_server_has_time_to_end_by_itself() {
    let scratch = Scratch::new("mcp-end");
    fs::create_dir_all(&scratch.0).expect("a folder");
    let args = ["-c", SERVER, "sh", scratch.0.to_str().expect("UTF-8")];
    let config = json!({"mcpServers": {"s": {"command": "sh", "args": args}}}).to_string();
    let config = Config::parse(&config, &|_| None).expect("a configuration");
    let mut server = Server::start(Plan { tools: Some((config, Allowed::none())), ..Plan::default() });
    assert_eq!(server.get("/health").status, 200);
    server.stop();
    server.join();
    let told = fs::read_to_string(scratch.0.join("ended"));
    assert!(told.is_ok(), "it was killed before it could end: {told:?}");
}
