//! `tangelo convert`: a model in the layout of the hub as one GGUF file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tangelo_core::DType;
use tangelo_formats::config::{Config, TensorSpec};
use tangelo_formats::gguf::{Metadata, Value};
use tangelo_formats::{Checkpoint, Format};

use crate::args::available_threads;
use crate::hub::{self, HubId};
use crate::output;
use crate::weights::{self, Elements, Source, Vocabulary};

/// Write a model as one GGUF file
///
/// The weights are rounded to the type that is asked for; f32 keeps them as they are.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder in the layout of the hub, such as a checkpoint of `tangelo train`, or a hub id
    model: String,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Type of the weights: f32, bf16, f16 or any mixture of llama.cpp's quantiser such as q8_0 or q4_k_m
    #[arg(long, value_name = "TYPE", default_value = "q8_0")]
    quant: String,
    /// Name of the model within the file [default: that of the folder]
    #[arg(long)]
    name: Option<String>,
}

/// Writes the file and says how large it is.
///
/// # Errors
/// If the model cannot be read or has weights in quantised types, or the file cannot be written.
pub fn run(args: Args) -> Result<()> {
    let start = Instant::now();
    let mix = weights::mixture("--quant", &args.quant)?;
    let folder = hub::resolve(&args.model)?;
    let checkpoint = Checkpoint::open(&folder)?;
    ensure!(
        checkpoint.format() == Format::Safetensors && folder.is_dir(),
        "`{}` is not a folder of safetensors with config.json, and only such can be converted",
        args.model
    );
    let vocabulary = Vocabulary::from_folder(&folder, checkpoint.config().vocab_size)?;
    // Behind a hub id lies a folder that is named after a commit.
    let of_id = args.model.parse::<HubId>().ok().filter(|_| !Path::new(&args.model).exists());
    let of_id = of_id.and_then(|id| id.repo.rsplit('/').next().map(str::to_owned));
    let name = args.name.or(of_id).unwrap_or_else(|| name_of(&folder));
    output::clean_up_when_interrupted()?;
    let stored = Stored { checkpoint, name };
    let written = weights::write_gguf(&stored, mix, &vocabulary, &args.out, available_threads())?;
    Ok(written.report(&args.out, start)?)
}

/// The name of a folder.
fn name_of(folder: &Path) -> String {
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    full.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

/// A model on disk.
struct Stored {
    checkpoint: Checkpoint,
    name: String,
}

impl Source for Stored {
    fn config(&self) -> &Config {
        self.checkpoint.config()
    }

    fn name(&self) -> &str {
        &self.name
    }

    /// The licence, what ends answers besides the end of a turn, and how the authors sample.
    fn describe(&self, metadata: &mut Metadata) {
        let written = metadata.get_u32("tokenizer.ggml.eos_token_id").ok().flatten();
        let others = self.checkpoint.stop_token_ids().into_iter().filter(|id| Some(*id) != written);
        for (key, id) in ["eot", "eom"].into_iter().zip(others) {
            metadata.set(format!("tokenizer.ggml.{key}_token_id"), Value::U32(id));
        }
        if let Some(license) = self.checkpoint.license() {
            metadata.set("general.license", Value::String(license));
        }
        let suggested = self.checkpoint.generation().overrides();
        let floats = [
            ("temp", suggested.temperature),
            ("top_p", suggested.top_p),
            ("min_p", suggested.min_p),
            ("penalty_repeat", suggested.repetition_penalty),
        ];
        for (key, value) in floats {
            if let Some(value) = value {
                metadata.set(format!("general.sampling.{key}"), Value::F32(value));
            }
        }
        if let Some(top_k) = suggested.top_k.and_then(|k| u32::try_from(k).ok()) {
            metadata.set("general.sampling.top_k", Value::U32(top_k));
        }
    }

    fn elements(&self, spec: &TensorSpec) -> Result<Box<dyn Elements>> {
        let tensor = self.checkpoint.tensor(&spec.name)?;
        if !matches!(tensor.dtype, DType::F32 | DType::F16 | DType::BF16) {
            bail!(
                "tensor `{}` is stored in {}, which has been rounded already; convert the model in its original precision",
                spec.name,
                tensor.dtype
            );
        }
        let floats = tensor.to_f32().with_context(|| spec.name.clone())?;
        Ok(Box::new(Floats(floats)))
    }
}

/// All elements of a tensor.
struct Floats(Vec<f32>);

impl Elements for Floats {
    fn fill(&self, range: Range<u64>, out: &mut [f32]) {
        out.copy_from_slice(&self.0[range.start as usize..range.end as usize]);
    }
}
