//! `tangelo synth`: models of random weights in any published shape and format, so that speed, memory and formats
//! can be tried on a machine that cannot download, and compared with other programs on the same file.
//!
//! The weights are a closed formula (`values.rs`, `recipe.rs`) and therefore the same wherever they are made:
//! `synth --config fixtures/tiny/config.json --format safetensors` writes the weights of that fixture, bit for bit.

mod fp8;
mod recipe;
mod safetensors;
pub mod values;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use tangelo_core::DType;
use tangelo_formats::config::shapes;

use crate::args::{available_threads, usage};
use crate::weights::{self, Mix, Vocabulary};
use crate::{model, output};
use recipe::Recipe;

/// Container of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One GGUF file.
    Gguf,
    /// A folder as on the hub.
    Safetensors,
}

/// Write a model of random weights
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("sizes").required(true).args(["shape", "config"]))]
pub struct Args {
    /// Sizes of a published model
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(shapes::NAMES))]
    shape: Option<String>,
    /// Sizes from a config.json
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Container of the weights
    #[arg(long, value_enum, default_value = "gguf")]
    format: Format,
    /// Type of the weights: f32, bf16 or f16, and for GGUF any mixture of llama.cpp's quantiser such as q8_0 or
    /// q4_k_m [default: q4_k_m for gguf, bf16 for safetensors]
    #[arg(long, value_name = "TYPE")]
    quant: Option<String>,
    /// Store linear layers in FP8 with scales, as ModelOpt does (safetensors only)
    #[arg(long)]
    fp8: bool,
    /// The GGUF file to write, or the folder to make
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// What the weights are derived from [default: the shape, or the name of the config's folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Another model of the same name
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A folder with tokenizer.json, and with chat_template.jinja if the model is to have one [default: a made-up
    /// tokenizer of single bytes]
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Parameters that are not rounded to BF16, by the last part of their names
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "e_score_correction_bias")]
    f32_params: Vec<String>,
    /// Threads to compute with [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

/// How the weights are stored.
enum Storage {
    Gguf(&'static Mix),
    Safetensors(safetensors::Options),
}

/// Writes the model and says how large it is.
///
/// # Errors
/// If the options do not go together, the configuration is damaged, or the model cannot be written.
pub fn run(args: Args) -> Result<()> {
    let start = Instant::now();
    let threads = args.threads.map_or_else(available_threads, usize::from);
    let storage = storage(&args, threads)?;
    let recipe = recipe(&args)?;
    let vocab_size = recipe.config.vocab_size;
    let vocabulary = match &args.tokenizer {
        Some(folder) => Vocabulary::from_folder(folder, vocab_size)?,
        None => Vocabulary::made_up(vocab_size)?,
    };
    output::clean_up_when_interrupted()?;
    let written = match storage {
        Storage::Gguf(mix) => weights::write_gguf(&recipe, mix, &vocabulary, &args.out, threads)?,
        Storage::Safetensors(options) => safetensors::write(&recipe, &options, &vocabulary, &args.out)?,
    };
    Ok(written.report(&args.out, start)?)
}

/// Checks that format and type go together.
fn storage(args: &Args, threads: usize) -> Result<Storage> {
    match args.format {
        Format::Gguf if args.fp8 => Err(usage("--fp8 needs --format safetensors: GGUF has no FP8 type")),
        Format::Gguf => {
            let name = args.quant.as_deref().unwrap_or("q4_k_m");
            Ok(Storage::Gguf(weights::mixture("--quant", name)?))
        }
        Format::Safetensors => {
            let name = args.quant.as_deref().unwrap_or("bf16");
            let dtype = DType::from_name(name)
                .filter(|dtype| matches!(dtype, DType::F32 | DType::F16 | DType::BF16))
                .ok_or_else(|| {
                    usage(format!("safetensors holds f32, f16 or bf16, not `{name}`; use --format gguf"))
                })?;
            Ok(Storage::Safetensors(safetensors::Options { dtype, fp8: args.fp8, threads }))
        }
    }
}

fn recipe(args: &Args) -> Result<Recipe> {
    let (config, default_name) = match (&args.shape, &args.config) {
        (Some(shape), _) => (shapes::named(shape).context("the shape is unknown")?, shape.clone()),
        (None, Some(path)) => (model::read_config(path)?, folder_name(path)),
        (None, None) => return Err(usage("give --shape or --config")),
    };
    let mut name = args.name.clone().unwrap_or(default_name);
    if let Some(seed) = args.seed {
        name = format!("{name}.{seed}");
    }
    Ok(Recipe { config, name, f32_params: args.f32_params.clone() })
}

/// The name of the folder that a file is in.
fn folder_name(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = full.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "model".into())
}
