//! `tangelo serve`: a model behind the APIs of OpenAI, Anthropic and Ollama.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::HumanBytes;
use tangelo_chat::Renderer;
use tangelo_core::limits::{CONFIG_BYTES_MAX, TEMPLATE_BYTES_MAX};
use tangelo_engine::{Folder, check_context, context_bytes, default_context, scheduler};
use tangelo_formats::template::ChatTemplate;
use tangelo_mcp::Allowed;
use tangelo_serve::app::now_unix_s;
use tangelo_serve::{App, Keys, ModelFacts, Options, Personas, Settings, Store, Text};

use crate::args::{chunk_tokens, usage};
use crate::device::parse_size;
use crate::session::{ModelArgs, parse_count};
use crate::{model, persona};

/// Part of the available memory that states may take without being told: the rest is for activations and others.
const STATE_SHARE: u64 = 2;
/// Bytes of states where the system does not say what is available.
const STATE_BYTES_UNKNOWN: u64 = 4 << 30;
/// Prompt tokens of a step in which answers go on, as part of those of a step without.
const MIXED_SHARE: usize = 4;

/// Serve a model over HTTP
///
/// Speaks OpenAI's API (chat completions, completions, responses, embeddings), Anthropic's messages and Ollama's API;
/// /openapi.json describes all of it. Connections are not encrypted: put a proxy in front to serve other machines.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    states: StateArgs,
    /// Name of the model in requests [default: that of its file or folder]
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// A Jinja chat template to use instead of the model's own
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Offer the personas of this folder's .toml files, with the states that `tangelo persona build` made of them
    #[arg(long, value_name = "FOLDER")]
    personas: Option<PathBuf>,
    /// Offer the tools of the MCP servers in this file (`mcpServers`, as other programs have it)
    #[arg(long, value_name = "FILE")]
    mcp: Option<PathBuf>,
    /// Tools of MCP servers that are offered and called without asking anybody, by name or pattern; also `allow` in the
    /// file (may be repeated)
    #[arg(long, value_name = "PATTERN", requires = "mcp")]
    mcp_allow: Vec<String>,
}

/// Who may call.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
struct NetworkArgs {
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes any that is free
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Let only those in who send this key (may be repeated); every key has states of its own
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// The same for every line of a file
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Listen on an address that others can reach without asking for a key
    #[arg(long)]
    insecure_bind: bool,
    /// Let pages of this origin call from a browser, such as `https://example.org`; * for all (may be repeated)
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// Without keys, answer those too who call the server by this name, such as a proxy's; addresses and `localhost`
    /// always do (may be repeated)
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Most bytes of a request, such as 32MiB
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = parse_size)]
    body_limit: u64,
    /// Seconds in which the body of a request must have arrived
    #[arg(long, value_name = "S", default_value_t = 60)]
    body_time: u64,
    /// Seconds that answers under way may take after the program was told to stop
    #[arg(long, value_name = "S", default_value_t = 30)]
    drain_time: u64,
}

/// How much is done at once.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Work")]
struct WorkArgs {
    /// Answers made at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parse_count)]
    parallel: usize,
    /// Requests that may wait; further ones are refused with the status 429
    #[arg(long, value_name = "N", default_value_t = 64)]
    queue: usize,
    /// Prompt tokens per step while answers are being made; fewer hold them up less [default: a quarter of --chunk]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    mixed_chunk: Option<usize>,
    /// Most tokens of an answer where a request does not say
    #[arg(long, value_name = "N", value_parser = parse_count)]
    max_tokens: Option<usize>,
}

/// Where states are kept.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "States")]
struct StateArgs {
    /// Memory for states, those of answers under way included [default: half of what is available]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    state_budget: Option<u64>,
    /// Keep states with names here, and others that memory has no room for
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// Disk space for states with names, and as much again for the others
    #[arg(long, value_name = "SIZE", default_value = "16GiB", value_parser = parse_size)]
    disk_budget: u64,
}

/// Serves until it is interrupted.
///
/// # Errors
/// If the address cannot be used, the model cannot be opened, or the memory is too small.
pub fn run(args: Args) -> Result<()> {
    let keys = args.network.keys()?;
    let address = SocketAddr::new(args.network.host, args.network.port);
    // First of all, since it fails at once if it does.
    let listener = tangelo_serve::bind(address, keys.are_required(), args.network.insecure_bind)?;
    let options = Options {
        cors_origins: args.network.cors_origin.clone(),
        body_bytes_max: usize::try_from(args.network.body_limit).unwrap_or(usize::MAX),
        body_time: Duration::from_secs(args.network.body_time),
        // Whoever has a key, or need not be asked for one, may call the server what they like.
        hosts: (!keys.are_required() && !args.network.insecure_bind).then(|| args.network.allow_host.clone()),
    };
    let tools = args.mcp.as_deref().map(tangelo_mcp::Config::read).transpose()?;
    let tools = tools.map(|config| (config, Allowed::new(args.mcp_allow.iter().cloned())));
    let app = args.open(keys)?;
    let facts = app.model();
    println!(
        "serving {} on http://{}, context {} tokens",
        facts.name,
        listener.local_addr().unwrap_or(address),
        facts.context_tokens
    );
    let drain_time = Duration::from_secs(args.network.drain_time);
    Ok(tangelo_serve::run(listener, app, &options, drain_time, tools)?)
}

