//! Folders, configurations and runs that the tests share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tangelo_mcp::{Config, McpTool, Servers};

/// A new folder of its own.
pub fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("tangelo-mcp-{}-{name}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    folder
}

/// The entry of a scripted server that works in `folder`.
pub fn entry(folder: &Path, mode: &str) -> Value {
    json!({
        "command": env!("CARGO_BIN_EXE_scripted-mcp-server"),
        "args": [folder.to_str().expect("UTF-8"), mode],
        "timeout_s": 20,
    })
}

/// A configuration of these servers.
pub fn config(servers: Value) -> Config {
    Config::parse(&json!({ "mcpServers": servers }).to_string(), &|_| None).expect("a configuration")
}

/// Runs the future on a runtime like the one of a server.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// Arguments of a call.
pub fn arguments(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// What a call returns, or the sentence about why it returns nothing.
pub async fn call(servers: &Servers, name: &str) -> Result<String, String> {
    let outcome = servers.call(name, Map::new()).await;
    outcome.map(|outcome| outcome.text).map_err(|error| error.to_string())
}

/// The names of the tools.
pub fn names(servers: &Servers) -> Vec<String> {
    servers.tools().iter().map(|tool: &McpTool| tool.name().to_owned()).collect()
}

/// Waits until the tools are others. A notification has no answer, so it is heard some time after it was sent.
pub async fn until_changed(servers: &Servers) {
    let began = Instant::now();
    while !servers.refresh().await.expect("the list is good") {
        assert!(began.elapsed() < Duration::from_secs(10), "the tools have not changed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
