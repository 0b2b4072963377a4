//! Arguments that several subcommands share, and what to do about wrong ones.

use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use tangelo_engine::CHUNK_TOKENS;
use tangelo_ops::attention::KvType;
use tangelo_ops::{Cx, Simd, device};

use crate::device::DeviceArgs;

/// Most threads that can be asked for.
const THREADS_MAX: u64 = 4096;

/// How the processor computes, on which no result depends.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct CpuArgs {
    /// Threads to compute with [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX))]
    threads: Option<u64>,
    /// Instruction set [default: TANGELO_SIMD, else the best this machine has]
    #[arg(long, value_name = "NAME", value_parser = simd_parser())]
    simd: Option<Simd>,
}

impl CpuArgs {
    /// The context to compute in.
    ///
    /// # Errors
    /// If this machine lacks the instruction set, or the environment names an unknown one.
    pub fn cx(self) -> Result<Cx> {
        let simd = match self.simd {
            Some(simd) => simd,
            None => device::simd_from_env()?,
        };
        Ok(Cx::new(self.threads.map_or_else(available_threads, |n| n as usize), simd)?)
    }
}

/// Where the arithmetic runs, on which no result depends, and how keys and values are kept, on which they do.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    cpu: CpuArgs,
    /// Type of the cached keys and values; f16 takes half the memory and rounds
    #[arg(long, value_name = "TYPE", default_value_t, value_parser = kv_parser())]
    pub kv: KvType,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl RunArgs {
    /// The context to compute in.
    ///
    /// # Errors
    /// If this machine lacks the instruction set or the device, or the environment names an unknown one.
    pub fn cx(self) -> Result<Cx> {
        let cx = self.cpu.cx()?;
        Ok(match self.device.open()? {
            Some(gpu) => cx.with_gpu(gpu),
            None => cx,
        })
    }
}

/// Prompt tokens per forward on a GPU where nobody says: it wants a few tiles of tokens for each of its multiprocessors;
/// more tokens only take more memory.
pub const CHUNK_TOKENS_GPU: usize = 1024;

/// Prompt tokens per forward where nobody says: enough to fill the device.
pub fn chunk_tokens(cx: &Cx) -> usize {
    if cx.gpu().is_some() { CHUNK_TOKENS_GPU } else { CHUNK_TOKENS }
}

/// One thread per core that this process may use.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Takes the name of any level, of this machine or another: what the machine lacks is said by [`Cx::new`].
fn simd_parser() -> impl TypedValueParser<Value = Simd> {
    PossibleValuesParser::new(Simd::ALL.map(Simd::name))
        .map(|name| Simd::from_name(&name).expect("one of the possible values"))
}

/// Takes the name of any type of keys and values.
pub fn kv_parser() -> impl TypedValueParser<Value = KvType> {
    PossibleValuesParser::new(KvType::ALL.map(KvType::name))
        .map(|name| KvType::from_name(&name).expect("one of the possible values"))
}

/// An error about the command line that the parser could not see, such as two options that exclude each other
/// for one model only. It ends the program with the status of wrong usage.
pub fn usage(problem: impl std::fmt::Display) -> anyhow::Error {
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{problem}\n")).into()
}