impl Args {
    /// Opens the model and starts the thread that computes with it.
    fn open(&self, keys: Keys) -> Result<App> {
        let cx = self.model.run.cx()?;
        let chunk = self.model.chunk.unwrap_or_else(|| chunk_tokens(&cx));
        let checkpoint = model::open_with(&self.model.model, self.model.adapter.as_deref())?;
        let tokenizer = model::tokenizer(&checkpoint)?;
        let renderer = self.template(checkpoint.chat_template()?)?.map(Renderer::new);
        let model = model::load(&cx, &checkpoint, &self.model.run, self.model.context, chunk)?;
        let available = model::bytes_for_state(&cx, &model);
        let budget = match (self.states.state_budget, available) {
            (Some(budget), Some(available)) if budget > available => bail!(
                "--state-budget is {}, but {} are available: give less",
                HumanBytes(budget),
                HumanBytes(available)
            ),
            (Some(budget), _) => budget,
            (None, available) => available.map_or(STATE_BYTES_UNKNOWN, |bytes| bytes / STATE_SHARE),
        };
        let context = match self.model.context {
            Some(context) => context,
            // Half of what is given, so that at least two such prompts fit.
            None => default_context(&model, Some(budget)),
        };
        check_context(&model, context, Some(budget))?;
        let text = Text::new(&checkpoint, tokenizer, renderer);
        let name = self.alias.clone().unwrap_or_else(|| name_of(&self.model.model));
        let facts = ModelFacts::new(name, &checkpoint, &model, &text, context, now_unix_s());
        drop(checkpoint);
        let model = Arc::new(model);
        let (mut folder, mut states) = (None, None);
        if let Some(path) = &self.states.state_dir {
            folder = Some(Folder::open(path, self.states.disk_budget, model.clone())?);
            states = Some(Store::open(path, self.states.disk_budget)?);
        }
        let sources = self.personas.as_deref().map(persona::read_folder).transpose()?.unwrap_or_default();
        let personas = Personas::new(sources, &text, &model)?;
        let settings = Settings {
            keys,
            scheduler: scheduler::Options {
                context,
                parallel: self.work.parallel,
                queue: self.work.queue,
                prefill_tokens: chunk,
                mixed_tokens: self.work.mixed_chunk.unwrap_or((chunk / MIXED_SHARE).max(1)),
                state_bytes: usize::try_from(budget.max(context_bytes(&model, context)))?,
            },
            folder,
            states,
            personas,
            max_tokens: self.work.max_tokens,
        };
        Ok(App::start(model, cx, text, facts, settings)?)
    }

    /// The user's template, or else the model's.
    fn template(&self, own: Option<String>) -> Result<Option<ChatTemplate>> {
        let source = match &self.chat_template {
            Some(path) => Some(model::read_text(path, TEMPLATE_BYTES_MAX as u64)?),
            None => own,
        };
        Ok(source.map(ChatTemplate::new).transpose()?)
    }
}

impl NetworkArgs {
    fn keys(&self) -> Result<Keys> {
        let mut keys = self.api_key.clone();
        if let Some(path) = &self.api_key_file {
            let text = model::read_text(path, CONFIG_BYTES_MAX)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let before = keys.len();
            keys.extend(lines.map(str::to_owned));
            // Whoever names a file of keys does not want to let everybody in.
            if keys.len() == before {
                return Err(usage(format!("{} has no keys", path.display())));
            }
        }
        Ok(Keys::new(keys))
    }
}

/// `tiny` of `fixtures/tiny`, `models/tiny.gguf` and `org/tiny:model.gguf`.
fn name_of(model: &str) -> String {
    let path =
        if Path::new(model).exists() { model } else { model.split([':', '@']).next().unwrap_or(model) };
    let path = Path::new(path);
    let is_file = path.extension().is_some_and(|extension| extension == "gguf");
    let name = if is_file { path.file_stem() } else { path.file_name() };
    name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_like_its_file_or_folder() {
        for (model, name) in [
            ("models/tiny", "tiny"),
            ("models/tiny/", "tiny"),
            ("models/Tiny-4B.Q4_K_M.gguf", "Tiny-4B.Q4_K_M"),
            ("org/tiny", "tiny"),
            ("org/tiny:a.gguf@main", "tiny"),
        ] {
            assert_eq!(name_of(model), name);
        }
    }
}
