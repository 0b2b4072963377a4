//! The facts, gathered once for both forms of output.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tangelo_chat::Dialect;
use tangelo_core::TokenId;
use tangelo_formats::config::{BlockKind, Config};
use tangelo_formats::tokenizer::Tokenizer;
use tangelo_formats::{Checkpoint, TokenizerSource};
use tangelo_model::State;
use tangelo_ops::attention::KvType;

use super::offload::Offload;
use crate::model;
use crate::weights::mixture_of_file_type;

/// Lengths for which the memory of one sequence is shown, besides the longest.
const CONTEXTS: [usize; 3] = [4 << 10, 32 << 10, 128 << 10];

/// Everything that is shown. What only files can tell is in `files`.
#[derive(Debug)]
pub struct Facts {
    /// As the model was named on the command line.
    pub model: String,
    pub config: Config,
    pub parameters: Parameters,
    pub memory: Memory,
    pub files: Option<Files>,
    /// What goes to a device, if that is asked for.
    pub offload: Option<Offload>,
}

/// Numbers of parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    pub total: u64,
    /// The table that tokens are looked up in.
    pub embedding: u64,
    /// The output matrix; 0 if it is the embedding.
    pub output: u64,
    /// What one token is multiplied with: no table (unless it is the output matrix too), and of the routed experts
    /// those that a token visits.
    pub active: u64,
}

/// Memory of one sequence in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Convolution inputs and recurrent states.
    pub fixed: u64,
    /// Keys and values in f32.
    pub per_token: u64,
    /// Keys and values in f16.
    pub per_token_f16: u64,
    /// Length and bytes of whole sequences; the last is the longest.
    pub contexts: Vec<(usize, u64)>,
}

/// What the files say.
#[derive(Debug)]
pub struct Files {
    pub format: String,
    pub paths: Vec<PathBuf>,
    pub file_bytes: u64,
    /// Type, tensors, bytes; the largest share first.
    pub types: Vec<(String, usize, u64)>,
    /// How the weights were quantised, if they were.
    pub quantisation: Option<String>,
    /// `None` if there is none, an error if it cannot be read.
    pub tokenizer: Option<Result<TokenizerFacts>>,
    pub stop_ids: Vec<TokenId>,
    pub template: Option<Template>,
    pub license: Option<String>,
}

/// What is shown of a tokenizer.
#[derive(Debug)]
pub struct TokenizerFacts {
    pub source: &'static str,
    /// Name of the split expression in a GGUF file.
    pub pre: Option<String>,
    pub num_tokens: usize,
    /// Special tokens with their ids.
    pub special: Vec<(TokenId, String)>,
    pub bos: Option<TokenId>,
    pub eos: Option<TokenId>,
}

/// What is shown of a chat template.
#[derive(Debug)]
pub struct Template {
    pub bytes: usize,
    pub dialect: &'static str,
}

impl Facts {
    /// What a configuration alone tells.
    pub fn of_config(model: &str, config: Config) -> Facts {
        Facts {
            model: model.to_string(),
            parameters: Parameters::of(&config),
            memory: Memory::of(&config),
            config,
            files: None,
            offload: None,
        }
    }

    /// What an opened model tells.
    ///
    /// # Errors
    /// If one of its files has gone or its metadata is damaged.
    pub fn of_checkpoint(model: &str, checkpoint: &Checkpoint) -> Result<Facts> {
        let files = Some(Files::of(checkpoint)?);
        Ok(Facts { files, ..Facts::of_config(model, checkpoint.config().clone()) })
    }
}

impl Parameters {
    fn of(config: &Config) -> Parameters {
        let of = |is_meant: &dyn Fn(&str) -> bool| -> u64 {
            let specs = config.tensors();
            specs.iter().filter(|spec| is_meant(&spec.name)).map(|spec| spec.num_elements()).sum()
        };
        let (embedding, output) =
            (of(&|n| n == "backbone.embeddings.weight"), of(&|n| n == "lm_head.weight"));
        let table_alone = if config.tie_word_embeddings { 0 } else { embedding };
        let idle = config.moe.as_ref().map_or(0, |moe| {
            let routed = of(&|n| n.contains(".mixer.experts."));
            let experts = moe.num_experts as u64;
            routed / experts * (experts - moe.num_experts_per_token as u64)
        });
        let total = config.num_parameters();
        Parameters { total, embedding, output, active: total - table_alone - idle }
    }
}

impl Memory {
    fn of(config: &Config) -> Memory {
        let fixed = State::bytes_fixed(config) as u64;
        let [per_token, per_token_f16] =
            [KvType::F32, KvType::F16].map(|kv_type| State::bytes_per_token(config, kv_type) as u64);
        let longest = config.max_position_embeddings;
        let shorter = CONTEXTS.into_iter().filter(|&n| n < longest);
        let contexts =
            shorter.chain([longest]).map(|n| (n, fixed.saturating_add(per_token.saturating_mul(n as u64))));
        Memory { fixed, per_token, per_token_f16, contexts: contexts.collect() }
    }
}

impl Files {
    fn of(checkpoint: &Checkpoint) -> Result<Files> {
        let template = checkpoint.chat_template()?;
        Ok(Files {
            format: checkpoint.format().to_string(),
            paths: checkpoint.files().to_vec(),
            file_bytes: file_bytes(checkpoint)?,
            types: types(checkpoint),
            quantisation: quantisation(checkpoint)?,
            tokenizer: TokenizerFacts::of(checkpoint).transpose(),
            stop_ids: checkpoint.stop_token_ids(),
            template: template.map(|t| Template { bytes: t.len(), dialect: Dialect::detect(&t).name }),
            license: checkpoint.license(),
        })
    }
}

