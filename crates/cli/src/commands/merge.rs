//! `tangelo merge`: an adapter put into the weights of its model.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;

use crate::args::CpuArgs;
use crate::hub;
use crate::output::{self, OutputFolder};

/// Put an adapter into the weights of its model
///
/// The result is a model in F32 that does what both do together; `tangelo convert` makes it small again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a folder in the layout of the hub, or a hub id
    model: String,
    /// The adapter: a folder in the layout of PEFT, such as a checkpoint of `tangelo lora`
    adapter: PathBuf,
    /// Folder to make
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    compute: CpuArgs,
}

/// Writes the model.
///
/// # Errors
/// If model or adapter cannot be read, they do not belong together, or the adapter holds states, which are no weights.
pub fn run(args: Args) -> Result<()> {
    let cx = args.compute.cx()?;
    let model = hub::resolve(&args.model)?;
    output::clean_up_when_interrupted()?;
    let folder = OutputFolder::create(&args.out)?;
    let merged = tangelo_train::merge(&cx, &model, &args.adapter, folder.part())?;
    folder.finish()?;
    writeln!(std::io::stdout(), "{}: {merged} projections merged", args.out.display())?;
    Ok(())
}
