//! One connection to one server: how it begins, and what is asked over it.

use std::io;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmcp::model::{CallToolRequestParams, CallToolResult, ClientConfig, Implementation, JsonObject, Tool};
use rmcp::model::{ClientCapabilities, PaginatedRequestParams};
use rmcp::service::{ClientInitializeError, NotificationContext, RunningService, ServiceError};
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};
use rmcp::transport::{DynamicTransportError, StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientHandler, RoleClient, serve_client};
use tangelo_core::limits::MCP_TOOLS_MAX;
use tokio::process::Command;

use crate::config::{Secrets, ServerConfig, Transport};
use crate::error::{Error, Result};
use crate::group::Group;
use crate::tail::Tail;

/// What a server inherits of our environment: what programs need to run, on Unix and on Windows, and no secrets that
/// happen to be there. These are the variables that the protocol's own libraries hand on, and the language.
const INHERITED: [&str; 20] = [
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "APPDATA",
    "LOCALAPPDATA",
    "PATHEXT",
    "PROCESSOR_ARCHITECTURE",
    "SYSTEMDRIVE",
    "SYSTEMROOT",
    "TEMP",
    "USERNAME",
    "USERPROFILE",
];
/// Time that a server has to end by itself when it is no longer needed, before it is killed.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked whether a server has ended.
const CLOSE_POLL: Duration = Duration::from_millis(10);
/// What is said of a server that went away instead of answering.
const ENDED: &str = "it ended, or closed the connection, before it answered";
/// Most redirections of one request.
const REDIRECTS_MAX: usize = 5;

/// A server that has been greeted.
#[derive(Debug)]
pub(crate) struct Connection {
    service: RunningService<RoleClient, Listener>,
    /// What there is of a program.
    program: Option<Program>,
}

/// A program besides its input and output.
#[derive(Debug)]
struct Program {
    /// Standard error.
    tail: Option<Tail>,
    group: Option<Group>,
}

/// What a server may tell without being asked. Questions of servers (samples of a model, input of the user) are
/// declined, which is what `rmcp` does where nothing is written.
#[derive(Debug)]
struct Listener {
    /// Whether the tools are others than those that were listed; at first none were.
    tools_changed: AtomicBool,
}

impl ClientHandler for Listener {
    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.tools_changed.store(true, Ordering::Release);
    }

    fn get_info(&self) -> ClientConfig {
        let program = Implementation::new("tangelo", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), program)
    }
}

impl Connection {
    /// Starts or reaches a server and greets it.
    ///
    /// # Errors
    /// If that fails, or takes longer than the server has.
    pub(crate) async fn open(config: &ServerConfig) -> Result<Connection> {
        let listener = Listener { tools_changed: AtomicBool::new(true) };
        let (greeting, program) = match &config.transport {
            Transport::Stdio { .. } => {
                let (process, program) = spawn(config).map_err(|problem| failed(config, problem, ""))?;
                (tokio::time::timeout(config.timeout, serve_client(listener, process)).await, Some(program))
            }
            Transport::Http { url, headers } => {
                let transport = http(url, headers).map_err(|problem| failed(config, problem, ""))?;
                (tokio::time::timeout(config.timeout, serve_client(listener, transport)).await, None)
            }
        };
        let problem = match greeting {
            Ok(Ok(service)) => return Ok(Connection { service, program }),
            Ok(Err(error)) => greeting_problem(&error),
            Err(_) => format!("it has not answered within {} s", config.timeout.as_secs_f64()),
        };
        let Some(program) = program else { return Err(failed(config, problem, "")) };
        let words = program.words().await;
        program.kill_group().await;
        Err(failed(config, problem, &words))
    }

    /// All tools, page by page.
    ///
    /// # Errors
    /// If the server fails, or there are too many.
    pub(crate) async fn list_tools(&self, config: &ServerConfig) -> Result<Vec<Tool>> {
        self.service.service().tools_changed.store(false, Ordering::Release);
        let offers_tools = self.service.peer_info().is_some_and(|info| info.capabilities.tools.is_some());
        if !offers_tools {
            return Ok(Vec::new());
        }
        let all = async {
            let mut tools = Vec::new();
            let mut cursor = None;
            // Every page is counted, so that a server with endless empty ones comes to an end too.
            for _ in 0..MCP_TOOLS_MAX {
                let asked = PaginatedRequestParams::default().with_cursor(cursor);
                let page = self.service.list_tools(Some(asked)).await.map_err(|error| Error::Tools {
                    server: config.name.clone(),
                    problem: service_problem(&error),
                })?;
                tools.extend(page.tools);
                cursor = page.next_cursor;
                if tools.len() > MCP_TOOLS_MAX {
                    break;
                }
                if cursor.is_none() {
                    return Ok(tools);
                }
            }
            Err(Error::TooManyTools { server: config.name.clone() })
        };
        let timeout = Error::Timeout { server: config.name.clone(), limit: config.timeout };
        tokio::time::timeout(config.timeout, all).await.unwrap_or(Err(timeout))
    }

    /// Calls a tool. If the future is dropped, the server is told that nobody waits any more.
    ///
    /// # Errors
    /// What `rmcp` says.
    pub(crate) async fn call(
        &self,
        tool: &str,
        arguments: JsonObject,
    ) -> Result<CallToolResult, ServiceError> {
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        self.service.call_tool(params).await
    }

    /// Whether the server has said that its tools are others now.
    pub(crate) fn tools_changed(&self) -> bool {
        self.service.service().tools_changed.load(Ordering::Acquire)
    }

