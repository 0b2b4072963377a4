//! `tangelo sft` and `tangelo lora`: fine-tuning, all of a model or little beside it. Both are recipes that options change.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tangelo_core::limits::CONFIG_BYTES_MAX;
use tangelo_train::Recipe;

use super::train::{TeachArgs, recipe_in, teach};
use crate::args::usage;
use crate::{hub, model};

/// What is learned where no recipe says otherwise: the assistant's turns alone.
const SFT: &str = r#"
[data]
prompt_weight = 0.0

[batch]
tokens = 8192
micro_tokens = 4096
context = 4096

[optimiser]
lr = 2e-5
weight_decay = 0.0

[schedule]
shape = "cosine"
steps = 200
warmup = 10

[run]
checkpoint_every = 50
eval_every = 50
"#;

/// Learning rate and rank of an adapter, whose matrices are small and begin at zero.
const LORA_LR: f64 = 2e-4;
const LORA_RANK: usize = 8;

/// What is taught, from what.
#[derive(Debug, clap::Args)]
struct TuneArgs {
    /// The model to begin from: a folder in the layout of the hub, or a hub id
    #[arg(long, value_name = "MODEL", required_unless_present_any = ["recipe", "resume"], conflicts_with = "resume")]
    model: Option<String>,
    /// JSONL or parquet files with a conversation (`messages`, `tools`) or a `text` per row, or data sets of the hub,
    /// `datasets/org/name[:file][@revision]`; without any, exercises of the orchard
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "resume")]
    data: Vec<PathBuf>,
    /// Files to examine with and not to learn from
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "resume")]
    eval_data: Vec<PathBuf>,
    /// Number of steps
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    steps: Option<u64>,
    /// A recipe to take instead of the one for fine-tuning; other options come before what it says
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    run: TeachArgs,
}

/// Fine-tune all of a model
///
/// Learns what the assistant says in conversations, each answer from the prompt that the chat template makes; a line of
/// thought is learned where there is one; `--set data.drop_thoughts=0.3` learns three in ten conversations without theirs, so
/// that thinking can be switched on and off. `tangelo train` takes the same recipes; RUN/recipe.toml shows this one.
#[derive(Debug, clap::Args)]
pub struct SftArgs {
    #[command(flatten)]
    tune: TuneArgs,
}

/// Fine-tune a few parameters beside a model
///
/// Matrices of low rank stand beside every projection, those of the Mamba layers and of the MLPs included. Checkpoints are
/// adapters in the layout of PEFT, for `--adapter` of other commands and for `tangelo merge`.
#[derive(Debug, clap::Args)]
pub struct LoraArgs {
    #[command(flatten)]
    tune: TuneArgs,
    /// Rank of the matrices; 0 for none [default: 8]
    #[arg(long, value_name = "R", conflicts_with = "resume")]
    rank: Option<usize>,
    /// What is added counts ALPHA / R times [default: 16]
    #[arg(long, value_name = "ALPHA", conflicts_with = "resume")]
    alpha: Option<f64>,
    /// Learn the lengths of the rows too (DoRA)
    #[arg(long, conflicts_with = "resume")]
    dora: bool,
    /// Learn the recurrent states that sequences begin with
    #[arg(long, conflicts_with = "resume")]
    state: bool,
    /// Adapt these projections only; PEFT refuses `out_proj` in models of this family
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "resume")]
    targets: Vec<String>,
}

/// Fine-tunes a model.
///
/// # Errors
/// If the model, the data or the recipe cannot be read, or a checkpoint cannot be written.
pub fn run_sft(args: SftArgs) -> Result<()> {
    args.tune.teach(Vec::new())
}

/// Fine-tunes an adapter.
///
/// # Errors
/// As [`run_sft`].
pub fn run_lora(args: LoraArgs) -> Result<()> {
    let rank = args.rank.map(|rank| format!("adapter.rank={rank}"));
    let alpha = args.alpha.map(|alpha| format!("adapter.alpha={alpha:?}"));
    let dora = args.dora.then(|| "adapter.dora=true".to_owned());
    let state = args.state.then(|| "adapter.state=true".to_owned());
    let targets = (!args.targets.is_empty()).then(|| format!("adapter.targets={:?}", args.targets));
    let mut changes: Vec<String> = [rank, alpha, dora, state, targets].into_iter().flatten().collect();
    let text = args.tune.recipe.as_ref().map(|path| model::read_text(path, CONFIG_BYTES_MAX)).transpose()?;
    let set = args.tune.run.changes(Vec::new());
    if changes.is_empty() && !Recipe::names_adapter(&text.unwrap_or_default(), &set)? {
        // Naming one of its numbers gives a recipe an adapter with all the usual ones.
        changes.push(format!("adapter.rank={LORA_RANK}"));
    }
    if args.tune.recipe.is_none() {
        changes.push(format!("optimiser.lr={LORA_LR:e}"));
    }
    args.tune.teach(changes)
}

impl TuneArgs {
    /// What the options change in a recipe.
    fn changes(&self) -> Result<Vec<String>> {
        let mut changes = Vec::new();
        if let Some(model) = &self.model {
            changes.push(format!("model.from={}", quoted(&hub::resolve(model)?)));
        }
        for (key, paths) in [("files", &self.data), ("eval_files", &self.eval_data)] {
            if !paths.is_empty() {
                let paths: Vec<String> = paths.iter().map(|path| quoted(path)).collect();
                changes.push(format!("data.{key}=[{}]", paths.join(", ")));
            }
        }
        changes.extend(self.steps.map(|steps| format!("schedule.steps={steps}")));
        Ok(self.run.changes(changes))
    }

    fn teach(&self, of_adapter: Vec<String>) -> Result<()> {
        if self.run.is_resumed() {
            return teach(&self.run, None);
        }
        let changes = [of_adapter, self.changes()?].concat();
        let recipe = match &self.recipe {
            Some(path) => recipe_in(path, &changes)?,
            None => Recipe::parse(SFT, &changes).map_err(usage)?,
        };
        teach(&self.run, Some(recipe))
    }
}

/// A path as a text of TOML, which JSON's texts are too.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}
