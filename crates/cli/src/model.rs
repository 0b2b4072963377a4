//! Opening what a MODEL argument names: the weights, the tokenizer.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tangelo_core::limits::{CONFIG_BYTES_MAX, TOKENIZER_BYTES_MAX};
use tangelo_engine::{available_bytes, check_weights};
use tangelo_formats::tokenizer::Tokenizer;
use tangelo_formats::{Adapter, Checkpoint, Config, TokenizerSource};
use tangelo_model::{Demand, Model};
use tangelo_ops::{Cx, Place};

use crate::args::RunArgs;
use crate::{hub, pocket};

/// Opens a model: a GGUF file, a folder in the layout of the hub, a hub id, which is downloaded if need be, or the model
/// that ships with the program.
///
/// # Errors
/// If there is no such model or its files are damaged.
pub fn open(model: &str) -> Result<Checkpoint> {
    if pocket::is_meant_by(model) {
        return pocket::open();
    }
    Ok(Checkpoint::open(&hub::resolve(model)?)?)
}

/// [`open`] with the adapter in a folder, if one is given.
///
/// # Errors
/// As [`open`], and if the adapter cannot be read or is for another model.
pub fn open_with(model: &str, adapter: Option<&Path>) -> Result<Checkpoint> {
    let checkpoint = open(model)?;
    let Some(folder) = adapter else { return Ok(checkpoint) };
    let with = Adapter::open(folder).and_then(|adapter| checkpoint.with_adapter(adapter));
    with.with_context(|| format!("the adapter {} cannot be used", folder.display()))
}

/// The weights of an opened model, if they fit in memory, to be run by `cx` as `run` says; on a GPU with room for
/// `context` tokens, if that is known, `chunk` at a time.
///
/// # Errors
/// If there is not enough memory or a tensor is not what the configuration asks for.
pub fn load(
    cx: &Cx,
    checkpoint: &Checkpoint,
    run: &RunArgs,
    context: Option<usize>,
    chunk: usize,
) -> Result<Model> {
    let placement = run.device.place(cx.gpu(), checkpoint, run.kv, context, chunk)?;
    let demand = Demand::of(checkpoint, run.kv, 0, 0);
    let bytes: u64 = checkpoint.tensors().map(|tensor| tensor.bytes.len() as u64).sum();
    let bytes =
        bytes + checkpoint.adapter().map_or(0, |adapter| adapter.bytes().map(|(_, bytes)| bytes).sum());
    check_weights(bytes.saturating_sub(demand.on_device(placement).weights), available_bytes())?;
    Ok(Model::load_placed(cx, checkpoint, placement)?.with_kv_type(run.kv))
}

/// Bytes that the state of a loaded model may take, where that is known: of the device if it has layers there.
pub fn bytes_for_state(cx: &Cx, model: &Model) -> Option<u64> {
    match (cx.gpu(), model.placement().head()) {
        (Some(gpu), Place::Device) => Some(gpu.left_bytes()),
        _ => available_bytes(),
    }
}

/// The tokenizer of an opened model, which is checked against the model's vocabulary.
///
/// # Errors
/// If the model has none, it is damaged, or it has tokens that the model lacks.
pub fn tokenizer(checkpoint: &Checkpoint) -> Result<Tokenizer> {
    let tokenizer = match checkpoint.tokenizer_source() {
        TokenizerSource::Json(path) => tokenizer_json(&path)?,
        TokenizerSource::Gguf(metadata) => Tokenizer::from_gguf(metadata)?,
        TokenizerSource::Missing => {
            bail!("the model has no tokenizer: put its tokenizer.json beside the weights")
        }
    };
    tokenizer.check_vocabulary(checkpoint.config().vocab_size)?;
    Ok(tokenizer)
}

/// The tokenizer of a model whose weights may be absent: a folder with a `tokenizer.json`, or a model as in [`open`].
///
/// # Errors
/// As [`open`] and [`tokenizer`].
pub fn open_tokenizer(model: &str) -> Result<Tokenizer> {
    if pocket::is_meant_by(model) {
        return tokenizer(&pocket::open()?);
    }
    let path = hub::resolve(model)?;
    let json = if path.is_dir() { path.join("tokenizer.json") } else { path.clone() };
    let is_json = json.extension().is_some_and(|e| e == "json");
    if is_json && json.is_file() {
        return tokenizer_json(&json);
    }
    tokenizer(&Checkpoint::open(&path)?)
}

/// Reads a `tokenizer.json` and the `tokenizer_config.json` beside it, if there is one.
///
/// # Errors
/// If a file cannot be read or is not what its name says.
pub fn tokenizer_json(path: &Path) -> Result<Tokenizer> {
    let of = |path: &Path| path.display().to_string();
    let tokenizer = Tokenizer::from_json(&read(path, TOKENIZER_BYTES_MAX)?).with_context(|| of(path))?;
    let config = path.with_file_name("tokenizer_config.json");
    if !config.is_file() {
        return Ok(tokenizer);
    }
    tokenizer.with_config(&read(&config, TOKENIZER_BYTES_MAX)?).with_context(|| of(&config))
}

/// Reads a `config.json`.
///
/// # Errors
/// If it cannot be read or describes no model that this program can run.
pub fn read_config(path: &Path) -> Result<Config> {
    let text = String::from_utf8(read(path, CONFIG_BYTES_MAX)?)
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    Config::from_json(&text).with_context(|| path.display().to_string())
}

/// Reads a text of at most `bytes_max` bytes from a file, or from standard input if `path` is `-`.
///
/// # Errors
/// If it is larger, cannot be read, or is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin { "standard input".to_string() } else { path.display().to_string() };
    let bytes = if is_stdin {
        let mut bytes = Vec::new();
        let all = std::io::stdin().take(bytes_max.saturating_add(1)).read_to_end(&mut bytes);
        let len = all.with_context(|| format!("cannot read {name}"))? as u64;
        ensure!(len <= bytes_max, "{name} has more than the {bytes_max} bytes that it can have");
        bytes
    } else {
        read(path, bytes_max)?
    };
    String::from_utf8(bytes).map_err(|_| anyhow!("{name} is not UTF-8 text"))
}

/// Reads a whole file of at most `bytes_max` bytes.
///
/// # Errors
/// If it is larger or cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let name = path.display();
    let bytes = std::fs::metadata(path).with_context(|| format!("cannot open {name}"))?.len();
    ensure!(
        bytes <= bytes_max,
        "{name} has {bytes} bytes, more than the {bytes_max} that such a file can have"
    );
    std::fs::read(path).with_context(|| format!("cannot read {name}"))
}
