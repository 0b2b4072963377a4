//! An address as a server.

use std::time::Duration;

use serde_json::{Map, json};
use tangelo_mcp::{Config, ServerConfig, Servers};

use crate::fake::http::{KEY, Server};
use crate::stdio::arguments;

async fn connected(server: &Server) -> Servers {
    let config = Config { servers: vec![server.config(KEY)] };
    Servers::connect(&config).await.expect("the fake server answers")
}

#[tokio::test]
async fn tools_are_listed_and_called() {
    let server = Server::start();
    let servers = connected(&server).await;
    assert_eq!(servers.tools().len(), 9);
    let echoed = servers.call("echo", arguments(json!({"x": 3}))).await.expect("echo answers");
    assert_eq!(echoed.text, "{\"x\":3}");
    let refused = servers.call("refuse", Map::new()).await.expect_err("the server refuses");
    assert!(refused.to_string().ends_with("`refuse`: x must be at least 1"), "{refused}");
    servers.close().await;
}

#[tokio::test]
async fn a_session_that_the_server_has_forgotten_is_begun_again() {
    let server = Server::start();
    let servers = connected(&server).await;
    assert_eq!(server.sessions(), 1);
    server.forget();
    servers.call("echo", Map::new()).await.expect("echo answers in a new session");
    assert_eq!(server.sessions(), 2);
    servers.close().await;
}

#[tokio::test]
async fn a_connection_that_breaks_within_a_call_is_told() {
    let server = Server::start();
    let servers = connected(&server).await;
    let broken = servers.call("crash", Map::new()).await.expect_err("the connection breaks");
    assert!(broken.to_string().contains("`web`"), "{broken}");
    servers.call("echo", Map::new()).await.expect("the next call has a connection of its own");
    servers.close().await;
}

#[tokio::test]
async fn a_call_that_hangs_is_given_up_and_the_server_told() {
    let server = Server::start();
    let config = ServerConfig { timeout: Duration::from_secs(1), ..server.config(KEY) };
    let servers = Servers::connect(&Config { servers: vec![config] }).await.expect("it answers");
    let hung = servers.call("hang", Map::new()).await.expect_err("nothing comes");
    assert!(hung.to_string().contains("has not answered within 1 s"), "{hung}");
    let seen = tokio::task::spawn_blocking(move || server.has_seen("notifications/cancelled"));
    assert!(seen.await.expect("the thread returns"));
    servers.close().await;
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_without_its_secrets() {
    let server = Server::start();
    let wrong = Config { servers: vec![server.config("Bearer hunter2")] };
    let problem = Servers::connect(&wrong).await.expect_err("the key is wrong").to_string();
    assert!(problem.starts_with("cannot connect to the MCP server `web`: "), "{problem}");
    assert!(problem.contains("401") || problem.to_lowercase().contains("auth"), "{problem}");
    assert!(!problem.contains("hunter2") && !format!("{wrong:?}").contains("hunter2"), "{problem}");

    let mut nobody = server.config(KEY);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let url = format!("http://{}/secret-path", closed.expect("a port is free"));
    if let tangelo_mcp::Transport::Http { url: address, .. } = &mut nobody.transport {
        *address = url;
    }
    let problem = Servers::connect(&Config { servers: vec![nobody] }).await.expect_err("nobody listens");
    let problem = problem.to_string();
    assert!(problem.contains("onnection refused") && !problem.contains("secret-path"), "{problem}");
}
