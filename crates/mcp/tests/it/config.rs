//! The configuration file.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tangelo_mcp::{Config, Error, Transport};

fn parse(servers: Value) -> Result<Config, Error> {
    let text = json!({ "mcpServers": servers, "theme": "dark" }).to_string();
    Config::parse(&text, &|name| (name == "TOKEN").then(|| "s3cret".into()))
}

#[test]
fn servers_are_read_in_the_order_of_the_file() {
    let config = parse(json!({
        "z": { "command": "npx", "args": ["-y", "${TOKEN}"], "env": { "KEY": "${TOKEN}" }, "cwd": "a/b" },
        "off": { "command": "x", "disabled": true },
        "a": { "type": "http", "url": "https://example.org/mcp", "headers": { "Authorization": "Bearer ${TOKEN}" },
               "allow": ["read_*"], "timeout_s": 2.5 },
    }));
    let config = config.expect("it is right");
    let [z, a] = config.servers.as_slice() else { panic!("{config:?}") };
    assert_eq!((z.name.as_str(), a.name.as_str()), ("z", "a"));
    let Transport::Stdio { command, args, env, cwd } = &z.transport else { panic!("{z:?}") };
    assert_eq!((command.as_str(), args.as_slice()), ("npx", &["-y".to_owned(), "s3cret".into()][..]));
    assert_eq!((env.0["KEY"].as_str(), cwd.as_deref()), ("s3cret", Some(Path::new("a/b"))));
    assert_eq!((z.timeout, z.allow.len()), (Duration::from_secs(60), 0));
    let Transport::Http { url, headers } = &a.transport else { panic!("{a:?}") };
    assert_eq!(
        (url.as_str(), headers.0["Authorization"].as_str()),
        ("https://example.org/mcp", "Bearer s3cret")
    );
    assert_eq!((a.timeout, a.allow.as_slice()), (Duration::from_millis(2500), &["read_*".to_owned()][..]));
    assert!(!format!("{env:?}{headers:?}").contains("s3cret"), "secrets are not printed");
}

#[test]
fn what_is_wrong_is_said_with_the_name_of_the_server() {
    for (entry, expected) in [
        (json!({}), "needs a `command` to run or a `url` to reach"),
        (json!({ "type": "http" }), "needs a `url`"),
        (json!({ "type": "http", "command": "x" }), "needs a `url`"),
        (json!({ "type": "stdio", "url": "http://x" }), "needs a `command`"),
        (json!({ "type": "sse", "url": "http://x" }), "a transport that the protocol has replaced"),
        (json!({ "type": "carrier pigeon" }), "expected `stdio` or `http`"),
        (json!({ "command": "x", "url": "http://x" }), "both a `command` and a `url`"),
        (json!({ "command": "x", "headers": {} }), "has `headers`"),
        (json!({ "url": "http://x", "env": {} }), "has `args`, `env` or `cwd`"),
        (json!({ "url": "ftp://x" }), "does not begin with http:// or https://"),
        (json!({ "command": "x", "alow": [] }), "unknown field `alow`"),
        (json!({ "command": "x", "args": "-y" }), "expected a sequence"),
        (json!({ "command": "x", "timeout_s": 0 }), "`timeout_s` of 0; expected more than 0"),
        (json!({ "command": "x", "timeout_s": 1e300 }), "at most 86400"),
        (json!({ "command": "x", "env": { "A": "${NONE}" } }), "`NONE`, which is not set"),
        (json!("npx"), "cannot be understood"),
    ] {
        let error = parse(json!({ "my server": entry })).expect_err(expected).to_string();
        assert!(error.contains("of the server `my server` ") && error.contains(expected), "{error}");
    }
    for (text, expected) in [
        ("{", "is not JSON"),
        ("{}", "has no `mcpServers`"),
        ("{\"mcpServers\": []}", "has `mcpServers` that are not an object"),
    ] {
        let error = Config::parse(text, &|_| None).expect_err(text).to_string();
        assert!(error.contains(expected) && error.contains("expected {\"mcpServers\""), "{error}");
    }
    let missing = Config::read(Path::new("no such file")).expect_err("it does not exist").to_string();
    assert!(missing.starts_with("cannot read the MCP configuration no such file: "), "{missing}");
}