/// Bytes of the files that hold weights, or of the weights alone if they are part of the program.
///
/// # Errors
/// If one of them has gone.
pub fn file_bytes(checkpoint: &Checkpoint) -> Result<u64> {
    let bytes = |path: &PathBuf| -> Result<u64> {
        Ok(std::fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?.len())
    };
    if checkpoint.files().is_empty() {
        return Ok(checkpoint.tensors().map(|tensor| tensor.bytes.len() as u64).sum());
    }
    checkpoint.files().iter().map(bytes).sum()
}

/// Type, number of tensors and bytes of all weights; the largest share first.
pub fn types(checkpoint: &Checkpoint) -> Vec<(String, usize, u64)> {
    let mut types: Vec<(String, usize, u64)> = Vec::new();
    for tensor in checkpoint.tensors() {
        let bytes = tensor.bytes.len() as u64;
        match types.iter_mut().find(|(name, ..)| *name == tensor.dtype_name) {
            Some((_, count, sum)) => (*count, *sum) = (*count + 1, *sum + bytes),
            None => types.push((tensor.dtype_name.clone(), 1, bytes)),
        }
    }
    types.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
    types
}

/// How the weights were quantised: the mixture of a GGUF file, or the scales of an FP8 checkpoint.
fn quantisation(checkpoint: &Checkpoint) -> Result<Option<String>> {
    if let Some(metadata) = checkpoint.gguf_metadata() {
        let file_type = metadata.get_u32("general.file_type")?;
        return Ok(file_type.map(|n| mixture_of_file_type(n).unwrap_or_else(|| format!("file type {n}"))));
    }
    let count = |end: &str| checkpoint.tensors().filter(|t| t.name.ends_with(end)).count();
    let (weights, inputs) = (count(".weight_scale"), count(".input_scale"));
    let caches = count(".k_scale") + count(".v_scale");
    if weights + inputs + caches == 0 {
        return Ok(None);
    }
    Ok(Some(format!(
        "FP8 with {weights} weight scales, {inputs} input scales, {caches} key and value scales"
    )))
}

impl TokenizerFacts {
    fn of(checkpoint: &Checkpoint) -> Result<Option<TokenizerFacts>> {
        let (source, pre) = match checkpoint.tokenizer_source() {
            TokenizerSource::Missing => return Ok(None),
            TokenizerSource::Json(_) => ("tokenizer.json", None),
            TokenizerSource::Gguf(metadata) => {
                ("inside the GGUF file", metadata.get_str("tokenizer.ggml.pre")?.map(str::to_string))
            }
        };
        let tokenizer = model::tokenizer(checkpoint)?;
        Ok(Some(TokenizerFacts {
            source,
            pre,
            num_tokens: tokenizer.vocab_size(),
            special: special(&tokenizer),
            bos: tokenizer.bos(),
            eos: tokenizer.eos(),
        }))
    }

    /// The text of a token that is special, for messages.
    pub fn special_text(&self, id: TokenId) -> Option<&str> {
        self.special.iter().find(|(special, _)| *special == id).map(|(_, text)| text.as_str())
    }
}

fn special(tokenizer: &Tokenizer) -> Vec<(TokenId, String)> {
    let ids = (0..tokenizer.vocab_size() as TokenId).filter(|&id| tokenizer.is_special(id));
    ids.filter_map(|id| Some((id, tokenizer.token_of(id)?))).collect()
}

/// The layers of one kind.
pub fn layers_of(config: &Config, kind: BlockKind) -> Vec<usize> {
    config.blocks.iter().enumerate().filter(|(_, b)| **b == kind).map(|(i, _)| i).collect()
}

#[cfg(test)]
mod tests {
    use tangelo_formats::config::shapes;

    use super::*;

    /// Figures of the model cards; 9B to H-4B are exact in the issue that asked for them.
    #[test]
    fn parameters_are_those_of_the_model_cards() {
        let of = |name: &str| Parameters::of(&shapes::named(name).expect("a shape"));
        let totals = [
            ("nemotron-3-nano-4b", 3_973_556_832),
            ("nemotron-nano-9b-v2", 8_888_227_328),
            ("nemotron-nano-12b-v2", 12_310_001_152),
            ("nemotron-h-8b", 8_100_852_736),
            ("nemotron-h-4b", 4_489_223_040),
        ];
        for (name, total) in totals {
            assert_eq!(of(name).total, total, "{name}");
        }
        let nano = of("nemotron-3-nano-4b");
        assert_eq!(nano.embedding + nano.output, 822_083_584);
        assert_eq!(nano.active, nano.total - nano.embedding);
        // 31.6 B in all, 3.6 B active with both tables, 3.2 B with neither lookup.
        let moe = of("nemotron-3-nano-30b-a3b");
        assert_eq!(moe.total / 100_000_000, 315);
        assert_eq!((moe.active + moe.embedding) / 100_000_000, 35);
    }

    #[test]
    fn memory_of_the_4b() {
        let memory = Memory::of(&shapes::named("nemotron-3-nano-4b").expect("a shape"));
        // llama.cpp reports the same 85,026,816 bytes for its recurrent memory.
        assert_eq!(memory.fixed, 85_026_816);
        assert_eq!(memory.per_token, 32 << 10, "8192 scalars in f32");
        assert_eq!(memory.per_token_f16, 16 << 10);
        let lengths: Vec<usize> = memory.contexts.iter().map(|(n, _)| *n).collect();
        assert_eq!(lengths, [4096, 32768, 131_072, 262_144]);
        assert_eq!(memory.contexts[3].1, 85_026_816 + (8 << 30));
    }
}
