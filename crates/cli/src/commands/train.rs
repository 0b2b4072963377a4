//! `tangelo train`: teaching a model by a recipe.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use tangelo_core::limits::CONFIG_BYTES_MAX;
use tangelo_train::{Recipe, Report, Run};

use crate::args::RunArgs;
use crate::model;

/// Teach a model by a recipe
///
/// A recipe is a TOML file. The folder of the run holds the recipe with all its defaults, a log with a line per step, and
/// checkpoints, which are models that every other command opens. The same recipe gives the same weights, however often the
/// run was interrupted.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipe; with --resume the run has its own
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    recipe: Option<PathBuf>,
    /// Folder of the run
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Change the recipe, as in `optimiser.lr=1e-3` (may be repeated)
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "resume")]
    set: Vec<String>,
    /// Go on with the run in the folder
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    compute: RunArgs,
}

/// Takes steps until there are no more, or Ctrl-C is pressed.
///
/// # Errors
/// If the recipe or its files cannot be read, the loss is not a number, or a checkpoint cannot be written.
pub fn run(args: Args) -> Result<()> {
    let cx = args.compute.cx()?;
    let mut run = match &args.recipe {
        Some(path) => {
            let text = model::read_text(path, CONFIG_BYTES_MAX)?;
            let recipe = Recipe::parse(&text, &args.set).with_context(|| path.display().to_string())?;
            Run::begin(recipe, &args.out)?
        }
        None => Run::resume(&args.out)?,
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("cannot watch for Ctrl-C")?;
    let steps = run.recipe().schedule.steps;
    let parameters: usize = run.model().1.iter().map(|(_, param)| param.data.len()).sum();
    println!("{parameters} parameters, step {} of {steps}", run.progress().step);
    while !run.is_done() {
        if interrupted.load(Ordering::Relaxed) {
            run.save()?;
            println!("stopped after step {}; go on with --resume", run.progress().step);
            return Ok(());
        }
        let report = run.step(&cx)?;
        println!("{}", line(&report, steps, parameters));
    }
    Ok(())
}

/// One step in one line. Six floating-point operations per parameter and token, as is the custom.
fn line(report: &Report, steps: u64, parameters: usize) -> String {
    let Report { step, tokens, loss, lr, gradient, time, eval_loss } = report;
    let rate = *tokens as f64 / time.as_secs_f64();
    let left = steps.saturating_sub(*step) as f64 * time.as_secs_f64() / 60.0;
    let flops = 6.0 * parameters as f64 * rate / 1e9;
    let eval = eval_loss.map_or_else(String::new, |loss| format!(", answers not learned {loss:.4}"));
    format!(
        "step {step}/{steps}: loss {loss:.4}, gradient {gradient:.3}, rate {lr:.2e}, {rate:.0} tokens/s, {flops:.0} GFLOP/s, \
         {left:.1} min left{eval}"
    )
}
