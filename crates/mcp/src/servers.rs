//! All servers of a configuration, connected.

use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::join_all;
use rmcp::service::ServiceError;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::config::{Config, ServerConfig};
use crate::connection::{CLOSE_TIMEOUT, Connection, service_problem};
use crate::error::{Error, Result};
use crate::outcome::ToolOutcome;
use crate::tool::{McpTool, catalog};

/// Connected servers and their tools. Dropping it ends the connections and kills programs that do not end by
/// themselves, as long as the runtime lives; [`Servers::close`] waits for that.
#[derive(Debug)]
pub struct Servers {
    servers: Vec<Server>,
    tools: RwLock<Arc<[McpTool]>>,
}

/// One server. The connection is replaced when it has died.
#[derive(Debug)]
struct Server {
    config: ServerConfig,
    /// `None` from when it was closed.
    connection: Mutex<Option<Arc<Connection>>>,
}

impl Servers {
    /// Connects to all servers at once and lists their tools.
    ///
    /// # Errors
    /// Of the first server, in the configuration's order, for which that fails or takes too long.
    pub async fn connect(config: &Config) -> Result<Servers> {
        let opened = join_all(config.servers.iter().map(|server| async move {
            let connection = Connection::open(server).await?;
            let tools = connection.list_tools(server).await?;
            let connection = Mutex::new(Some(Arc::new(connection)));
            Ok((Server { config: server.clone(), connection }, tools))
        }));
        let opened: Result<Vec<_>> = opened.await.into_iter().collect();
        let (servers, lists): (Vec<Server>, Vec<_>) = opened?.into_iter().unzip();
        let tools = catalog(&configs(&servers), lists)?;
        Ok(Servers { servers, tools: RwLock::new(tools.into()) })
    }

    /// The tools as of the last [`Servers::refresh`], always in the same order.
    pub fn tools(&self) -> Arc<[McpTool]> {
        Arc::clone(&self.tools.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The tool that the model knows by this name.
    pub fn tool(&self, name: &str) -> Option<McpTool> {
        self.tools().iter().find(|tool| tool.name() == name).cloned()
    }

    /// Lists the tools again if a server has said that they changed, or was started again; returns whether they did.
    /// Meant for the time between two turns, since other tools make another prompt.
    ///
    /// # Errors
    /// If a server fails. The tools are as before then, and are not asked for again until a server says so again.
    pub async fn refresh(&self) -> Result<bool> {
        let connections = join_all(self.servers.iter().map(Server::connection)).await;
        let connections = connections.into_iter().collect::<Result<Vec<_>>>()?;
        if !connections.iter().any(|connection| connection.tools_changed()) {
            return Ok(false);
        }
        let lists =
            self.servers.iter().map(async |server| server.living().await?.list_tools(&server.config).await);
        let lists: Result<Vec<_>> = join_all(lists).await.into_iter().collect();
        let tools: Arc<[McpTool]> = catalog(&configs(&self.servers), lists?)?.into();
        let mut current = self.tools.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = **current != *tools;
        *current = tools;
        Ok(is_new)
    }

    /// Calls the tool that the model knows by this name. If the future is dropped, the call is cancelled.
    ///
    /// A server that has ended is started again before the call. One that ends during the call is started again too, once;
    /// the call is repeated only if the tool's hints say that this does no harm.
    ///
    /// # Errors
    /// If there is no such tool, or the server refuses the call, fails or takes too long. That a tool itself failed is
    /// an outcome.
    pub async fn call(&self, name: &str, arguments: Map<String, Value>) -> Result<ToolOutcome> {
        let tools = self.tools();
        let found = tools.iter().find(|tool| tool.name() == name);
        let found = found.and_then(|tool| Some((tool, self.servers.get(tool.server)?)));
        let Some((tool, server)) = found else {
            let known: Vec<&str> = tools.iter().map(McpTool::name).collect();
            return Err(Error::UnknownTool { name: name.to_owned(), known: known.join(", ") });
        };
        server.call(tool, arguments).await
    }

    /// Ends all servers for good. Calls under way fail. Programs that do not end by themselves soon are killed, with
    /// what they have started.
    pub async fn close(&self) {
        join_all(self.servers.iter().map(Server::close)).await;
    }
}

fn configs(servers: &[Server]) -> Vec<&ServerConfig> {
    servers.iter().map(|server| &server.config).collect()
}

impl Server {
    async fn connection(&self) -> Result<Arc<Connection>> {
        self.connection.lock().await.clone().ok_or_else(|| self.closed())
    }

    /// The connection, made anew if the server has ended.
    async fn living(&self) -> Result<Arc<Connection>> {
        let connection = self.connection().await?;
        if connection.is_dead() { self.reconnect(&connection).await } else { Ok(connection) }
    }

    async fn close(&self) {
        // One that is just being started again is not waited for any longer: it is killed when it is dropped.
        let held = tokio::time::timeout(CLOSE_TIMEOUT, self.connection.lock()).await;
        let connection = held.ok().and_then(|mut held| held.take());
        if let Some(connection) = connection {
            connection.close().await;
        }
    }

    async fn call(&self, tool: &McpTool, arguments: Map<String, Value>) -> Result<ToolOutcome> {
        let connection = self.living().await?;
        let error = match self.try_call(&connection, tool, arguments.clone()).await? {
            Ok(outcome) => return Ok(outcome),
            Err(error) if connection.has_died(&error) => error,
            Err(error) => return Err(self.refused(tool, &error)),
        };
        let stderr = connection.words().await;
        let fresh = self.reconnect(&connection).await.map_err(|again| match again {
            Error::Connect { .. } => again,
            _ => self.refused(tool, &error),
        })?;
        if !tool.hints().is_idempotent {
            let server = self.config.name.clone();
            return Err(Error::Died { server, tool: tool.original_name().to_owned(), stderr });
        }
        self.try_call(&fresh, tool, arguments).await?.map_err(|error| self.refused(tool, &error))
    }

    /// One call over one connection. The outer error is that of the time limit.
    async fn try_call(
        &self,
        connection: &Connection,
        tool: &McpTool,
        arguments: Map<String, Value>,
    ) -> Result<Result<ToolOutcome, ServiceError>> {
        let limit = self.config.timeout;
        let called = tokio::time::timeout(limit, connection.call(tool.original_name(), arguments)).await;
        match called {
            Ok(result) => Ok(result.map(|result| ToolOutcome::new(&result))),
            Err(_) => Err(Error::Timeout { server: self.config.name.clone(), limit }),
        }
    }

    /// Another connection in the place of a dead one, unless another call has already made one.
    async fn reconnect(&self, dead: &Arc<Connection>) -> Result<Arc<Connection>> {
        let mut held = self.connection.lock().await;
        let current = held.clone().ok_or_else(|| self.closed())?;
        if !Arc::ptr_eq(&current, dead) {
            return Ok(current);
        }
        let fresh = Arc::new(Connection::open(&self.config).await?);
        *held = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    fn closed(&self) -> Error {
        Error::Closed { server: self.config.name.clone() }
    }

    fn refused(&self, tool: &McpTool, error: &ServiceError) -> Error {
        Error::Call {
            server: self.config.name.clone(),
            tool: tool.original_name().to_owned(),
            problem: service_problem(error),
        }
    }
}
