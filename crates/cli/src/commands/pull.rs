//! `tangelo pull`: downloads a model or data set into the hub's cache and prints where it is.

use std::io::Write as _;

use anyhow::Result;

use crate::hub::{self, Cache, HubId};

/// Download a model or data set from the hub, or what is missing of it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which one: `org/name[:file][@revision]`, or a data set, `datasets/org/name[:file][@revision]`
    #[arg(value_parser = HubId::of_any)]
    model: HubId,
}

/// Downloads; the paths go to standard output, everything else to standard error.
///
/// # Errors
/// If the model cannot be had.
pub fn run(args: Args) -> Result<()> {
    let cache = Cache::from_env()?;
    let paths = match args.model.is_dataset() {
        true => hub::pull_data(&cache, &args.model)?,
        false => vec![hub::pull(&cache, &args.model)?],
    };
    paths.iter().try_for_each(|path| writeln!(std::io::stdout(), "{}", path.display()))?;
    Ok(())
}
