//! Several servers in one conversation, and calls that nobody is asked about.

use std::time::{Duration, Instant};

use serde_json::{Map, json};
use tangelo_chat::{Message, Role, ToolCall};
use tangelo_mcp::{Allowed, Config, ServerConfig, Servers, answer_calls};

use crate::fake;
use crate::stdio::{arguments, mark};

/// The fake server twice; `second` may use echo.
async fn two() -> Servers {
    let first = ServerConfig { name: "first".into(), ..fake::program(&mark("first")) };
    let second = ServerConfig {
        name: "second".into(),
        allow: vec!["ec*".into(), "fail".into(), "refuse".into(), "hang".into()],
        timeout: Duration::from_secs(2),
        ..fake::program(&mark("second"))
    };
    Servers::connect(&Config { servers: vec![first, second] }).await.expect("both answer")
}

fn calls(calls: &[(&str, i64)]) -> Message {
    let calls = calls.iter().enumerate().map(|(i, (name, x))| ToolCall {
        id: Some(format!("call_{i}")),
        name: (*name).to_owned(),
        arguments: arguments(json!({ "x": x })),
    });
    Message { content: None, tool_calls: calls.collect(), ..Message::new(Role::Assistant, "") }
}

#[tokio::test]
async fn tools_of_two_servers_have_names_of_their_own() {
    let servers = two().await;
    let tools = servers.tools();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
    assert_eq!(names.len(), 18);
    assert_eq!((names[2], names[11]), ("first__echo", "second__echo"));
    let answer = servers.call("second__echo", Map::new()).await.expect("echo answers");
    assert_eq!(answer.text, "{}");
    servers.close().await;
}

#[tokio::test]
async fn calls_are_run_only_if_all_of_them_may_be() {
    let servers = two().await;
    let none = Allowed::none();
    let runs = async |allowed: &Allowed, names: &[(&str, i64)]| {
        answer_calls(&servers, allowed, &calls(names)).await.map(|messages| messages.len())
    };
    assert_eq!(runs(&none, &[("second__echo", 1)]).await, Some(1), "the configuration allows it");
    assert_eq!(runs(&none, &[("first__echo", 1)]).await, None);
    assert_eq!(runs(&none, &[("second__echo", 1), ("first__echo", 2)]).await, None);
    assert_eq!(runs(&none, &[("second__echo", 1), ("elsewhere", 2)]).await, None);
    assert_eq!(runs(&none, &[]).await, None);
    let all = Allowed::new(["*".to_owned()]);
    assert_eq!(runs(&all, &[("second__echo", 1), ("first__echo", 2)]).await, Some(2));
    assert_eq!(runs(&all, &[("elsewhere", 2)]).await, None);
    let mut one = Allowed::none();
    one.add(servers.tool("first__echo").expect("it is there"));
    assert_eq!(runs(&one, &[("first__echo", 1)]).await, Some(1));
    assert_eq!(runs(&one, &[("first__fail", 1)]).await, None);
    servers.close().await;
}

#[tokio::test]
async fn calls_are_run_at_once_and_answered_in_their_order() {
    let servers = two().await;
    let message = calls(&[
        ("second__hang", 0),
        ("second__hang", 1),
        ("second__echo", 2),
        ("second__refuse", 3),
        ("second__fail", 4),
    ]);
    let started = Instant::now();
    let answers = answer_calls(&servers, &Allowed::none(), &message).await.expect("all are allowed");
    // Each of the two that hang takes its two seconds: one after the other they would take four.
    assert!(started.elapsed() < Duration::from_millis(3500), "{:?}", started.elapsed());
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(
            (answer.role.as_str(), answer.tool_call_id.as_deref()),
            ("tool", Some(&*format!("call_{i}")))
        );
        assert_eq!(answer.name.as_deref(), Some(message.tool_calls[i].name.as_str()));
    }
    let texts: Vec<&str> = answers.iter().filter_map(|answer| answer.content.as_deref()).collect();
    assert!(texts[0].starts_with("The call failed: the MCP server `second` has not answered"), "{texts:?}");
    assert_eq!(texts[2], "{\"x\":2}");
    assert!(texts[3].starts_with("The call failed: ") && texts[3].ends_with("x must be at least 1"));
    assert_eq!(texts[4], "The tool failed: no luck");
    servers.close().await;
}
