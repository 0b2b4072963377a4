//! `tangelo show`: what a model is made of and what it costs to keep, from its files or from its sizes alone, and what of
//! it goes to a device.

pub(super) mod facts;
mod json;
mod offload;
mod text;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tangelo_formats::config::shapes;

use crate::{hub, model, pocket};
use facts::Facts;
use offload::OffloadArgs;

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
    #[command(flatten)]
    offload: OffloadArgs,
}

/// Prints the facts.
///
/// # Errors
/// If the model cannot be opened, or a GPU is asked for by name and cannot be used.
pub fn run(args: Args) -> Result<()> {
    let facts = match (&args.model, &args.shape) {
        (Some(model), _) => facts_of(model, args.offload)?,
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

fn facts_of(model: &str, offload: OffloadArgs) -> Result<Facts> {
    if !pocket::is_meant_by(model)
        && let Some(config) = config_alone(&hub::resolve(model)?)?
    {
        ensure!(!offload.is_asked(), "{model} has no weights: --device needs to know how they are stored");
        return Ok(Facts::of_config(model, model::read_config(&config)?));
    }
    let checkpoint = model::open(model)?;
    Ok(Facts { offload: offload.of(&checkpoint)?, ..Facts::of_checkpoint(model, &checkpoint)? })
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
