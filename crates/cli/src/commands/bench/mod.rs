//! `tangelo bench`: how fast a model runs, how much memory that takes, and how near it is to what the machine can do.
//!
//! Speeds are medians with their ends, and fractions of limits that are measured in the same run
//! ([`tangelo_ops::probe`]): prefill of the arithmetic, decode of the bandwidth of memory; on a GPU of that alone. `--json`
//! and `--out` give the record that is kept in `bench/` of the repository.

mod compare;
mod json;
mod machine;
mod measure;
mod report;
mod statistics;
mod text;
mod work;

use std::io::Write as _;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tangelo_core::limits::CONTEXT_TOKENS_MAX;
use tangelo_engine::CHUNK_TOKENS;
use tangelo_ops::{Cx, Place};

use super::logits::parse_chunk;
use super::show::facts;
use crate::args::{RunArgs, chunk_tokens, usage};
use crate::output::{self, OutputFile};
use crate::{hub, model, pocket, progress};
use compare::{Ours, Peer};
use measure::{Bench, Plan};
use report::{DeviceFacts, Limits, ModelFacts, Report};
use work::Work;

/// Most sequences that decode together.
const BATCH_MAX: usize = 4096;
/// Most repetitions.
const REPETITIONS_MAX: usize = 1000;

/// Measure speed and memory of a model, beside the limits of the machine or its GPU
///
/// Token ids are random. Speeds are medians over the repetitions. Nothing else should run on the machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A GGUF file, a folder with config.json, or a hub id `org/name[:file][@revision]`
    model: String,
    /// Lengths of prompts to read; 0 for none
    #[arg(long, value_name = "N,...", default_value = "512", value_delimiter = ',', value_parser = parse_tokens)]
    prompt: Vec<usize>,
    /// Tokens to generate; 0 for none
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = parse_tokens)]
    generate: usize,
    /// Tokens of context before the first generated one
    #[arg(long, value_name = "N,...", default_value = "0", value_delimiter = ',', value_parser = parse_tokens)]
    depth: Vec<usize>,
    /// Sequences to generate for at once
    #[arg(long, value_name = "N,...", default_value = "1", value_delimiter = ',', value_parser = parse_batch)]
    batch: Vec<usize>,
    /// How often to measure each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = parse_repetitions)]
    repetitions: usize,
    /// Prompt tokens given to the model at a time [default: 128, 1024 on a GPU]
    #[arg(long, value_name = "N", value_parser = parse_chunk)]
    chunk: Option<usize>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Write the JSON document to a file too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Compare with the output of llama.cpp's `llama-bench -o jsonl`
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

/// Measures and prints.
///
/// # Errors
/// If the model cannot be loaded, does not fit, or a file cannot be read or written; before the work begins, if that
/// can be known.
pub fn run(args: Args) -> Result<()> {
    let plan = plan(&args)?;
    let peer = args.compare.as_deref().map(Peer::read).transpose()?;
    let out = match &args.out {
        Some(path) => {
            output::clean_up_when_interrupted()?;
            Some(OutputFile::create(path)?)
        }
        None => None,
    };
    let cx = args.run.cx()?;
    let plan = Plan { chunk: args.chunk.unwrap_or_else(|| chunk_tokens(&cx)), ..plan };
    let report = measure(&args.model, plan, &args.run, &cx, peer.as_ref())?;
    let document = json::document(&report);
    if let Some(file) = out {
        write_record(file, &document)?;
    }
    let mut stdout = std::io::stdout().lock();
    if args.json {
        writeln!(stdout, "{document:#}")?;
    } else {
        write!(stdout, "{}", text::page(&report))?;
    }
    Ok(())
}

