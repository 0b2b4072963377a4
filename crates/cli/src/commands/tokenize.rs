//! `tangelo tokenize`: a text as token ids, or token ids as a text.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::json;
use tangelo_core::TokenId;
use tangelo_formats::tokenizer::{EncodeOptions, Tokenizer};

use super::logits::parse_ids;
use crate::args::usage;
use crate::model;

/// Longest text: a book is about a million bytes.
const TEXT_BYTES_MAX: u64 = 1 << 30;

/// Turn text into token ids, or back
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A GGUF file, a folder with tokenizer.json, or a hub id `org/name[:file][@revision]`
    model: String,
    /// The text [default: standard input]
    #[arg(long, value_name = "TEXT", conflicts_with = "decode")]
    text: Option<String>,
    /// Print the text of these ids, separated by commas, instead
    #[arg(long, value_name = "IDS")]
    decode: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Take text like `<think>` literally and add no tokens around the text; with --decode, leave special tokens out
    #[arg(long)]
    no_special: bool,
}

/// Prints the ids with their pieces, or the text.
///
/// # Errors
/// If there is no tokenizer, the text is not UTF-8, or an id is not in the vocabulary.
pub fn run(args: Args) -> Result<()> {
    let to_decode = args.decode.as_deref().map(parse_ids).transpose();
    let to_decode = to_decode.map_err(|problem| usage(format!("--decode: {problem}")))?;
    let tokenizer = model::open_tokenizer(&args.model)?;
    let ids = match to_decode {
        Some(ids) => ids,
        None => {
            let options = if args.no_special { EncodeOptions::PLAIN } else { EncodeOptions::default() };
            let text = match args.text {
                Some(text) => text,
                None => model::read_text(Path::new("-"), TEXT_BYTES_MAX)?,
            };
            tokenizer.encode(&text, options)?
        }
    };
    if let Some(id) = ids.iter().find(|&&id| tokenizer.token_bytes(id).is_none()) {
        bail!(
            "token id {id} is not in the vocabulary, whose largest id is {}",
            tokenizer.vocab_size().saturating_sub(1)
        );
    }
    let decoded = || tokenizer.decode(&ids, args.no_special);
    let mut out = std::io::stdout().lock();
    if args.json {
        let tokens: Vec<_> = ids.iter().map(|&id| tokenizer.token_of(id)).collect();
        let document = json!({ "ids": ids, "tokens": tokens, "text": decoded() });
        writeln!(out, "{document}")?;
    } else if args.decode.is_some() {
        writeln!(out, "{}", decoded())?;
    } else {
        ids.iter().try_for_each(|&id| writeln!(out, "{id:>7}  {}", piece(&tokenizer, id)))?;
    }
    Ok(())
}

/// The text of a token in quotes, or its bytes if they are no whole characters.
fn piece(tokenizer: &Tokenizer, id: TokenId) -> String {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => bytes.iter().map(|b| format!("\\x{b:02x}")).collect(),
    }
}
