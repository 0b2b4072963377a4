//! `tangelo train`: teaching a model by a recipe. What fine-tuning shares with it is here too.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use tangelo_core::limits::CONFIG_BYTES_MAX;
use tangelo_engine::available_bytes;
use tangelo_train::adapter::coverage;
use tangelo_train::memory::{needed_bytes, needed_to_resume};
use tangelo_train::{Error, Param, Recipe, Run};

use super::dashboard::Dashboard;
use crate::args::CpuArgs;
use crate::{hub, model};

/// Teach a model by a recipe
///
/// A recipe is a TOML file; paths in it count from the working directory. The folder of the run holds the recipe with all its
/// defaults, a log with a line per step, a picture of it, and checkpoints: models that other commands open, or adapters if the
/// recipe has one. Ctrl-C keeps a checkpoint; `tangelo train --resume --out RUN` goes on with any run, those of `sft` and `lora`
/// included. The same recipe gives the same weights, however often the run was interrupted.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipe; with --resume the run has its own
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    run: TeachArgs,
}

/// Where a run is kept, and how it goes on.
#[derive(Debug, clap::Args)]
pub struct TeachArgs {
    /// Folder of the run
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Change the recipe, as in `optimiser.lr=1e-3` or `stages.0.lr=1e-3` (may be repeated); with --resume, that of the run
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on with the run in the folder
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    compute: CpuArgs,
}

/// Takes steps until there are no more, or Ctrl-C is pressed.
///
/// # Errors
/// If the recipe or its files cannot be read, the loss is not a number, or a checkpoint cannot be written.
pub fn run(args: Args) -> Result<()> {
    let recipe = args.recipe.as_deref().map(|path| recipe_in(path, &args.run.set)).transpose()?;
    teach(&args.run, recipe)
}

/// The recipe in a file, with changes.
///
/// # Errors
/// If it cannot be read or is none.
pub fn recipe_in(path: &Path, changes: &[String]) -> Result<Recipe> {
    let text = model::read_text(path, CONFIG_BYTES_MAX)?;
    Recipe::parse(&text, changes).with_context(|| path.display().to_string())
}

/// The recipe with files in place of the model and the data sets that it names, which are downloaded where they are not here.
///
/// # Errors
/// If one cannot be had.
pub fn with_files(mut recipe: Recipe) -> Result<Recipe> {
    if let Some(from) = &mut recipe.model.from {
        *from = hub::resolve(&from.to_string_lossy())?;
    }
    let data = &mut recipe.data;
    for files in [&mut data.files, &mut data.eval_files] {
        *files = files.iter().map(|file| hub::resolve_data(file)).collect::<Result<Vec<_>>>()?.concat();
    }
    Ok(recipe)
}

impl TeachArgs {
    /// Whether a run goes on, which has a recipe of its own.
    pub fn is_resumed(&self) -> bool {
        self.resume
    }

    /// Changes of the recipe, after those that stand for other options.
    pub fn changes(&self, of_options: Vec<String>) -> Vec<String> {
        of_options.into_iter().chain(self.set.iter().cloned()).collect()
    }
}

/// Begins the run of a recipe, or goes on with one if there is none, until all steps are taken or Ctrl-C is pressed.
///
/// # Errors
/// As [`run`].
pub fn teach(args: &TeachArgs, recipe: Option<Recipe>) -> Result<()> {
    let cx = args.compute.cx()?;
    let mut run = match recipe {
        Some(recipe) => {
            let recipe = with_files(recipe)?;
            check_memory(needed_bytes(&recipe)?, available_bytes())?;
            Run::begin(recipe, &args.out)?
        }
        None => {
            check_memory(needed_to_resume(&args.out, &args.set)?, available_bytes())?;
            Run::resume(&args.out, &args.set)?
        }
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("cannot watch for Ctrl-C")?;
    let parameters = describe(&run, &mut std::io::stdout())?;
    let (steps, progress) = (run.recipe().schedule.steps, run.progress());
    let mut dashboard = Dashboard::new(steps, progress.step, progress.tokens, parameters);
    while !run.is_done() {
        if interrupted.load(Ordering::Relaxed) {
            run.save()?;
            dashboard.finish();
            writeln!(std::io::stdout(), "stopped after step {}; go on with --resume", run.progress().step)?;
            return Ok(());
        }
        match run.step(&cx) {
            // A run does not end because nobody looks at it any more.
            Ok(report) => drop(dashboard.show(&report)),
            Err(error) => {
                if is_full(&error) {
                    bail!("{error}: the last checkpoint is as it was; make room, and go on with --resume");
                }
                // What was learned since the last checkpoint is kept, unless it has gone astray.
                if !matches!(error, Error::NotFinite { .. }) {
                    run.save().with_context(|| error.to_string())?;
                }
                return Err(error.into());
            }
        }
    }
    dashboard.finish();
    Ok(())
}

/// Whether nothing more can be written.
fn is_full(error: &Error) -> bool {
    let Error::Io { cause, .. } = error else { return false };
    matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether a run fits into the memory that there is, if that is known.
fn check_memory(needed: u64, available: Option<u64>) -> Result<()> {
    match available {
        Some(available) if needed > available => bail!(
            "the run takes {needed} bytes of memory at least, but {available} bytes are available: set a smaller \
             `batch.micro_tokens` or `model.recompute = true`, or learn an adapter (`tangelo lora`)"
        ),
        _ => Ok(()),
    }
}

/// Says what learns, and returns how many parameters there are and how many learn.
fn describe(run: &Run, out: &mut dyn Write) -> Result<[usize; 2]> {
    let (_, params) = run.model();
    let count = |is_counted: &dyn Fn(&Param) -> bool| -> usize {
        params.iter().filter(|(_, param)| is_counted(param)).map(|(_, param)| param.data.len()).sum()
    };
    let (all, learning) = (count(&|_| true), count(&|param| param.is_trained));
    if run.recipe().adapter.is_some() {
        writeln!(out, "{:<12}{:>9}{:>9}{:>12}", "projection", "present", "adapted", "parameters")?;
        for of in coverage(params) {
            writeln!(out, "{:<12}{:>9}{:>9}{:>12}", of.name, of.present, of.adapted, of.parameters)?;
        }
        let states = params.iter().filter(|(_, param)| param.name.ends_with(".initial_state")).count();
        writeln!(out, "{:<12}{:>9}{:>9}", "first states", run.num_mixers(), states)?;
        writeln!(out, "{learning} parameters learn beside {} that do not", all - learning)?;
    }
    if run.num_repaired() > 0 {
        writeln!(out, "{} embeddings without a length got one", run.num_repaired())?;
    }
    writeln!(out, "{all} parameters, step {} of {}", run.progress().step, run.recipe().schedule.steps)?;
    Ok([all, learning])
}
