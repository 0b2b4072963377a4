//! `tangelo rm`: takes a model or data set out of the hub's cache.

use std::io::Write as _;

use anyhow::{Result, ensure};
use indicatif::HumanBytes;

use crate::hub::{self, Cache, HubId};

/// Remove a model or data set, one revision or one file of it from the hub's cache
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which one: `org/name[:file][@revision]`, or a data set, `datasets/org/name[:file][@revision]`
    #[arg(value_parser = HubId::of_any)]
    model: HubId,
    /// Remove it without asking
    #[arg(long, short)]
    yes: bool,
}

/// Asks and removes.
///
/// # Errors
/// If the model is not in the cache or cannot be removed, or nobody answers the question.
pub fn run(args: Args) -> Result<()> {
    let cache = Cache::from_env()?;
    if !args.yes && cache.folder(&args.model.repo).exists() {
        eprint!("remove {} from {}? [y/N] ", args.model, cache.root().display());
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer)?;
        if read == 0 {
            eprintln!(); // The question's line is still open.
        }
        ensure!(read > 0, "nobody answered, so nothing was removed; pass --yes to remove without asking");
        if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            eprintln!("nothing was removed");
            return Ok(());
        }
    }
    let bytes = hub::remove(&cache, &args.model)?;
    writeln!(std::io::stdout(), "removed {}, {} freed", args.model, HumanBytes(bytes))?;
    Ok(())
}
