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
    servers: crate::Servers,
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
        Ok(Servers { servers, runtime })
    }

    /// As [`crate::Servers::tools`].
    pub fn tools(&self) -> Vec<McpTool> {
        self.servers.tools().to_vec()
    }

    /// As [`crate::Servers::tool`].
    pub fn tool(&self, name: &str) -> Option<McpTool> {
        self.servers.tool(name)
    }

    /// As [`crate::Servers::refresh`].
    ///
    /// # Errors
    /// As there.
    pub fn refresh(&self) -> Result<bool> {
        self.runtime.block_on(self.servers.refresh())
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
        self.runtime.block_on(unless(interrupted, self.servers.call(name, arguments)))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.runtime.block_on(self.servers.close());
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
