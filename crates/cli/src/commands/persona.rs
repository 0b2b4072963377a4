//! `tangelo persona`: the states that personas begin with.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;
use indicatif::HumanBytes;
use tangelo_chat::{Renderer, beginning};
use tangelo_engine::{Sequence, state_file};
use tangelo_formats::template::ChatTemplate;
use tangelo_serve::template_identity;

use crate::persona;
use crate::session::{ModelArgs, Session};

/// Prepare personas
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read what a persona begins with (its system message, tools and greeting) and keep the state after it beside its
    /// file, so that nobody waits for it again
    Build(BuildArgs),
}

#[derive(Debug, clap::Args)]
struct BuildArgs {
    /// The persona, a TOML file; the state is written beside it, with the ending .state
    persona: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

/// Does it.
///
/// # Errors
/// If the persona or the model cannot be read, or the state cannot be written.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Build(args) => build(args),
    }
}

fn build(args: BuildArgs) -> Result<()> {
    // First of all, since it fails at once if it does.
    let persona = persona::read(&args.persona)?;
    let session = Session::open(&args.model)?;
    let template = ChatTemplate::require(session.own_template())?;
    let identity = template_identity(template.source());
    let tokenizer = session.require_tokenizer()?;
    let conversation = persona.conversation();
    let tokens =
        beginning(&Renderer::new(template), tokenizer, &conversation, &persona.render_options())?.ids;
    if tokens.is_empty() {
        bail!("conversations with {} have no beginning in common: give it a `system` message", persona.name);
    }
    session.check_prompt(tokens.len())?;
    let mut sequence = Sequence::new(&session.model);
    session.prefill(&mut sequence, &tokens, &|| false)?;
    let path = persona::state_path(&args.persona);
    state_file::save(&sequence, &session.model, Some(&identity), &path)?;
    let bytes = std::fs::metadata(&path)?.len();
    println!("{}: {} tokens, {}", path.display(), tokens.len(), HumanBytes(bytes));
    Ok(())
}
