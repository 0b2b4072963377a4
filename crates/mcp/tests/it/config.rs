//! The configuration file.

use std::path::Path;
use std::time::Duration;

use tangelo_mcp::{Config, Secrets, Transport};

fn parse(text: &str) -> Result<Config, String> {
    let lookup = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
    Config::parse(text, &lookup).map_err(|error| error.to_string())
}

#[test]
fn the_common_form_is_understood() {
    let config = parse(
        r#"{"theme": "dark", "mcpServers": {
            "z": {"command": "npx", "args": ["-y", "server", "${TOKEN}"], "env": {"K": "${TOKEN}"}, "cwd": "${HERE:-/srv}"},
            "off": {"command": "never", "disabled": true},
            "a": {"type": "http", "url": "https://example.org/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"},
                  "allow": ["read_*"], "timeout_s": 2.5}
        }}"#,
    )
    .expect("it is right");
    let [z, a] = config.servers.as_slice() else { panic!("two servers: {config:?}") };
    assert_eq!((z.name.as_str(), a.name.as_str()), ("z", "a"), "the order is the file's");
    let secrets = |name: &str, value: &str| Secrets([(name.to_owned(), value.to_owned())].into());
    let expected = Transport::Stdio {
        command: "npx".into(),
        args: ["-y", "server", "s3cret"].map(String::from).into(),
        env: secrets("K", "s3cret"),
        cwd: Some("/srv".into()),
    };
    assert_eq!(z.transport, expected);
    assert_eq!((z.timeout, z.allow.len()), (Duration::from_secs(60), 0));
    let headers = secrets("Authorization", "Bearer s3cret");
    assert_eq!(a.transport, Transport::Http { url: "https://example.org/mcp".into(), headers });
    assert_eq!((a.timeout, a.allow.as_slice()), (Duration::from_millis(2500), &["read_*".to_owned()][..]));
    assert!(!format!("{:?}", a.transport).contains("s3cret"), "headers are not printed");
    assert_eq!(parse(r#"{"mcpServers": {}}"#), Ok(Config::default()));
}

#[test]
fn what_is_wrong_is_said_with_the_server_s_name() {
    for (entry, expected) in [
        (r#"{}"#, "`s` needs a `command` to run or a `url` to reach"),
        (r#"{"command": "x", "url": "http://x"}"#, "both a `command` and a `url`"),
        (r#"{"command": "x", "headers": {}}"#, "`headers`, which only a server with a `url`"),
        (r#"{"url": "http://x", "env": {}}"#, "`args`, `env` or `cwd`"),
        (r#"{"url": "ftp://x"}"#, "does not begin with http:// or https://"),
        (r#"{"type": "sse", "url": "http://x"}"#, "with the type `http`"),
        (r#"{"type": "carrier pigeon", "url": "http://x"}"#, "`carrier pigeon`; expected `stdio` or `http`"),
        (r#"{"type": "stdio", "url": "http://x"}"#, "needs a `command`"),
        (r#"{"type": "http", "command": "x"}"#, "needs a `url`"),
        (r#"{"command": "x", "alow": ["y"]}"#, "unknown field `alow`"),
        (r#"{"command": "x", "args": "y"}"#, "expected a sequence"),
        (r#"{"command": "x", "timeout_s": 0}"#, "`timeout_s` of 0; expected more than 0"),
        (r#"{"command": "x", "timeout_s": 1e9}"#, "at most 86400"),
        (r#"{"command": "x", "args": ["${NONE}"]}"#, "the variable `NONE`, which is not set"),
        (r#"{"command": "${TOKEN"}"#, "without its `}`"),
        (r#"[]"#, "cannot be understood"),
    ] {
        let problem = parse(&format!(r#"{{"mcpServers": {{"s": {entry}}}}}"#)).expect_err(entry);
        assert!(problem.starts_with("the MCP configuration of the server `s` "), "{problem}");
        assert!(problem.contains(expected), "{entry}: {problem}");
    }
    for (text, expected) in
        [("{", "is not JSON"), ("{}", "has no `mcpServers`"), (r#"{"mcpServers": []}"#, "not an object")]
    {
        let problem = parse(text).expect_err(text);
        assert!(problem.contains(expected) && problem.contains("expected {\"mcpServers\""), "{problem}");
    }
    let problem = Config::read(Path::new("/no/such/file")).expect_err("there is none").to_string();
    assert!(problem.starts_with("cannot read the MCP configuration /no/such/file: "), "{problem}");
}
