//! Arguments of the subcommands that answer.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tangelo_chat::Tool;
use tangelo_core::limits::CONFIG_BYTES_MAX;
use tangelo_core::{SamplingOverrides, TokenId};
use tangelo_engine::SamplingParams;

use crate::args::{RunArgs, usage};
use crate::{model, pocket};

/// What to run, and within which bounds.
#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// A GGUF file, a folder with config.json, a hub id `org/name[:file][@revision]`, or the small model that ships with
    /// this program
    #[arg(default_value = pocket::NAME)]
    pub model: String,
    /// An adapter to put beside the model's weights: a folder in the layout of PEFT, such as a checkpoint of
    /// `tangelo lora`
    #[arg(long, value_name = "FOLDER")]
    pub adapter: Option<PathBuf>,
    /// Most tokens of prompt and answer together [default: what the model is made for and half of the memory holds]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub context: Option<usize>,
    /// Prompt tokens given to the model at a time; changes speed and memory, never the answer [default: 128, 1024 on a GPU]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub chunk: Option<usize>,
    /// Where to compute.
    #[command(flatten)]
    pub run: RunArgs,
}

/// How to choose tokens. What is not given is taken from the model's generation_config.json.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Always take the most probable token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    greedy: bool,
    /// Divide the logits by this; 0 always takes the most probable token
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Keep the K most probable tokens
    #[arg(long, value_name = "K", value_parser = parse_count)]
    top_k: Option<usize>,
    /// Keep the fewest of the most probable tokens whose probabilities reach P
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep the tokens at least P times as probable as the most probable one
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Divide (if negative, multiply) the logits of tokens of prompt and answer
    #[arg(long, value_name = "R")]
    repetition_penalty: Option<f32>,
    /// Subtract this from the logits of tokens of the answer
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Subtract this from the logits of tokens of the answer, once for each time they occur
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Let the penalties see only the last N tokens
    #[arg(long, value_name = "N")]
    penalty_window: Option<usize>,
    /// Add VALUE to the logit of a token; -inf forbids it (may be repeated)
    #[arg(long, value_name = "ID=VALUE", value_parser = parse_bias)]
    logit_bias: Vec<(TokenId, f32)>,
    /// Seed of the random numbers; equal seeds give equal answers [default: a new one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End the answer after N tokens, reasoning included
    #[arg(long, short = 'n', value_name = "N")]
    max_tokens: Option<usize>,
    /// End the answer before TEXT, also in reasoning (may be repeated)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

impl SamplingArgs {
    /// What the command line says.
    pub fn overrides(&self) -> SamplingOverrides {
        SamplingOverrides {
            temperature: if self.greedy { Some(0.0) } else { self.temperature },
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            penalty_window: self.penalty_window,
            logit_bias: Some(self.logit_bias.iter().copied().collect()),
            seed: self.seed,
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
        }
    }
}

/// The parameters that are wished for, checked against their ranges and the vocabulary.
///
/// # Errors
/// One about wrong usage, if one is outside.
pub fn sampling_params(said: &SamplingOverrides, vocab_size: usize) -> Result<SamplingParams> {
    let params = SamplingParams::new(said);
    params.check(vocab_size).map_err(usage)?;
    Ok(params)
}

/// How a conversation is rendered and shown.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Conversation")]
pub struct ChatArgs {
    /// Instructions that hold for the whole conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// A JSON list of tools that the model may call, as in OpenAI's API
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,
    /// Let the model think before it answers
    #[arg(long, conflicts_with = "no_think")]
    think: bool,
    /// Let the model answer at once
    #[arg(long)]
    no_think: bool,
    /// Close the reasoning at the next end of a line after N tokens, and in any case 500 tokens later
    #[arg(long, value_name = "N")]
    pub thinking_budget: Option<usize>,
    /// Do not show the reasoning
    #[arg(long)]
    pub hide_reasoning: bool,
    /// A Jinja chat template to use instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
}

impl ChatArgs {
    /// Whether to think; `None` leaves it to the template.
    pub fn thinking(&self) -> Option<bool> {
        match (self.think, self.no_think) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    /// The tools of the file, if one was given.
    ///
    /// # Errors
    /// As [`read_tools`].
    pub fn read_tools(&self) -> Result<Vec<Tool>> {
        self.tools.as_deref().map_or(Ok(Vec::new()), read_tools)
    }
}

/// Reads a JSON list of tool definitions.
///
/// # Errors
/// If the file cannot be read or is something else.
pub fn read_tools(path: &Path) -> Result<Vec<Tool>> {
    let bytes = model::read(path, CONFIG_BYTES_MAX)?;
    let name = || path.display().to_string();
    let value = serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", name()))?;
    Tool::list(value).with_context(name)
}

/// A positive number.
pub fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".into()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("expected a number: {error}")),
    }
}

fn parse_bias(text: &str) -> Result<(TokenId, f32), String> {
    let parsed = text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    parsed.ok_or_else(|| "expected a token id and a number, such as 11=-2.5".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use tangelo_formats::GenerationConfig;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        sampling: SamplingArgs,
    }

    fn params(line: &str, suggested: &GenerationConfig) -> Result<SamplingParams> {
        let words = ["x"].into_iter().chain(line.split_whitespace());
        let said = Program::try_parse_from(words)?.sampling.overrides();
        sampling_params(&said.or(suggested.overrides()), 512)
    }

    #[test]
    fn the_command_line_wins_over_the_model_and_the_model_over_the_defaults() {
        let suggested = GenerationConfig {
            do_sample: Some(true),
            temperature: Some(0.6),
            top_p: Some(0.95),
            top_k: Some(0),
            ..GenerationConfig::default()
        };
        let own = params("--seed 7", &suggested).expect("defaults are good");
        assert_eq!((own.temperature, own.top_p, own.top_k, own.min_p, own.seed), (0.6, 0.95, None, 0.0, 7));
        let given = params("--temperature 0.2 --top-k 3 --min-p 0.1 --presence-penalty -1", &suggested);
        let given = given.expect("they are in range");
        assert_eq!((given.temperature, given.top_k, given.min_p), (0.2, Some(3), 0.1));
        assert_eq!((given.top_p, given.presence_penalty), (0.95, -1.0));
        assert_eq!(params("--greedy", &suggested).expect("greedy").temperature, 0.0);
        let greedy = GenerationConfig { do_sample: Some(false), ..suggested };
        assert_eq!(params("", &greedy).expect("greedy").temperature, 0.0);
        assert_eq!(params("--temperature 1", &greedy).expect("sampled").temperature, 1.0);
        let biased = params("--logit-bias 5=-inf --logit-bias 6=1.5", &greedy).expect("two tokens");
        assert_eq!(biased.logit_bias, [(5, f32::NEG_INFINITY), (6, 1.5)].into());
    }

    #[test]
    fn wrong_values_are_wrong_usage() {
        let silent = GenerationConfig::default();
        for (line, expected) in [
            ("--temperature -1", "unexpected argument"),
            ("--temperature nan", "temperature must be"),
            ("--top-p 0", "top_p must be above 0"),
            ("--top-k 0", "at least 1"),
            ("--greedy --top-k 4", "cannot be used with"),
            ("--logit-bias 5", "such as 11=-2.5"),
            ("--logit-bias 512=1", "of the vocabulary"),
        ] {
            let error = params(line, &silent).expect_err(line);
            assert!(error.is::<clap::Error>() && error.to_string().contains(expected), "{line}: {error}");
        }
    }
}
