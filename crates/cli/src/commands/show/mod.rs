//! `tangelo show`: what a model is made of and what it costs to keep, from its files or from its sizes alone.

pub(super) mod facts;
mod json;
mod text;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tangelo_formats::Checkpoint;
use tangelo_formats::config::shapes;

use crate::{hub, model};
use facts::Facts;

/// Names under which a folder holds weights, besides GGUF files.
const WEIGHTS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];

/// Show what a model is made of and how much memory it takes
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["model", "shape"])))]
pub struct Args {
    /// A GGUF file, a folder with config.json (weights may be missing), or a hub id `org/name[:file][@revision]`
    model: Option<String>,
    /// Show the sizes of a published model without its files
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(shapes::NAMES))]
    shape: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Prints the facts.
///
/// # Errors
/// If the model cannot be opened.
pub fn run(args: Args) -> Result<()> {
    let facts = match (&args.model, &args.shape) {
        (Some(model), _) => facts_of(model)?,
        (None, Some(shape)) => Facts::of_config(shape, shapes::named(shape).context("the shape is unknown")?),
        (None, None) => return Err(crate::args::usage("give a model or --shape")),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", json::document(&facts))?;
    } else {
        write!(out, "{}", text::page(&facts))?;
    }
    Ok(())
}

fn facts_of(model: &str) -> Result<Facts> {
    let path = hub::resolve(model)?;
    match config_alone(&path)? {
        Some(config) => Ok(Facts::of_config(model, model::read_config(&config)?)),
        None => Facts::of_checkpoint(model, &Checkpoint::open(&path)?),
    }
}

/// The `config.json` that is all there is: given itself, or in a folder without anything that is opened as weights.
fn config_alone(path: &Path) -> Result<Option<PathBuf>> {
    if path.extension().is_some_and(|e| e == "json") {
        return Ok(Some(path.to_path_buf()));
    }
    let config = path.join("config.json");
    if !path.is_dir() || !config.is_file() {
        return Ok(None);
    }
    for entry in path.read_dir().with_context(|| format!("cannot read {}", path.display()))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if WEIGHTS.contains(&&*name) || name.to_lowercase().ends_with(".gguf") {
            return Ok(None);
        }
    }
    Ok(Some(config))
}
