//! `tangelo learn-tokenizer`: a tokenizer from what a recipe teaches.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tangelo_chat::Renderer;
use tangelo_core::limits::{CONFIG_BYTES_MAX, TEMPLATE_BYTES_MAX};
use tangelo_formats::template::ChatTemplate;
use tangelo_train::examples::Source;
use tangelo_train::{Recipe, tokenizer};

use super::train::with_files;
use crate::output::{self, OutputFolder};
use crate::{model, session::parse_count};

/// Learn a tokenizer from what a recipe teaches
///
/// Pairs of bytes, with the special tokens of Nemotron 3 under their numbers and every digit a token. The folder is one that
/// a recipe's `model.tokenizer` can name.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recipe whose data it is learned from
    recipe: PathBuf,
    /// The chat template, a Jinja file
    #[arg(long, value_name = "FILE")]
    template: PathBuf,
    /// Number of tokens, the 32 special ones and the 256 bytes included
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = parse_count)]
    size: usize,
    /// Number of examples to learn from
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = parse_count)]
    examples: usize,
    /// Folder to write
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// Writes the folder.
///
/// # Errors
/// If a file cannot be read or written, or the template cannot write an example.
pub fn run(args: Args) -> Result<()> {
    let text = model::read_text(&args.recipe, CONFIG_BYTES_MAX)?;
    let recipe = Recipe::parse(&text, &[]).with_context(|| args.recipe.display().to_string())?;
    let template = model::read_text(&args.template, TEMPLATE_BYTES_MAX as u64)?;
    let renderer = Renderer::new(ChatTemplate::new(template.clone())?);
    let source = Source::learned(&with_files(recipe)?.data)?;
    let count = source.num_rows().map_or(args.examples as u64, |rows| rows.min(args.examples as u64));
    let texts: Vec<String> =
        (0..count).map(|index| Ok(source.text(&renderer, index)?)).collect::<Result<_>>()?;
    let [tokenizer, config] = tokenizer::learn(&texts, args.size)?;
    let folder = OutputFolder::create(&args.out)?;
    let files =
        [("tokenizer.json", tokenizer), ("tokenizer_config.json", config), ("chat_template.jinja", template)];
    for (name, contents) in files {
        output::write(&folder.part().join(name), contents.as_bytes())?;
    }
    folder.finish()
}
