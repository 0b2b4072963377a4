//! The subcommands, one file each: `Args` says what it takes, `run` does it.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod chat;
mod convert;
mod dashboard;
mod exam;
mod generate;
mod learn_tokenizer;
mod logits;
mod ls;
mod merge;
mod perplexity;
mod persona;
mod pull;
mod rm;
mod serve;
mod show;
mod state;
pub mod synth;
mod tokenize;
mod train;
mod tune;

/// Run NVIDIA's Nemotron 3 hybrid Mamba-Transformer language models on hardware you own.
#[derive(Debug, Parser)]
#[command(name = "tangelo", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Chat(chat::Args),
    Generate(generate::Args),
    Serve(serve::Args),
    Persona(persona::Args),
    State(state::Args),
    Pull(pull::Args),
    Ls(ls::Args),
    Rm(rm::Args),
    Show(show::Args),
    Bench(bench::Args),
    Logits(logits::Args),
    Tokenize(tokenize::Args),
    Perplexity(perplexity::Args),
    Synth(synth::Args),
    Convert(convert::Args),
    Train(train::Args),
    Sft(tune::SftArgs),
    Lora(tune::LoraArgs),
    Merge(merge::Args),
    Exam(exam::Args),
    LearnTokenizer(learn_tokenizer::Args),
}

impl Cli {
    /// Runs the chosen subcommand.
    ///
    /// # Errors
    /// One sentence for the user, with the exit status 1.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Chat(args) => chat::run(args),
            Command::Generate(args) => generate::run(args),
            Command::Serve(args) => serve::run(args),
            Command::Persona(args) => persona::run(args),
            Command::State(args) => state::run(args),
            Command::Pull(args) => pull::run(args),
            Command::Ls(args) => ls::run(args),
            Command::Rm(args) => rm::run(args),
            Command::Show(args) => show::run(args),
            Command::Bench(args) => bench::run(args),
            Command::Logits(args) => logits::run(args),
            Command::Tokenize(args) => tokenize::run(args),
            Command::Perplexity(args) => perplexity::run(args),
            Command::Synth(args) => synth::run(args),
            Command::Convert(args) => convert::run(args),
            Command::Train(args) => train::run(args),
            Command::Sft(args) => tune::run_sft(args),
            Command::Lora(args) => tune::run_lora(args),
            Command::Merge(args) => merge::run(args),
            Command::Exam(args) => exam::run(args),
            Command::LearnTokenizer(args) => learn_tokenizer::run(args),
        }
    }
}
