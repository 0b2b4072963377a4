//! What can go wrong between here and a server, in one sentence each.

use std::path::PathBuf;
use std::time::Duration;

use tangelo_core::limits::{MCP_TOOL_BYTES_MAX, MCP_TOOLS_MAX};

/// Why servers could not be used, or a tool not be called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the MCP configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The configuration is not JSON, or has no servers.
    #[error(
        "the MCP configuration {problem}; expected {{\"mcpServers\": {{\"NAME\": {{\"command\": ...}}}}}}"
    )]
    Config {
        /// What is wrong with it.
        problem: String,
    },
    /// The entry of one server is wrong.
    #[error("the MCP configuration of the server `{server}` {problem}")]
    ServerConfig {
        /// Its name.
        server: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A server could not be started or reached, or did not answer as a server does.
    #[error("cannot connect to the MCP server `{server}`: {problem}{stderr}")]
    Connect {
        /// Its name.
        server: String,
        /// Why.
        problem: String,
        /// Its last words, if it has written any; empty or on lines of its own.
        stderr: String,
    },
    /// A server's list of tools cannot be used.
    #[error("cannot use the tools of the MCP server `{server}`: {problem}")]
    Tools {
        /// Its name.
        server: String,
        /// Why.
        problem: String,
    },
    /// There are too many tools.
    #[error(
        "the MCP server `{server}` offers more than {MCP_TOOLS_MAX} tools, the most that can be used; configure it to offer fewer"
    )]
    TooManyTools {
        /// Its name.
        server: String,
    },
    /// A tool's definition is too long.
    #[error(
        "the MCP server `{server}` describes its tool `{tool}` in {bytes} bytes, the limit is {MCP_TOOL_BYTES_MAX}; configure it not to offer that tool"
    )]
    ToolTooLong {
        /// The server's name.
        server: String,
        /// The tool's name, as the server has it.
        tool: String,
        /// Bytes of its definition as JSON.
        bytes: usize,
    },
    /// No server has this tool.
    #[error("no MCP server offers a tool `{name}`; there are: {known}")]
    UnknownTool {
        /// What was asked for.
        name: String,
        /// The names of all tools.
        known: String,
    },
    /// A server refused a call or could not be asked.
    #[error("the MCP server `{server}` did not run the tool `{tool}`: {problem}")]
    Call {
        /// The server's name.
        server: String,
        /// The tool's name, as the server has it.
        tool: String,
        /// Why.
        problem: String,
    },
    /// A server ended while it was running a tool that must not be run twice unasked.
    #[error(
        "the MCP server `{server}` ended while it was running the tool `{tool}`, so that it is not known whether that had an effect; the server was started again{stderr}"
    )]
    Died {
        /// The server's name.
        server: String,
        /// The tool's name, as the server has it.
        tool: String,
        /// Its last words, if it has written any.
        stderr: String,
    },
    /// A server took too long.
    #[error(
        "the MCP server `{server}` has not answered within {} s; `timeout_s` in its configuration allows more",
        limit.as_secs_f64()
    )]
    Timeout {
        /// The server's name.
        server: String,
        /// The time that it had.
        limit: Duration,
    },
    /// The connection was closed on purpose.
    #[error("the MCP server `{server}` is no longer used, because the program is about to end")]
    Closed {
        /// Its name.
        server: String,
    },
    /// The user stopped it.
    #[error("the call of the tool was stopped")]
    Interrupted,
    /// The system gives no thread or no clock to wait with.
    #[error("cannot begin to wait for MCP servers: {0}")]
    Runtime(#[source] std::io::Error),
}

/// The result of a fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
