//! The same for programs without an async runtime, such as the terminal.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::runtime::{Builder, Runtime};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::outcome::ToolOutcome;
use crate::tool::McpTool;

/// How often it is asked whether the user wants to stop.
const INTERRUPT_POLL: Duration = Duration::from_millis(50);

/// Connected servers with a thread of their own, on which they are listened to also while nothing is called. Dropping
/// it ends them.
#[derive(Debug)]
pub struct Servers {
    /// Taken when dropped, since closing consumes it.
    servers: Option<crate::Servers>,
    runtime: Runtime,
}

impl Servers {
    /// Connects to all servers, unless `interrupted` becomes true before that is done.
    ///
    /// # Errors
    /// As [`crate::Servers::connect`], and if it is interrupted.
    pub fn connect(config: &Config, interrupted: &dyn Fn() -> bool) -> Result<Servers> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("mcp").enable_all().build();
        let runtime = runtime.map_err(Error::Runtime)?;
        let servers = runtime.block_on(unless(interrupted, crate::Servers::connect(config)))?;
        Ok(Servers { servers: Some(servers), runtime })
    }

    /// As [`crate::Servers::tools`].
    pub fn tools(&self) -> Vec<McpTool> {
        self.servers.as_ref().map_or_else(Vec::new, |servers| servers.tools().to_vec())
    }

    /// As [`crate::Servers::tool`].
    pub fn tool(&self, name: &str) -> Option<McpTool> {
        self.servers.as_ref()?.tool(name)
    }

    /// As [`crate::Servers::refresh`].
    ///
    /// # Errors
    /// As there.
    pub fn refresh(&self) -> Result<bool> {
        self.servers.as_ref().map_or(Ok(false), |servers| self.runtime.block_on(servers.refresh()))
    }

    /// As [`crate::Servers::call`], unless `interrupted` becomes true before the tool has answered.
    ///
    /// # Errors
    /// As there, and if it is interrupted.
    pub fn call(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<ToolOutcome> {
        match &self.servers {
            Some(servers) => self.runtime.block_on(unless(interrupted, servers.call(name, arguments))),
            None => Err(Error::Interrupted),
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Some(servers) = self.servers.take() {
            self.runtime.block_on(servers.close());
        }
    }
}

/// Does the work until it is done or the user wants to stop.
async fn unless<T>(interrupted: &dyn Fn() -> bool, work: impl Future<Output = Result<T>>) -> Result<T> {
    let stopped = async {
        while !interrupted() {
            tokio::time::sleep(INTERRUPT_POLL).await;
        }
    };
    tokio::select! {
        result = work => result,
        () = stopped => Err(Error::Interrupted),
    }
}
