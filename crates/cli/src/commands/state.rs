//! `tangelo state`: what a state file says of itself, and whether it is sound.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;
use indicatif::HumanBytes;
use safetensors::tensor::Metadata;
use serde_json::{Value, json};
use tangelo_core::limits::STATE_HEADER_BYTES_MAX;
use tangelo_engine::state_file;

use crate::page::Page;
use crate::session::{ModelArgs, Session};

/// Look into state files
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what a state file says of itself; needs no model
    Show {
        /// A .state file
        file: PathBuf,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Read a state file over: its size, its shapes, its hash, and whether it is of this model
    Verify {
        /// A .state file
        file: PathBuf,
        #[command(flatten)]
        model: Box<ModelArgs>,
    },
}

/// Does it.
///
/// # Errors
/// If the file cannot be read or is not what it should be.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Show { file, json } => show(&file, json),
        Command::Verify { file, model } => verify(&file, &model),
    }
}

fn show(path: &Path, as_json: bool) -> Result<()> {
    let header = read_header(path).with_context(|| path.display().to_string())?;
    let bytes = std::fs::metadata(path)?.len();
    let metadata = header.metadata().clone().unwrap_or_default();
    let Some("tangelo-state") = metadata.get("format").map(String::as_str) else {
        bail!("{} is a safetensors file, but not of a state", path.display());
    };
    let value = |key: &str| metadata.get(key).cloned();
    let has_logits = header.info("logits").is_some();
    let mut out = std::io::stdout().lock();
    if as_json {
        let number = |key: &str| value(key).and_then(|text| text.parse::<u64>().ok());
        let document: Value = json!({
            "file": path, "bytes": bytes, "version": number("version"), "tokens": number("position"),
            "model": value("model"), "kv": value("kv"), "template": value("template"),
            "sha256": value("sha256"), "has_logits": has_logits,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?;
        return Ok(());
    }
    let mut page = Page::new(&path.display().to_string());
    page.line("size", &HumanBytes(bytes).to_string());
    for (label, key) in [
        ("tokens", "position"),
        ("model", "model"),
        ("keys and values", "kv"),
        ("template", "template"),
        ("sha256", "sha256"),
        ("version", "version"),
    ] {
        if let Some(text) = value(key) {
            page.line(label, &text);
        }
    }
    page.line("logits", if has_logits { "yes" } else { "no" });
    write!(out, "{}", page.text())?;
    Ok(())
}

/// The header of a safetensors file.
fn read_header(path: &Path) -> Result<Metadata> {
    let mut file = File::open(path)?;
    let mut len = [0; 8];
    file.read_exact(&mut len).context("too short for a state file")?;
    let len = u64::from_le_bytes(len);
    ensure!(len <= STATE_HEADER_BYTES_MAX, "not a state file: it begins like nothing of the kind");
    let mut header = Vec::new();
    file.take(len).read_to_end(&mut header)?;
    serde_json::from_slice(&header).context("not a state file: its header cannot be read")
}

fn verify(path: &Path, model: &ModelArgs) -> Result<()> {
    let session = Session::open(model)?;
    let restored = state_file::restore(path, &session.model)?;
    println!("{} is sound: {} tokens of this model", path.display(), restored.sequence.position());
    Ok(())
}
