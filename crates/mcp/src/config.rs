//! The `mcpServers` file that programs which use MCP servers have in common.
//!
//! ```json
//! {"mcpServers": {
//!   "files": {"command": "npx", "args": ["-y", "some-server", "${HOME}/notes"], "allow": ["read_*"]},
//!   "issues": {"url": "https://example.org/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}, "timeout_s": 20}
//! }}
//! ```
//!
//! Beside `mcpServers` there may be anything, since other programs keep their own settings there. Within a server an
//! unknown word is an error: it might be one that was to restrict the server.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tangelo_core::limits::CONFIG_BYTES_MAX;

use crate::error::{Error, Result};
use crate::expand::expand;

/// Time that a server has to start and list its tools, and for each call, where its entry does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Longest time that an entry may give, in seconds: a day.
const TIMEOUT_S_MAX: f64 = 86_400.0;

/// The servers of a file, in its order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The servers.
    pub servers: Vec<ServerConfig>,
}

/// How to reach one server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Its name in the file.
    pub name: String,
    /// How it is spoken to.
    pub transport: Transport,
    /// Its tools that may be called without asking, by the server's own names, with stars.
    pub allow: Vec<String>,
    /// Time that it has to start and list its tools, and for each call.
    pub timeout: Duration,
}

/// How a server is spoken to.
#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    /// A program of ours, by its standard input and output.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Variables of its environment, beside the few that every server gets.
        env: Secrets,
        /// The folder that it runs in; ours if not given.
        cwd: Option<PathBuf>,
    },
    /// An address, by streamable HTTP.
    Http {
        /// The address.
        url: String,
        /// Headers of every request.
        headers: Secrets,
    },
}

/// Names and values, of which only the names are ever printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// An entry as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "type")]
    kind: Option<String>,
    command: Option<String>,
    args: Option<Vec<String>>,
    env: Option<BTreeMap<String, String>>,
    cwd: Option<String>,
    url: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    allow: Vec<String>,
    timeout_s: Option<f64>,
    #[serde(default)]
    disabled: bool,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, and as [`Config::parse`].
    pub fn read(path: &Path) -> Result<Config> {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(CONFIG_BYTES_MAX).read_to_string(&mut text));
        read.map_err(|source| Error::Read { path: path.into(), source })?;
        Config::parse(&text, &|name| std::env::var(name).ok())
    }

    /// Understands the text of a file; `lookup` gives the variables of the environment.
    ///
    /// # Errors
    /// A sentence that names the server and what is wrong.
    pub fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
        let wrong = |problem: String| Error::Config { problem };
        let file: Value =
            serde_json::from_str(text).map_err(|error| wrong(format!("is not JSON ({error})")))?;
        let Some(servers) = file.get("mcpServers") else {
            return Err(wrong("has no `mcpServers`".into()));
        };
        let Some(servers) = servers.as_object() else {
            return Err(wrong("has `mcpServers` that are not an object".into()));
        };
        let entries = servers.iter().map(|(name, entry)| {
            server(name, entry, lookup)
                .map_err(|problem| Error::ServerConfig { server: name.clone(), problem })
        });
        let servers = entries.filter_map(Result::transpose).collect::<Result<_>>()?;
        Ok(Config { servers })
    }
}

/// One entry; `None` if it is switched off.
fn server(
    name: &str,
    entry: &Value,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<ServerConfig>, String> {
    let entry: Entry = Entry::deserialize(entry).map_err(|error| format!("cannot be understood: {error}"))?;
    if entry.disabled {
        return Ok(None);
    }
    let timeout = match entry.timeout_s {
        None => TIMEOUT_DEFAULT,
        Some(seconds) if seconds > 0.0 && seconds <= TIMEOUT_S_MAX => Duration::from_secs_f64(seconds),
        Some(seconds) => {
            return Err(format!(
                "has a `timeout_s` of {seconds}; expected more than 0 and at most {TIMEOUT_S_MAX}"
            ));
        }
    };
    let allow = entry.allow.clone();
    Ok(Some(ServerConfig { name: name.to_owned(), transport: transport(entry, lookup)?, allow, timeout }))
}

fn transport(entry: Entry, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Transport, String> {
    let text = |text: String| expand(&text, lookup);
    let map = |map: Option<BTreeMap<String, String>>| -> Result<Secrets, String> {
        let pairs = map.into_iter().flatten().map(|(key, value)| Ok((key, text(value)?)));
        Ok(Secrets(pairs.collect::<Result<_, String>>()?))
    };
    let is_http = match entry.kind.as_deref() {
        None => entry.url.is_some(),
        Some("stdio") => false,
        Some("http" | "streamable-http" | "streamableHttp") => true,
        Some("sse") => {
            return Err(
                "has the type `sse`, a transport that the protocol has replaced: give the server's address for streamable HTTP, with the type `http`".into(),
            );
        }
        Some(other) => return Err(format!("has the type `{other}`; expected `stdio` or `http`")),
    };
    match (entry.command, entry.url) {
        (Some(_), Some(_)) => Err("has both a `command` and a `url`; remove one".into()),
        (Some(command), None) if !is_http => {
            if entry.headers.is_some() {
                return Err("has `headers`, which only a server with a `url` can be sent".into());
            }
            Ok(Transport::Stdio {
                command: text(command)?,
                args: entry.args.into_iter().flatten().map(text).collect::<Result<_, _>>()?,
                env: map(entry.env)?,
                cwd: entry.cwd.map(text).transpose()?.map(PathBuf::from),
            })
        }
        (None, Some(url)) if is_http => {
            if entry.args.is_some() || entry.env.is_some() || entry.cwd.is_some() {
                return Err(
                    "has `args`, `env` or `cwd`, which only a server with a `command` can be given".into()
                );
            }
            let url = text(url)?;
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err("has a `url` that does not begin with http:// or https://".into());
            }
            Ok(Transport::Http { url, headers: map(entry.headers)? })
        }
        _ if is_http => Err("needs a `url`".into()),
        _ => Err("needs a `command` to run or a `url` to reach".into()),
    }
}
