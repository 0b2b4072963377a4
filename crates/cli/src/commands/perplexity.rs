//! `tangelo perplexity`: how well a model predicts a text.
//!
//! The text's tokens t_0 … t_{n−1} are scored one after the other, all but the first: −ln p(t_i | the tokens before it
//! in its window), natural logarithms, in f64. A text longer than a window is cut into windows of `context` tokens, one
//! every `stride` tokens; each scores only the tokens that no earlier window has scored, so that every token is scored
//! once and with at least context − stride tokens before it, if there are as many.

use std::io::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use indicatif::ProgressBar;
use serde_json::json;
use tangelo_core::TokenId;
use tangelo_formats::tokenizer::EncodeOptions;
use tangelo_model::{LogitRows, Model, Segment};
use tangelo_ops::{Cx, Place};

use super::logits::{CHUNK, parse_chunk};
use crate::args::{RunArgs, usage};
use crate::{model, progress};

/// Longest text.
const TEXT_BYTES_MAX: u64 = 1 << 30;
/// Tokens of a window unless asked otherwise.
const CONTEXT: usize = 4096;

/// Measure how well a model predicts a text
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A GGUF file, a folder with config.json, or a hub id `org/name[:file][@revision]`
    model: String,
    /// The text; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Tokens of a window: the most that are seen before a token is scored
    #[arg(long, value_name = "N", default_value_t = CONTEXT, value_parser = parse_chunk)]
    context: usize,
    /// Tokens from the start of a window to the start of the next [default: half of the context]
    #[arg(long, value_name = "N", value_parser = parse_chunk)]
    stride: Option<usize>,
    /// Put the beginning-of-sequence token before the text, so that its first token is scored too
    #[arg(long)]
    bos: bool,
    /// Tokens given to the model at a time; changes speed and memory, never the result
    #[arg(long, value_name = "N", default_value_t = CHUNK, value_parser = parse_chunk)]
    chunk_tokens: usize,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Scores the text and prints the result.
///
/// # Errors
/// If the model or the text cannot be read, or the text has fewer than two tokens.
pub fn run(args: Args) -> Result<()> {
    let stride = args.stride.unwrap_or((args.context / 2).max(1));
    if stride >= args.context {
        let context = args.context;
        return Err(usage(format!(
            "--stride {stride} must be less than --context {context}, so that every token is scored"
        )));
    }
    let text = model::read_text(&args.file, TEXT_BYTES_MAX)?;
    let cx = args.run.cx()?;
    let checkpoint = model::open(&args.model)?;
    let tokenizer = model::tokenizer(&checkpoint)?;
    let mut ids = tokenizer.encode(&text, EncodeOptions::default())?;
    if args.bos {
        let bos = tokenizer.bos().or(checkpoint.config().bos_token_id);
        ids.insert(0, bos.context("the model names no beginning-of-sequence token; leave out --bos")?);
    }
    ensure!(ids.len() > 1, "the text has {} tokens, but two are needed to score one", ids.len());
    let bytes: usize = ids.iter().skip(1).filter_map(|&id| tokenizer.token_bytes(id)).map(<[u8]>::len).sum();

    let windows = windows(ids.len(), args.context, stride);
    let computed: usize = windows.iter().map(|w| w.tokens.len() - 1).sum();
    let bar = progress::bar("perplexity", computed as u64, progress::Unit::Tokens);
    let model = model::load(&cx, &checkpoint, &args.run, Some(args.context), args.chunk_tokens)?;
    let scorer = Scorer { model, cx, chunk: args.chunk_tokens, bar };
    let start = Instant::now();
    let mut nats = 0.0;
    for window in &windows {
        nats += scorer.score(&ids, window)?;
    }
    scorer.bar.finish_and_clear();
    let report = Report {
        tokens: ids.len(),
        scored: ids.len() - 1,
        nats,
        bytes,
        tokens_per_second: computed as f64 / start.elapsed().as_secs_f64(),
    };
    report.print(args.json, args.context, stride)
}

/// What came out.
struct Report {
    tokens: usize,
    scored: usize,
    /// Sum over the scored tokens.
    nats: f64,
    /// Of the scored tokens.
    bytes: usize,
    tokens_per_second: f64,
}