    /// Whether nobody is at the other end any more.
    pub(crate) fn is_dead(&self) -> bool {
        self.service.is_transport_closed() || self.service.is_closed()
    }

    /// Whether a call failed because there is nobody at the other end any more.
    pub(crate) fn has_died(&self, error: &ServiceError) -> bool {
        match error {
            ServiceError::TransportClosed => true,
            ServiceError::TransportSend(error) => is_hangup(error) || self.is_dead(),
            _ => false,
        }
    }

    /// The last words of a program; empty for others.
    pub(crate) async fn words(&self) -> String {
        match &self.program {
            Some(program) => program.words().await,
            None => String::new(),
        }
    }

    /// Ends the server, and with it the calls that wait for it: its input is closed, and what still runs when its time
    /// is up, or was started by it and left behind, is killed.
    pub(crate) async fn close(&self) {
        let was_running = !self.is_dead();
        self.service.cancellation_token().cancel();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.ended()).await;
        if let Some(program) = self.program.as_ref().filter(|_| was_running) {
            program.kill_group().await;
        }
    }

    /// Waits for the server's end.
    async fn ended(&self) {
        while !self.service.is_transport_closed() {
            tokio::time::sleep(CLOSE_POLL).await;
        }
    }
}

impl Program {
    async fn words(&self) -> String {
        match &self.tail {
            Some(tail) => tail.words().await,
            None => String::new(),
        }
    }

    async fn kill_group(&self) {
        if let Some(group) = &self.group {
            group.kill().await;
        }
    }
}

/// Starts a program. Half a sentence if it cannot be started.
fn spawn(config: &ServerConfig) -> Result<(TokioChildProcess, Program), String> {
    let Transport::Stdio { command: program, args, env, cwd } = &config.transport else {
        return Err("it has no command".into());
    };
    let mut command = Command::new(program);
    command.args(args).env_clear().kill_on_drop(true);
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(&env.0);
    if let Some(folder) = cwd {
        command.current_dir(folder);
    }
    Group::lead(&mut command);
    let spawned = TokioChildProcess::builder(command).stderr(Stdio::piped()).spawn();
    let (process, stderr) = spawned.map_err(|error| format!("cannot run `{program}`: {error}"))?;
    let program = Program { tail: stderr.map(Tail::read), group: Group::of(&process) };
    Ok((process, program))
}

/// A client for an address. Half a sentence if there can be none.
fn http(url: &str, headers: &Secrets) -> Result<StreamableHttpClientTransport<reqwest::Client>, String> {
    let mut config = StreamableHttpClientTransportConfig::with_uri(url);
    for (name, value) in &headers.0 {
        let name_problem = |_| format!("`{name}` cannot be the name of a header");
        let value_problem =
            |_| format!("the value of the header `{name}` has characters that it may not have");
        let header = reqwest::header::HeaderName::try_from(name).map_err(name_problem)?;
        let mut value = reqwest::header::HeaderValue::try_from(value).map_err(value_problem)?;
        value.set_sensitive(true);
        config.custom_headers.insert(header, value);
    }
    // If somebody else has chosen one before, that one is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A connection whose last answer was not read to its end stalls the next request; a new one costs less.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).redirect(redirects()).build();
    let client = client.map_err(|error| format!("the HTTP client cannot be set up: {}", chain(&error)))?;
    Ok(StreamableHttpClientTransport::with_client(client, config))
}

/// Follows redirections that repeat the request (307 and 308) at the same server. Others would lose its body or show
/// the headers, which may hold a key, to somebody else.
fn redirects() -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(|attempt| {
        let repeats = matches!(attempt.status().as_u16(), 307 | 308);
        let is_same =
            attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
        if repeats && is_same && attempt.previous().len() <= REDIRECTS_MAX {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

fn failed(config: &ServerConfig, problem: String, words: &str) -> Error {
    Error::Connect { server: config.name.clone(), problem, stderr: words.to_owned() }
}

fn greeting_problem(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::ConnectionClosed(_) => ENDED.into(),
        ClientInitializeError::TransportError { error, .. } if is_hangup(error) => ENDED.into(),
        ClientInitializeError::TransportError { error, .. } => chain(error.error.as_ref()),
        ClientInitializeError::JsonRpcError(error) => error.message.to_string(),
        other => other.to_string(),
    }
}

/// Whether a program has closed its input, which happens when it ends.
fn is_hangup(error: &DynamicTransportError) -> bool {
    error.error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What went wrong, without the words of a library.
pub(crate) fn service_problem(error: &ServiceError) -> String {
    match error {
        ServiceError::McpError(error) => error.message.to_string(),
        ServiceError::TransportSend(error) => chain(error.error.as_ref()),
        ServiceError::TransportClosed => ENDED.into(),
        ServiceError::UnexpectedResponse => "its answer is not one to this request".into(),
        other => other.to_string(),
    }
}

/// An error with its causes. Addresses are left out: they may hold a key, and the name of the server says enough.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    // This one shows the error of the HTTP client, but not that error's causes.
    let error = match error.downcast_ref() {
        Some(StreamableHttpError::<reqwest::Error>::Client(inner)) => inner,
        _ => error,
    };
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = Vec::new();
    for text in causes.map(|error| without_address(&error.to_string())) {
        // Some errors repeat their cause in their own text.
        if !texts.iter().any(|earlier| earlier.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

fn without_address(text: &str) -> String {
    match text.split_once(" for url (") {
        Some((before, behind)) => before.to_owned() + behind.split_once(')').map_or("", |(_, after)| after),
        None => text.to_owned(),
    }
}
