//! `tangelo logits`: the raw output of a model for given token ids, so that an outsider can check every number.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Result, bail};
use tangelo_core::{DType, TokenId};
use tangelo_formats::safetensors::{TensorPlan, Writer};
use tangelo_model::{LogitRows, Segment};
use tangelo_ops::{Mat, Place};

use crate::args::{RunArgs, usage};
use crate::output::{self, OutputFile};
use crate::{model, progress};

/// Most bytes of a list of ids: ten million tokens with room to spare.
const IDS_BYTES_MAX: u64 = 100 << 20;
/// Tokens computed at a time unless asked otherwise. Their logits are in memory together: 64 MiB at a
/// vocabulary of 131072.
pub const CHUNK: usize = 128;

/// Write a model's logits for given token ids to a safetensors file
///
/// The file holds one F32 tensor `logits` of shape (positions, vocabulary). Its contents depend on the ids and
/// the model alone, bit for bit; --chunk, --threads and --simd are there to let you check that.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A GGUF file, a folder with config.json, or a hub id `org/name[:file][@revision]`
    #[arg(long)]
    model: String,
    /// Token ids, separated by commas
    #[arg(long, value_name = "IDS", required_unless_present = "ids_file", conflicts_with = "ids_file")]
    ids: Option<String>,
    /// A file of token ids, separated by commas or white space; `-` is standard input
    #[arg(long, value_name = "FILE")]
    ids_file: Option<PathBuf>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Tokens given to the model at a time
    #[arg(long, value_name = "N", default_value_t = CHUNK, value_parser = parse_chunk)]
    chunk: usize,
    #[command(flatten)]
    run: RunArgs,
}

/// A positive number of tokens.
pub fn parse_chunk(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one token is needed".into()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("expected a number of tokens: {error}")),
    }
}

/// Computes and writes.
///
/// # Errors
/// If the model cannot be loaded, an id is outside its vocabulary, or the file cannot be written.
pub fn run(args: Args) -> Result<()> {
    let ids = match (&args.ids, &args.ids_file) {
        (Some(text), _) => parse_ids(text).map_err(|problem| usage(format!("--ids: {problem}")))?,
        (None, Some(path)) => parse_ids(&model::read_text(path, IDS_BYTES_MAX)?)
            .map_err(|p| anyhow::anyhow!("{}: {p}", path.display()))?,
        (None, None) => bail!("no token ids were given"),
    };
    let cx = args.run.cx()?;
    let model = model::load(&cx, &model::open(&args.model)?, &args.run, Some(ids.len()), args.chunk)?;
    let vocab_size = model.config().vocab_size;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
        bail!("token id {id} is outside the model's vocabulary: its ids are 0 to {}", vocab_size - 1);
    }
    output::clean_up_when_interrupted()?;
    let plan = TensorPlan { name: "logits".into(), dtype: DType::F32, shape: vec![ids.len(), vocab_size] };
    let mut writer = Writer::new(OutputFile::create(&args.out)?, &BTreeMap::new(), vec![plan])?;
    let bar = progress::bar("logits", ids.len() as u64, progress::Unit::Tokens);
    let written = writer.tensor("logits", |out| {
        let mut state = model.new_state();
        for tokens in ids.chunks(args.chunk) {
            let segment = Segment { tokens, state: &mut state, logits: LogitRows::All };
            let logits = model.forward(&cx, &mut [segment]).map_err(io::Error::other)?;
            write_rows(&cx.mat_to(Place::Host, logits), out)?;
            bar.inc(tokens.len() as u64);
        }
        Ok(())
    });
    bar.finish_and_clear();
    let file = written.and_then(|()| writer.finish());
    file.map_err(|e| output::explain_write(e, &args.out))?.finish()
}

/// All elements, row after row, little endian.
fn write_rows(rows: &Mat, out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(rows.cols() * size_of::<f32>());
    for row in 0..rows.rows() {
        bytes.clear();
        bytes.extend(rows.row(row).iter().flat_map(|x| x.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Numbers separated by commas and white space, in brackets or not.
pub fn parse_ids(text: &str) -> Result<Vec<TokenId>, String> {
    let inner = text.trim();
    let inner = inner.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(inner);
    let words = inner.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    let ids: Vec<TokenId> = words
        .map(|word| word.parse().map_err(|_| format!("`{}` is not a token id", shortened(word))))
        .collect::<Result<_, _>>()?;
    if ids.is_empty() { Err("there are no token ids; give at least one".into()) } else { Ok(ids) }
}

/// The start of a word that may be the whole of a wrong file.
fn shortened(word: &str) -> String {
    const SHOWN: usize = 40;
    let short: String = word.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if word.chars().nth(SHOWN).is_some() { short + "…" } else { short }
}

#[cfg(test)]
mod tests {
    use super::parse_ids;

    #[test]
    fn ids_are_written_in_several_ways() {
        for text in ["1,2,3", " 1 2\n3\n", "[1, 2, 3]", "1,2,,3,"] {
            assert_eq!(parse_ids(text), Ok(vec![1, 2, 3]), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_an_id_is_named() {
        let refusals = [
            ("", "at least one"),
            ("[]", "at least one"),
            ("1,-2", "`-2` is not"),
            ("1;2", "`1;2` is not"),
            ("4294967296", "`4294967296` is not"),
            ("[1", "`[1` is not"),
        ];
        for (text, expected) in refusals {
            let problem = parse_ids(text).expect_err(text);
            assert!(problem.contains(expected), "{text:?}: {problem}");
        }
    }
}