impl Report {
    fn print(&self, as_json: bool, context: usize, stride: usize) -> Result<()> {
        let nats_per_token = self.nats / self.scored as f64;
        let bits_per_byte = self.nats / std::f64::consts::LN_2 / self.bytes.max(1) as f64;
        let mut out = std::io::stdout().lock();
        if as_json {
            let document = json!({
                "tokens": self.tokens,
                "tokens_scored": self.scored,
                "nats": self.nats,
                "nats_per_token": nats_per_token,
                "perplexity": nats_per_token.exp(),
                "bits_per_byte": bits_per_byte,
                "context": context,
                "stride": stride,
                "tokens_per_second": self.tokens_per_second,
            });
            writeln!(out, "{document:#}")?;
            return Ok(());
        }
        writeln!(out, "tokens scored   {} of {}", self.scored, self.tokens)?;
        writeln!(out, "nats per token  {nats_per_token:.6}")?;
        writeln!(out, "perplexity      {:.4}", nats_per_token.exp())?;
        writeln!(out, "bits per byte   {bits_per_byte:.4}")?;
        writeln!(out, "windows         {context} tokens, one every {stride}")?;
        writeln!(out, "speed           {:.1} tokens/s", self.tokens_per_second)?;
        Ok(())
    }
}

/// Part of a text, by indices of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    /// What the model sees.
    tokens: Range<usize>,
    /// The first of the tokens to score; they reach to the end of the window.
    first_scored: usize,
}

/// The windows over `n` tokens; `stride` is below `context`.
fn windows(n: usize, context: usize, stride: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    let (mut start, mut first_scored) = (0, 1);
    while first_scored < n {
        let end = n.min(start + context);
        windows.push(Window { tokens: start..end, first_scored });
        (start, first_scored) = (start + stride, end);
    }
    windows
}

/// A model at work.
struct Scorer {
    model: Model,
    cx: Cx,
    chunk: usize,
    bar: ProgressBar,
}

impl Scorer {
    /// The sum of −ln p over the scored tokens of a window.
    fn score(&self, ids: &[TokenId], window: &Window) -> Result<f64> {
        let mut state = self.model.new_state();
        // The logits after token i belong to token i + 1; those after the last token belong to none of this window.
        let (silent, scored) =
            (window.tokens.start..window.first_scored - 1, window.first_scored - 1..window.tokens.end - 1);
        let mut nats = 0.0;
        for (range, logits) in [(silent, LogitRows::None), (scored, LogitRows::All)] {
            for start in range.clone().step_by(self.chunk) {
                let end = range.end.min(start + self.chunk);
                let segment = Segment { tokens: &ids[start..end], state: &mut state, logits };
                let rows = self.cx.mat_to(Place::Host, self.model.forward(&self.cx, &mut [segment])?);
                let targets = ids.get(start + 1..end + 1).unwrap_or_default();
                nats += (0..rows.rows()).zip(targets).map(|(i, &id)| surprise(rows.row(i), id)).sum::<f64>();
                self.bar.inc((end - start) as u64);
            }
        }
        Ok(nats)
    }
}

/// −ln softmax(logits) at the id, in f64.
fn surprise(logits: &[f32], id: TokenId) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
    let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
    sum.ln() - f64::from(logits[id as usize] - max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_but_the_first_is_scored_once_and_with_enough_before_it() {
        for (n, context, stride) in
            [(2, 10, 5), (100, 200, 100), (100, 10, 5), (101, 10, 9), (57, 8, 1), (3, 2, 1)]
        {
            let windows = windows(n, context, stride);
            let mut next = 1;
            for w in &windows {
                assert_eq!(w.first_scored, next);
                assert!(w.tokens.len() <= context && w.tokens.start < w.first_scored);
                assert!(w.first_scored - w.tokens.start >= (context - stride).min(w.first_scored));
                next = w.tokens.end;
            }
            assert_eq!(next, n, "{n} {context} {stride}");
        }
        assert_eq!(windows(1, 10, 5), []);
    }

    #[test]
    fn surprise_is_the_negative_log_softmax() {
        let logits = [1000.0, 1000.0, 1000.0 - 2f32.ln()];
        assert!((surprise(&logits, 0) - 2.5f64.ln()).abs() < 1e-4);
        assert!((surprise(&logits, 2) - 5f64.ln()).abs() < 1e-4);
        assert_eq!(surprise(&[0.0], 0), 0.0);
    }
}
