//! Servers that are programs of ours.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tangelo_chat::{Message, Role, ToolCall};
use tangelo_core::limits::TOOL_RESULT_BYTES_MAX;
use tangelo_mcp::{Allowed, Error, Servers, answer_calls, blocking};

use crate::support::{arguments, call, config, entry, names, run, scratch, until_changed};

const ALL: [&str; 11] =
    ["crash", "crash_once", "echo", "environment", "fail", "hang", "huge", "image", "meet", "more", "refuse"];

#[test]
fn tools_of_all_pages_are_listed_and_called() {
    let folder = scratch("call");
    run(async {
        let servers = Servers::connect(&config(json!({ "one": entry(&folder, "") }))).await;
        let servers = servers.expect("the server is good");
        assert_eq!(names(&servers), ALL);
        let tool = servers.tool("echo").expect("it is listed");
        assert_eq!(
            tool.tool().definition(),
            &json!({ "type": "function", "function": { "name": "echo", "description": "Does echo.",
                "parameters": { "type": "object", "properties": { "a": { "type": "number" } } } } })
        );
        assert!(tool.hints().is_read_only && !tool.hints().is_destructive && tool.hints().is_idempotent);
        let unknown = servers.tool("fail").expect("it is listed").hints();
        assert!(!unknown.is_read_only && unknown.is_destructive && !unknown.is_idempotent);

        // Numbers come and go as they were written.
        let given: Value =
            serde_json::from_str(r#"{"b": 12345678901234567890123, "a": 1.50}"#).expect("JSON");
        let outcome = servers.call("echo", arguments(given.clone())).await.expect("it echoes");
        assert_eq!((outcome.text, outcome.is_error), (given.to_string(), false));

        let failed = servers.call("fail", arguments(json!({}))).await.expect("failing is an outcome");
        assert_eq!((failed.text.as_str(), failed.is_error), ("The tool failed: no such file", true));
        let image = call(&servers, "image").await.expect("an image");
        assert_eq!(image, "[an image (image/png), 3 bytes, which cannot be shown to this model]");
        let huge = servers.call("huge", arguments(json!({}))).await.expect("a long text");
        assert_eq!(huge.cut_bytes, (1 << 20) - TOOL_RESULT_BYTES_MAX);
        let refused = call(&servers, "refuse").await.expect_err("it refuses");
        assert_eq!(refused, "the MCP server `one` did not run the tool `refuse`: a is missing");
        let unknown = call(&servers, "ech").await.expect_err("there is none");
        assert!(unknown.contains("no MCP server offers a tool `ech`; there are: crash, crash_once, echo, "));
        let environment = call(&servers, "environment").await.expect("names");
        assert!(environment.contains("PATH") && !environment.contains("CARGO"), "{environment}");
        servers.close().await;
    });
}

#[test]
fn tools_of_two_servers_have_names_of_their_own() {
    let folders = [scratch("two"), scratch("two")];
    run(async {
        let two = json!({ "my files": entry(&folders[0], ""), "b": entry(&folders[1], "") });
        let servers = Servers::connect(&config(two)).await.expect("both are good");
        let expected: Vec<String> = ["my_files__", "b__"]
            .iter()
            .flat_map(|server| ALL.map(|tool| format!("{server}{tool}")))
            .collect();
        assert_eq!(names(&servers), expected);
        let tool = servers.tool("b__echo").expect("it is listed");
        assert_eq!((tool.server_name(), tool.original_name()), ("b", "echo"));
        assert_eq!(call(&servers, "my_files__echo").await.as_deref(), Ok("{}"));
        servers.close().await;
    });
}

#[test]
fn a_call_that_takes_too_long_is_cancelled() {
    let folder = scratch("hang");
    run(async {
        let mut server = entry(&folder, "");
        server["timeout_s"] = json!(1);
        let servers = Servers::connect(&config(json!({ "one": server }))).await.expect("it is good");
        let error = call(&servers, "hang").await.expect_err("it hangs");
        assert!(error.contains("`one` has not answered within 1 s"), "{error}");
        appears(&folder.join("cancelled")).await;
        assert_eq!(call(&servers, "echo").await.as_deref(), Ok("{}"), "it can be used further");

        std::fs::remove_file(folder.join("cancelled")).expect("it was there");
        let dropped = tokio::time::timeout(Duration::from_millis(200), call(&servers, "hang")).await;
        assert!(dropped.is_err());
        appears(&folder.join("cancelled")).await;
        servers.close().await;
    });
}

#[test]
fn a_server_that_died_is_started_again_and_only_harmless_calls_are_repeated() {
    let folder = scratch("crash");
    run(async {
        let servers = Servers::connect(&config(json!({ "one": entry(&folder, "") }))).await.expect("good");
        let error = servers.call("crash", arguments(json!({}))).await.expect_err("it crashes");
        assert!(matches!(error, Error::Died { .. }), "{error}");
        let sentence = error.to_string();
        assert!(sentence.contains("`one` ended while it was running the tool `crash`"), "{sentence}");
        assert!(sentence.ends_with("its last words:\n  ready\n  out of cheese"), "{sentence}");
        assert_eq!(call(&servers, "echo").await.as_deref(), Ok("{}"), "it was started again");
        assert_eq!(call(&servers, "crash_once").await.as_deref(), Ok("the second time"));
        assert!(!servers.refresh().await.expect("the list is good"), "it has the same tools as before");
        std::fs::write(folder.join("more"), "").expect("the folder can be written to");
        assert_eq!(call(&servers, "crash_once").await.as_deref(), Ok("the second time"));
        assert!(!servers.refresh().await.expect("nothing is asked"), "nothing has been said");
        servers.call("crash", arguments(json!({}))).await.expect_err("it crashes");
        assert!(servers.refresh().await.expect("the list is good"), "the server that runs now has one more");
        servers.close().await;
    });
}

#[test]
fn a_server_that_cannot_be_used_is_refused_with_its_last_words() {
    let folder = scratch("broken");
    let refused = |server: Value| {
        let good = scratch("good");
        let both = config(json!({ "good": entry(&good, ""), "bad": server }));
        let error = run(Servers::connect(&both)).expect_err("one is bad").to_string();
        assert!(error.starts_with("cannot connect to the MCP server `bad`: "), "{error}");
        error
    };
    let error = refused(entry(&folder, "broken"));
    assert!(error.contains("it ended, or closed the connection, before it answered"), "{error}");
    assert!(error.ends_with("\nits last words:\n  the cheese is locked"), "{error}");
    let mut silent = entry(&folder, "silent");
    silent["timeout_s"] = json!(0.5);
    let began = Instant::now();
    assert!(refused(silent).contains("it has not answered within 0.5 s"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let error = refused(json!({ "command": "no-such-program-anywhere" }));
    assert!(error.contains("cannot run `no-such-program-anywhere`: "), "{error}");
}

#[test]
fn a_changed_list_is_read_between_turns() {
    let folder = scratch("more");
    run(async {
        let servers = Servers::connect(&config(json!({ "one": entry(&folder, "") }))).await.expect("good");
        assert!(!servers.refresh().await.expect("nothing is asked"), "nothing has changed");
        call(&servers, "more").await.expect("it says so");
        assert_eq!(names(&servers), ALL, "within a turn tools stay");
        until_changed(&servers).await;
        assert_eq!(names(&servers)[0], "another");
        assert!(!servers.refresh().await.expect("nothing is asked"));
        servers.close().await;
    });
}

#[test]
fn calls_of_a_message_run_at_once_and_only_if_all_are_allowed() {
    let folder = scratch("calls");
    let call = |name: &str, id: &str| ToolCall {
        id: Some(id.into()),
        name: name.into(),
        arguments: arguments(json!({ "a": 1 })),
    };
    let message = |calls: Vec<ToolCall>| Message { tool_calls: calls, ..Message::new(Role::Assistant, "") };
    run(async {
        let mut server = entry(&folder, "");
        server["allow"] = json!(["ech*", "fail"]);
        let servers = Servers::connect(&config(json!({ "one": server }))).await.expect("good");
        let none = Allowed::none();
        assert_eq!(answer_calls(&servers, &none, &message(vec![])).await, None);
        let mixed = message(vec![call("echo", "1"), call("meet", "2")]);
        assert_eq!(answer_calls(&servers, &none, &mixed).await, None, "`meet` is not allowed");
        let foreign = message(vec![call("echo", "1"), call("weather", "2")]);
        assert_eq!(answer_calls(&servers, &Allowed::new(["*".into()]), &foreign).await, None);

        let mut allowed = Allowed::new(["cra*".into()]);
        allowed.add(&servers.tool("meet").expect("it is listed"));
        let three = message(vec![call("meet", "1"), call("echo", "3"), call("meet", "4")]);
        let answers = answer_calls(&servers, &allowed, &three).await.expect("all are allowed");
        let told: Vec<_> =
            answers.iter().map(|m| (m.tool_call_id.as_deref(), m.content.as_deref())).collect();
        assert_eq!(
            told,
            [(Some("1"), Some("met")), (Some("3"), Some("{\"a\":1}")), (Some("4"), Some("met"))]
        );
        assert!(answers.iter().all(|m| m.role == Role::Tool && m.name.is_some()));

        let failures = message(vec![call("fail", "1"), call("crash", "2")]);
        let answers = answer_calls(&servers, &allowed, &failures).await.expect("all are allowed");
        let text = |at: usize| answers[at].content.as_deref().unwrap_or_default();
        assert!(text(1).starts_with("The call failed: the MCP server `one` ended while"), "{}", text(1));
        servers.close().await;
    });
}

#[test]
fn a_program_without_a_runtime_is_served_and_leaves_no_process_behind() {
    let folder = scratch("blocking");
    let one = config(json!({ "one": entry(&folder, "stubborn") }));
    let servers = blocking::Servers::connect(&one, &|| false).expect("it is good");
    assert_eq!(servers.tools().len(), ALL.len());
    let echoed = servers.call("echo", arguments(json!({ "a": 1 })), &|| false).expect("it echoes");
    assert_eq!(echoed.text, "{\"a\":1}");
    let stop = AtomicBool::new(false);
    let stopped = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
        });
        servers.call("hang", arguments(json!({})), &|| stop.load(Ordering::Relaxed))
    });
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    assert!(!servers.refresh().expect("nothing is asked"), "nothing has changed");

    let pid = std::fs::read_to_string(folder.join("pid")).expect("it has noted it");
    let process = Path::new("/proc").join(pid);
    let is_linux = Path::new("/proc/self").exists();
    assert!(!is_linux || process.exists());
    // It does not end when its input does, and has to be killed.
    let began = Instant::now();
    drop(servers);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(has_ended(&folder.join("pid")), "the server still runs");
    let stopped = blocking::Servers::connect(&one, &|| true);
    assert!(matches!(stopped, Err(Error::Interrupted)));
}

