//! A program as a server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tangelo_core::limits::TOOL_RESULT_BYTES_MAX;
use tangelo_mcp::{Config, Error, Secrets, ServerConfig, Servers, Transport, blocking};

use crate::fake::{self, BIG_BYTES, FLAKY};

/// A file name that nothing else uses; whatever an earlier run has left there is removed.
pub fn mark(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mcp-{name}.mark"));
    let _ = std::fs::remove_file(&path);
    path
}

pub fn arguments(value: Value) -> Map<String, Value> {
    value.as_object().expect("arguments are an object").clone()
}

fn one(server: ServerConfig) -> Config {
    Config { servers: vec![server] }
}

async fn connected(name: &str) -> Servers {
    Servers::connect(&one(fake::program(&mark(name)))).await.expect("the fake server answers")
}

#[tokio::test]
async fn all_pages_of_tools_are_listed_in_order() {
    let servers = connected("pages").await;
    let tools = servers.tools();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
    let expected = ["big", "crash", "echo", "environment", "fail", FLAKY, "hang", "picture", "refuse"];
    assert_eq!(names, expected);
    let echo = servers.tool("echo").expect("echo is there");
    assert_eq!((echo.server_name(), echo.original_name(), echo.is_allowed()), ("fake", "echo", false));
    let definition = json!({"type": "function", "function": {
        "name": "echo",
        "description": "The tool echo.",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer", "minimum": 1}}},
    }});
    assert_eq!(echo.tool().definition(), &definition);
    let hints = |name: &str| {
        let hints = servers.tool(name).expect(name).hints();
        (hints.is_read_only, hints.is_destructive, hints.is_idempotent)
    };
    assert_eq!(hints("echo"), (true, false, true));
    assert_eq!(hints("big"), (false, false, true));
    assert_eq!(hints("crash"), (false, true, false));
    assert_eq!(hints("fail"), (false, true, false), "what says nothing may do anything");
    servers.close().await;
}

#[tokio::test]
async fn results_reach_the_model_as_text() {
    let servers = connected("results").await;
    let exact = json!({"x": 5, "big": 12345678901234567890u64, "s": "\u{e9}\n"});
    let echoed = servers.call("echo", arguments(exact.clone())).await.expect("echo answers");
    assert_eq!(echoed.text, exact.to_string());
    let failed = servers.call("fail", Map::new()).await.expect("that a tool fails is a result");
    assert_eq!((failed.text.as_str(), failed.is_error), ("The tool failed: no luck", true));
    let big = servers.call("big", Map::new()).await.expect("big answers");
    assert_eq!(big.cut_bytes, BIG_BYTES - TOOL_RESULT_BYTES_MAX);
    assert!(big.text.contains("more bytes were cut off"));
    let picture = servers.call("picture", Map::new()).await.expect("picture answers");
    assert_eq!(picture.text, "[an image (image/png), 3 bytes, which cannot be shown to this model]");
    servers.close().await;
}

#[tokio::test]
async fn refusals_say_who_refused_and_why() {
    let servers = connected("refusals").await;
    let refused = servers.call("refuse", Map::new()).await.expect_err("the server refuses");
    let expected = "the MCP server `fake` did not run the tool `refuse`: x must be at least 1";
    assert_eq!(refused.to_string(), expected);
    let unknown = servers.call("nothing", Map::new()).await.expect_err("there is no such tool");
    assert!(unknown.to_string().contains("a tool `nothing`; there are: big, crash, echo"), "{unknown}");
    servers.close().await;
}

#[tokio::test]
async fn a_call_that_hangs_is_given_up_and_the_next_one_works() {
    let config = ServerConfig { timeout: Duration::from_secs(1), ..fake::program(&mark("hang")) };
    let servers = Servers::connect(&one(config)).await.expect("the fake server answers");
    let hung = servers.call("hang", Map::new()).await.expect_err("nothing comes");
    let expected = "`fake` has not answered within 1 s; `timeout_s` in its configuration allows more";
    assert!(hung.to_string().contains(expected), "{hung}");
    servers.call("echo", Map::new()).await.expect("the server is still there");
    servers.close().await;
}

#[tokio::test]
async fn a_server_that_dies_is_started_again() {
    let servers = connected("dies").await;
    let died = servers.call("crash", Map::new()).await.expect_err("the server dies");
    assert!(matches!(died, Error::Died { .. }), "{died}");
    let text = died.to_string();
    assert!(text.contains("`fake` ended while it was running the tool `crash`"), "{text}");
    assert!(text.ends_with("its last words:\n  the fake server has been told to die"), "{text}");
    let alive = servers.call("echo", Map::new()).await.expect("it was started again");
    assert_eq!(alive.text, "{}");
    servers.close().await;
}

#[tokio::test]
async fn what_only_reads_is_called_again_where_the_server_died() {
    let servers = connected("flaky").await;
    let answer = servers.call(FLAKY, Map::new()).await.expect("the second try answers");
    assert_eq!(answer.text, "alive");
    servers.close().await;
}

#[tokio::test]
async fn servers_get_the_environment_that_they_are_given_and_no_more() {
    let servers = connected("environment").await;
    let told = servers.call("environment", Map::new()).await.expect("it tells");
    let told: Value = serde_json::from_str(&told.text).expect("structured content is JSON");
    assert_eq!(told["greeting"], "hello");
    let names: Vec<&str> =
        told["names"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(names.contains(&"PATH"), "{names:?}");
    // Cargo sets many variables for a test; none of them is a server's business.
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")));
    assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");
    servers.close().await;
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let program = |command: &str, args: &[&str]| {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (command, env) = (command.to_owned(), Secrets::default());
        let transport = Transport::Stdio { command, args, env, cwd: None };
        one(ServerConfig { transport, timeout: Duration::from_secs(2), ..fake::program(Path::new("")) })
    };
    for (config, expected) in [
        (
            program("no-such-program-anywhere", &[]),
            "`fake`: cannot run `no-such-program-anywhere`: No such file",
        ),
        (
            program("sh", &["-c", "echo deep trouble >&2"]),
            "before it answered\nits last words:\n  deep trouble",
        ),
        (program("sh", &["-c", "exec sleep 30"]), "it has not answered within 2 s"),
    ] {
        let started = Instant::now();
        let problem = Servers::connect(&config).await.expect_err(expected).to_string();
        assert!(problem.contains(expected), "{problem}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn without_a_runtime_calls_can_be_stopped_and_servers_end_when_dropped() {
    let config = one(fake::program(&mark("blocking")));
    let servers = blocking::Servers::connect(&config, &|| false).expect("the fake server answers");
    assert_eq!(servers.tools().len(), 9);
    let echoed = servers.call("echo", arguments(json!({"x": 1})), &|| false).expect("echo answers");
    assert_eq!(echoed.text, "{\"x\":1}");
    let started = Instant::now();
    let is_late = || started.elapsed() > Duration::from_millis(300);
    let stopped = servers.call("hang", Map::new(), &is_late).expect_err("the user stops it");
    assert!(matches!(stopped, Error::Interrupted), "{stopped}");
    drop(servers);
    assert!(started.elapsed() < Duration::from_secs(5), "a server whose input is closed ends at once");
    let stopped = blocking::Servers::connect(&config, &|| true).expect_err("the user stops it");
    assert!(matches!(stopped, Error::Interrupted), "{stopped}");
}