/// What the arguments ask for, lengths without zeros and repetition.
fn plan(args: &Args) -> Result<Plan> {
    let mut prompts: Vec<usize> = Vec::new();
    for &tokens in args.prompt.iter().filter(|&&tokens| tokens > 0) {
        if !prompts.contains(&tokens) {
            prompts.push(tokens);
        }
    }
    if prompts.is_empty() && args.generate == 0 {
        return Err(usage("--prompt 0 and --generate 0 leave nothing to measure"));
    }
    let ascending = |numbers: &[usize]| {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    Ok(Plan {
        prompts,
        generate: args.generate,
        depths: ascending(&args.depth),
        batches: ascending(&args.batch),
        repetitions: args.repetitions,
        chunk: args.chunk.unwrap_or(CHUNK_TOKENS),
    })
}

fn measure(name: &str, plan: Plan, run: &RunArgs, cx: &Cx, peer: Option<&Peer>) -> Result<Report> {
    // A download is no part of loading.
    if !pocket::is_meant_by(name) {
        hub::resolve(name)?;
    }
    let start = Instant::now();
    let checkpoint = model::open(name)?;
    let model = model::load(cx, &checkpoint, run, Some(plan.longest()), plan.chunk)?;
    let load_s = start.elapsed().as_secs_f64();
    plan.check(&model, model::bytes_for_state(cx, &model))?;

    let bar = progress::bar("measuring", plan.num_tokens(), progress::Unit::Tokens);
    let measured = Bench { model: &model, cx, plan: &plan, bar: bar.clone() }.run()?;
    bar.finish_and_clear();
    // Before the limits are measured, which takes memory that no model needs.
    let peak_rss_bytes = machine::peak_rss_bytes();
    let placement = model.placement();
    let device = cx
        .gpu()
        .filter(|_| placement.head() == Place::Device)
        .map(|gpu| DeviceFacts { properties: gpu.properties().clone(), peak_bytes: gpu.reserved_bytes().1 });
    let limits = Limits::measure(cx, placement)?;

    let parameters = model.config().num_parameters();
    let threads = device.is_none().then_some(cx.threads());
    let ours = Ours { measured: &measured, generate: plan.generate, threads, parameters };
    let comparison = peer.map(|peer| peer.compare(ours));
    Ok(Report {
        model: ModelFacts {
            name: name.to_string(),
            parameters,
            file_bytes: facts::file_bytes(&checkpoint)?,
            types: facts::types(&checkpoint),
        },
        command: command(std::env::args().skip(1)),
        unix_time_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        cpu: machine::cpu(),
        measured,
        load_s,
        peak_rss_bytes,
        work: Work::of(&checkpoint, run.kv)?,
        threads: cx.threads(),
        simd: cx.simd(),
        device,
        limits,
        comparison,
        plan,
    })
}

/// The command line, arguments with spaces in quotes.
fn command(args: impl Iterator<Item = String>) -> String {
    let quoted = |arg: String| if arg.contains(char::is_whitespace) { format!("'{arg}'") } else { arg };
    std::iter::once("tangelo".to_string()).chain(args.map(quoted)).collect::<Vec<_>>().join(" ")
}

fn write_record(mut file: OutputFile, document: &Value) -> Result<()> {
    writeln!(file, "{document:#}").context("cannot write the record")?;
    file.finish()
}

fn parse_tokens(text: &str) -> Result<usize, String> {
    parse_within(text, 0..=CONTEXT_TOKENS_MAX)
}

fn parse_batch(text: &str) -> Result<usize, String> {
    parse_within(text, 1..=BATCH_MAX)
}

fn parse_repetitions(text: &str) -> Result<usize, String> {
    parse_within(text, 1..=REPETITIONS_MAX)
}

fn parse_within(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn plan_of(line: &str) -> Result<Plan> {
        let words = ["bench", "x"].into_iter().chain(line.split_whitespace());
        plan(&Program::try_parse_from(words)?.args)
    }

    #[test]
    fn lists_are_sorted_where_order_does_not_matter() {
        let plan = plan_of("--prompt 2048,0,512,2048 --depth 4096,0,4096 --batch 8,1 --generate 32")
            .expect("a plan");
        // The first prompt is the one whose time to first token is reported.
        assert_eq!((plan.prompts, plan.depths, plan.batches), (vec![2048, 512], vec![0, 4096], vec![1, 8]));
        let plain = plan_of("").expect("defaults");
        assert_eq!((plain.prompts, plain.depths, plain.batches), (vec![512], vec![0], vec![1]));
        assert_eq!((plain.generate, plain.repetitions, plain.chunk), (64, 3, CHUNK_TOKENS));
    }

    #[test]
    fn wrong_values_are_wrong_usage() {
        for (line, expected) in [
            ("--batch 0", "from 1 to 4096"),
            ("--batch 1,x", "from 1 to 4096"),
            ("--depth -5", "unexpected argument"),
            ("--prompt 1e9", "from 0 to"),
            ("--prompt 99999999999999999999", "from 0 to"),
            ("--repetitions 0", "from 1 to 1000"),
            ("--chunk 0", "at least one token"),
            ("--prompt 0 --generate 0", "nothing to measure"),
        ] {
            let error = plan_of(line).expect_err(line);
            assert!(error.is::<clap::Error>() && error.to_string().contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn the_command_can_be_pasted() {
        let args = ["bench", "my model", "--json"].map(String::from);
        assert_eq!(command(args.into_iter()), "tangelo bench 'my model' --json");
    }
}
