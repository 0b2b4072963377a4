//! `tangelo pull`: downloads a model into the hub's cache and prints where it is.

use std::io::Write as _;

use anyhow::Result;

use crate::hub::{self, Cache, HubId};

/// Download a model from the hub, or what is missing of it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which one: `org/name[:file][@revision]`
    model: HubId,
}

/// Downloads; the path goes to standard output, everything else to standard error.
///
/// # Errors
/// If the model cannot be had.
pub fn run(args: Args) -> Result<()> {
    let path = hub::pull(&Cache::from_env()?, &args.model)?;
    writeln!(std::io::stdout(), "{}", path.display())?;
    Ok(())
}