#[test]
fn what_a_server_has_started_ends_with_it() {
    if !Path::new("/proc/self").exists() {
        println!("skipped: there is no /proc to look for processes in");
        return;
    }
    for mode in ["parent", "stubborn parent"] {
        let folder = scratch("parent");
        run(async {
            let servers = Servers::connect(&config(json!({ "one": entry(&folder, mode) }))).await;
            let servers = servers.expect("it is good");
            appears(&folder.join("child/pid")).await;
            servers.close().await;
        });
        for of in ["pid", "child/pid"] {
            assert!(has_ended(&folder.join(of)), "{of} of the {mode} still runs");
        }
    }
    let folder = scratch("parent");
    let mut server = entry(&folder, "silent parent");
    server["timeout_s"] = json!(0.5);
    run(async {
        let refused = Servers::connect(&config(json!({ "one": server }))).await.expect_err("it is silent");
        assert!(refused.to_string().contains("it has not answered"), "{refused}");
    });
    assert!(has_ended(&folder.join("child/pid")), "the child of the silent parent still runs");
}

#[test]
fn a_closed_server_fails_calls_and_is_not_started_again() {
    let folder = scratch("closed");
    run(async {
        let servers = Servers::connect(&config(json!({ "one": entry(&folder, "") }))).await.expect("good");
        let closing = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            std::fs::remove_file(folder.join("pid")).expect("it has noted it");
            servers.close().await;
        };
        let (hung, ()) = tokio::join!(call(&servers, "hang"), closing);
        let error = hung.expect_err("nobody answers");
        assert!(error.starts_with("the MCP server `one` did not run the tool `hang`: it ended"), "{error}");
        let error = call(&servers, "echo").await.expect_err("it is closed");
        assert!(error.contains("`one` is no longer used"), "{error}");
        assert!(servers.refresh().await.is_err());
        servers.close().await;
    });
    assert!(!folder.join("pid").exists(), "it was started again");
}

/// Whether the process of this number ends soon; one that nobody has asked about has ended too.
fn has_ended(pid: &Path) -> bool {
    let process = Path::new("/proc").join(std::fs::read_to_string(pid).expect("it has noted it"));
    let began = Instant::now();
    loop {
        let stat = std::fs::read_to_string(process.join("stat"));
        if stat.map_or(true, |stat| stat.contains(") Z ")) {
            return true;
        }
        if began.elapsed() > Duration::from_secs(10) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for a mark of the server.
async fn appears(path: &Path) {
    let began = Instant::now();
    while !path.exists() {
        assert!(began.elapsed() < Duration::from_secs(10), "{} has not appeared", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
