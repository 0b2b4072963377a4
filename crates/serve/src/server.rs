//! From an address to the end: connections, and how the program stops.
//!
//! ```text
//! first signal                                new work gets 503, what is under way goes on
//! drained, or time is up, or second signal    what is left ends at once
//! then                                        states that are worth it go to disk, connections close
//! last                                        MCP servers end, or are killed soon after
//! ```
//!
//! Connections are plain HTTP/1.1. Encryption is left to a proxy in front, which is why the server listens on the
//! machine's own address unless it is told otherwise, and asks for keys before it listens on another.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tangelo_mcp::{Allowed, Config, Servers};
use tokio::sync::oneshot;

use crate::app::App;
use crate::rounds::Tools;
use crate::router::{Options, router};

/// Threads for connections; each request is little work for them.
const THREADS: usize = 2;
/// How long connections may take to send their last bytes once everything has ended.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// Why the server does not start, or has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Everybody who reaches the address could use the model.
    #[error(
        "{address} can be reached from other machines and no API key is set: give --api-key, listen on 127.0.0.1, or \
         say --insecure-bind if everybody may use the model"
    )]
    NoKeys {
        /// The address.
        address: SocketAddr,
    },
    /// The system refused the address.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// A persona that cannot be asked for.
    #[error("the persona {name} {problem}")]
    Persona {
        /// Its name.
        name: String,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// An MCP server that cannot be used.
    #[error(transparent)]
    Tools(#[from] tangelo_mcp::Error),
    /// Threads, signals or connections cannot be had from the system.
    #[error("the server cannot go on: {0}")]
    System(#[from] io::Error),
}

/// Listens on an address; port 0 is any that is free. Nothing is answered before [`run`] or [`serve`].
///
/// # Errors
/// [`ServerError::NoKeys`] unless the address is the machine's own, keys are required or `is_insecure` is said;
/// [`ServerError::Bind`].
pub fn bind(address: SocketAddr, has_keys: bool, is_insecure: bool) -> Result<TcpListener, ServerError> {
    if !address.ip().is_loopback() && !has_keys && !is_insecure {
        return Err(ServerError::NoKeys { address });
    }
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|cause| ServerError::Bind { address, cause })
}

/// Serves in this thread until the program is told to stop by a signal, with the tools of MCP servers if any are given.
///
/// # Errors
/// [`ServerError::System`], [`ServerError::Tools`].
pub fn run(
    listener: TcpListener,
    app: App,
    options: &Options,
    drain_time: Duration,
    tools: Option<(Config, Allowed)>,
) -> Result<(), ServerError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    runtime.block_on(async {
        if let Some((config, allowed)) = tools {
            app.offer(Tools::new(Servers::connect(&config).await?, allowed));
        }
        let mut signals = Signals::new()?;
        serve(listener, app, options, drain_time, async move || signals.next().await).await
    })
}

/// Serves until it is told to stop: `stop` returns once for every time that it is.
///
/// # Errors
/// [`ServerError::System`].
pub async fn serve(
    listener: TcpListener,
    app: App,
    options: &Options,
    drain_time: Duration,
    stop: impl AsyncFnMut(),
) -> Result<(), ServerError> {
    let served = answer(listener, &app, options, drain_time, stop).await;
    if let Some(tools) = app.tools() {
        tools.close().await;
    }
    served
}

/// Answers until it is told to stop and everything has been answered or given up.
async fn answer(
    listener: TcpListener,
    app: &App,
    options: &Options,
    drain_time: Duration,
    mut stop: impl AsyncFnMut(),
) -> Result<(), ServerError> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (close, closed) = oneshot::channel::<()>();
    let connections = axum::serve(listener, router(app.clone(), options)).with_graceful_shutdown(async {
        // A dropped sender says the same.
        let _ = closed.await;
    });
    let mut connections = tokio::spawn(connections.into_future());
    tokio::select! {
        ended = &mut connections => return Ok(ended.map_err(io::Error::other)??),
        () = stop() => {}
    }
    drain(app, drain_time, stop).await;
    drop(close);
    // Whoever does not read what was sent is not waited for.
    let _ = tokio::time::timeout(LAST_BYTES, connections).await;
    Ok(())
}

/// Ends the worker: after what is under way, or at once when time is up or `stop` returns again.
async fn drain(app: &App, drain_time: Duration, mut stop: impl AsyncFnMut()) {
    app.close();
    let worker = app.worker().clone();
    // An error means that the thread has ended already.
    let _ = worker.call(|scheduler| scheduler.close()).await;
    let ending = worker.clone();
    let mut ended = tokio::task::spawn_blocking(move || ending.join());
    tokio::select! {
        _ = &mut ended => return,
        () = tokio::time::sleep(drain_time) => {}
        () = stop() => {}
    }
    let _ = worker.call(|scheduler| scheduler.cancel_all()).await;
    let _ = ended.await;
}

/// The signals that ask a program to stop.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {})
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            // Nobody can interrupt the program, so it goes on.
            std::future::pending::<()>().await;
        }
    }
}
