//! GGUF metadata of the architectures `nemotron_h` and `nemotron_h_moe`, to and from [`Config`].
//!
//! The keys are those of llama.cpp's converter (`conversion/nemotron.py`) and loader
//! (`src/models/nemotron-h.cpp`). The kind of a layer follows from two per-layer numbers: key heads without
//! feed-forward width is attention, feed-forward width is MLP or experts, neither is Mamba. Whether a
//! feed-forward layer has experts is seen from its tensors.
//!
//! The format has no key for the clamp of dt (so there is none), and no place for biases of the projections.

use std::collections::HashSet;

use super::metadata::Metadata;
use super::reader::Gguf;
use super::value::{Array, Value};
use crate::config::{AttentionConfig, BlockKind, Config, MambaConfig, MlpConfig, MoeConfig};
use crate::error::{Error, Result, shown};

const DENSE: &str = "nemotron_h";
const MIXTURE: &str = "nemotron_h_moe";
/// Sigmoid in llama.cpp's `enum llama_expert_gating_func_type`.
const GATING_SIGMOID: u32 = 2;

/// The configuration that a GGUF file describes.
///
/// # Errors
/// [`Error::UnsupportedArchitecture`], [`Error::GgufType`], or [`Error::Config`] for missing and impossible values.
pub fn config_from_gguf(gguf: &Gguf) -> Result<Config> {
    let architecture = gguf.metadata.get_str("general.architecture")?;
    let Some(arch @ (DENSE | MIXTURE)) = architecture else {
        let found = architecture.unwrap_or("none named in `general.architecture`");
        return Err(Error::UnsupportedArchitecture { found: shown(found) });
    };
    if gguf.metadata.get_u32("split.count")?.is_some_and(|n| n > 1) {
        return Err(Error::config(
            "split.count",
            "says that the model is split over several GGUF files; merge them first",
        ));
    }
    let source = Source { gguf, arch, names: gguf.tensors.iter().map(|t| t.name.as_str()).collect() };
    let (blocks, kv_heads, widths) = source.blocks()?;
    let has = |kind| blocks.contains(&kind);
    let m = &gguf.metadata;
    let id = |key: &str| m.get_u32(&format!("tokenizer.ggml.{key}_token_id"));
    let mlp_width = source.uniform("feed_forward_length", &blocks, &widths, BlockKind::Mlp)?;
    let config = Config {
        hidden_size: source.require("embedding_length")?,
        vocab_size: match source.usize("vocab_size")? {
            Some(n) => n,
            None => source.rows_of("token_embd.weight").ok_or_else(|| source.missing("vocab_size"))?,
        },
        mamba: if has(BlockKind::Mamba) { source.mamba()? } else { MambaConfig::default() },
        attention: match source.uniform(
            "attention.head_count_kv",
            &blocks,
            &kv_heads,
            BlockKind::Attention,
        )? {
            Some(num_kv_heads) => source.attention(num_kv_heads, &blocks)?,
            None => AttentionConfig::default(),
        },
        mlp: MlpConfig {
            intermediate_size: mlp_width.unwrap_or(0),
            bias: mlp_width.is_some() && source.names.iter().any(|n| n.ends_with(".ffn_up.bias")),
        },
        moe: if has(BlockKind::Moe) { Some(source.moe(&blocks, &widths)?) } else { None },
        norm_eps: match m.get_f32(&source.key("attention.layer_norm_rms_epsilon"))? {
            Some(eps) => eps,
            None => m
                .get_f32(&source.key("attention.layer_norm_epsilon"))?
                .ok_or_else(|| source.missing("attention.layer_norm_rms_epsilon"))?,
        },
        tie_word_embeddings: !source.names.contains("output.weight"),
        max_position_embeddings: source.require("context_length")?,
        bos_token_id: id("bos")?,
        eos_token_ids: id("eos")?.into_iter().collect(),
        pad_token_id: id("padding")?,
        blocks,
    };
    config.check()?;
    Ok(config)
}

/// Metadata of one architecture, with the tensor names that settle what the metadata leaves open.
struct Source<'a> {
    gguf: &'a Gguf,
    arch: &'a str,
    names: HashSet<&'a str>,
}

impl Source<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    fn missing(&self, name: &str) -> Error {
        Error::config(self.key(name), "is missing")
    }

    fn usize(&self, name: &str) -> Result<Option<usize>> {
        Ok(self.gguf.metadata.get_u32(&self.key(name))?.map(|n| n as usize))
    }

    fn require(&self, name: &str) -> Result<usize> {
        self.usize(name)?.ok_or_else(|| self.missing(name))
    }

    fn rows_of(&self, tensor: &str) -> Option<usize> {
        let info = self.gguf.tensors.iter().find(|t| t.name == tensor)?;
        info.shape.iter().rev().nth(1).copied()
    }

    /// Number of blocks in the file, and of layers among them: the blocks after those are heads for multi-token
    /// prediction, which this program does not use.
    fn counts(&self) -> Result<(usize, usize)> {
        let blocks = self.require("block_count")?;
        if blocks > tangelo_core::limits::LAYERS_MAX {
            let limit = tangelo_core::limits::LAYERS_MAX as u64;
            return Err(Error::TooLarge { what: self.key("block_count"), found: blocks as u64, limit });
        }
        let heads = self.usize("nextn_predict_layers")?.unwrap_or(0);
        let layers = blocks.checked_sub(heads).ok_or_else(|| {
            let problem = format!("is {heads}, more than the {blocks} blocks of `block_count`");
            Error::config(self.key("nextn_predict_layers"), problem)
        })?;
        Ok((blocks, layers))
    }

    /// A number of each layer.
    fn per_layer(&self, name: &str) -> Result<Vec<u64>> {
        let (blocks, layers) = self.counts()?;
        let list = self.gguf.metadata.get_per_layer(&self.key(name), blocks)?;
        let mut list = list.ok_or_else(|| self.missing(name))?;
        list.truncate(layers);
        Ok(list)
    }

    /// Kind, key heads and feed-forward width of each layer.
    fn blocks(&self) -> Result<(Vec<BlockKind>, Vec<u64>, Vec<u64>)> {
        let kv_heads = self.per_layer("attention.head_count_kv")?;
        let widths = self.per_layer("feed_forward_length")?;
        let block = |(i, (&kv, &width)): (usize, (&u64, &u64))| match (kv, width) {
            (0, 0) => BlockKind::Mamba,
            (_, 0) => BlockKind::Attention,
            _ if self.names.contains(format!("blk.{i}.ffn_up_exps.weight").as_str()) => BlockKind::Moe,
            _ => BlockKind::Mlp,
        };
        let blocks = kv_heads.iter().zip(&widths).enumerate().map(block).collect();
        Ok((blocks, kv_heads, widths))
    }

    /// The one value that all layers of a kind have; `None` if there is no such layer.
    fn uniform(
        &self,
        name: &str,
        blocks: &[BlockKind],
        values: &[u64],
        kind: BlockKind,
    ) -> Result<Option<usize>> {
        let mut of_kind = blocks.iter().zip(values).filter(|(b, _)| **b == kind).map(|(_, v)| *v);
        let Some(first) = of_kind.next() else { return Ok(None) };
        if let Some(other) = of_kind.find(|v| *v != first) {
            let problem =
                format!("differs between layers of one kind ({first} and {other}), which is not supported");
            return Err(Error::config(self.key(name), problem));
        }
        Ok(usize::try_from(first).ok())
    }

    fn mamba(&self) -> Result<MambaConfig> {
        let inner_size = self.require("ssm.inner_size")?;
        let num_heads = self.require("ssm.time_step_rank")?;
        if num_heads == 0 || !inner_size.is_multiple_of(num_heads) {
            let problem =
                format!("is {inner_size}, not a multiple of the {num_heads} heads of `ssm.time_step_rank`");
            return Err(Error::config(self.key("ssm.inner_size"), problem));
        }
        Ok(MambaConfig {
            num_heads,
            head_dim: inner_size / num_heads,
            state_size: self.require("ssm.state_size")?,
            num_groups: self.require("ssm.group_count")?,
            conv_kernel: self.require("ssm.conv_kernel")?,
            conv_bias: self.names.iter().any(|n| n.ends_with(".ssm_conv1d.bias")),
            proj_bias: false,
            time_step_limit: (0.0, f32::INFINITY),
        })
    }

    fn attention(&self, num_kv_heads: usize, blocks: &[BlockKind]) -> Result<AttentionConfig> {
        let name = "attention.head_count";
        let heads = self.per_layer(name)?;
        let num_heads = self.uniform(name, blocks, &heads, BlockKind::Attention)?.unwrap_or(0);
        let head_dim = match self.usize("attention.key_length")? {
            Some(n) => n,
            // What llama.cpp assumes; zero heads are refused by the common checks.
            None => self.require("embedding_length")?.checked_div(num_heads).unwrap_or(0),
        };
        match self.usize("attention.value_length")? {
            Some(n) if n != head_dim => {
                let problem = format!("is {n}, but keys have {head_dim} channels; they must be equal");
                Err(Error::config(self.key("attention.value_length"), problem))
            }
            _ => Ok(AttentionConfig { num_heads, num_kv_heads, head_dim }),
        }
    }

    fn moe(&self, blocks: &[BlockKind], widths: &[u64]) -> Result<MoeConfig> {
        let m = &self.gguf.metadata;
        let gating = m.get_u32(&self.key("expert_gating_func"))?;
        if let Some(found) = gating.filter(|&g| g != GATING_SIGMOID) {
            let problem = format!("is {found}; the routers of this family use {GATING_SIGMOID} (sigmoid)");
            return Err(Error::config(self.key("expert_gating_func"), problem));
        }
        let first = blocks.iter().position(|b| *b == BlockKind::Moe).unwrap_or(0);
        let rows = |suffix: &str| self.rows_of(&format!("blk.{first}.{suffix}.weight"));
        let intermediate_size = match self.usize("expert_feed_forward_length")? {
            Some(n) => Some(n),
            None => self.uniform("feed_forward_length", blocks, widths, BlockKind::Moe)?,
        };
        let shared = match self.usize("expert_shared_feed_forward_length")? {
            Some(n) => Some(n),
            None => rows("ffn_up_shexp"),
        };
        let latent_size = match self.usize("moe_latent_size")?.filter(|&n| n > 0) {
            Some(n) => Some(n),
            None => rows("ffn_latent_down").or_else(|| rows("ffn_latent_in")),
        };
        Ok(MoeConfig {
            num_experts: self.require("expert_count")?,
            num_experts_per_token: self.require("expert_used_count")?,
            intermediate_size: intermediate_size.ok_or_else(|| self.missing("expert_feed_forward_length"))?,
            shared_intermediate_size: shared
                .ok_or_else(|| self.missing("expert_shared_feed_forward_length"))?,
            latent_size,
            num_groups: self.usize("expert_group_count")?.filter(|&n| n > 0).unwrap_or(1),
            num_groups_kept: self.usize("expert_group_used_count")?.filter(|&n| n > 0).unwrap_or(1),
            norm_topk_prob: m.get_bool(&self.key("expert_weights_norm"))?.unwrap_or(false),
            // llama.cpp writes and reads 0 for "no factor".
            routed_scaling_factor: m
                .get_f32(&self.key("expert_weights_scale"))?
                .filter(|&x| x != 0.0)
                .unwrap_or(1.0),
        })
    }
}

/// The `general.*` and architecture keys of a model; tokenizer keys and `general.file_type` are the caller's.
///
/// # Errors
/// [`Error::Config`] if the configuration fails [`Config::check`] or GGUF cannot express the model.
pub fn metadata_from_config(config: &Config, name: &str) -> Result<Metadata> {
    config.check()?;
    if config.has(BlockKind::Mamba) && config.mamba.time_step_limit != (0.0, f32::INFINITY) {
        return Err(Error::config(
            "time_step_limit",
            "has no counterpart in GGUF; keep this model in safetensors",
        ));
    }
    if config.has(BlockKind::Mlp) && config.has(BlockKind::Moe) {
        let problem =
            "mixes MLP and expert layers, which GGUF cannot express; keep this model in safetensors";
        return Err(Error::config("hybrid_override_pattern", problem));
    }
    let arch = if config.moe.is_some() { MIXTURE } else { DENSE };
    let mut m = Metadata::default();
    m.set("general.architecture", Value::String(arch.into()));
    m.set("general.type", Value::String("model".into()));
    m.set("general.name", Value::String(name.into()));
    m.set("general.quantization_version", Value::U32(2));
    let moe_width = config.moe.as_ref().map_or(0, |moe| moe.intermediate_size);
    let per_layer = |value: &dyn Fn(BlockKind) -> usize| {
        Value::Array(Array::I32(config.blocks.iter().map(|&b| value(b) as i32).collect()))
    };
    let kv_heads = per_layer(&|b| if b == BlockKind::Attention { config.attention.num_kv_heads } else { 0 });
    let widths = per_layer(&|b| match b {
        BlockKind::Mlp => config.mlp.intermediate_size,
        BlockKind::Moe => moe_width,
        BlockKind::Mamba | BlockKind::Attention => 0,
    });
    let (a, s) = (&config.attention, &config.mamba);
    let mut set = |key: &str, value: Value| m.set(format!("{arch}.{key}"), value);
    let number = |n: usize| Value::U32(n as u32);
    set("block_count", number(config.blocks.len()));
    set("context_length", number(config.max_position_embeddings));
    set("embedding_length", number(config.hidden_size));
    set("feed_forward_length", widths);
    set("attention.head_count", number(a.num_heads));
    set("attention.head_count_kv", kv_heads);
    set("attention.key_length", number(a.head_dim));
    set("attention.value_length", number(a.head_dim));
    set("attention.layer_norm_rms_epsilon", Value::F32(config.norm_eps));
    set("attention.layer_norm_epsilon", Value::F32(config.norm_eps));
    // Not used by the model, but loaders ask for it.
    set("rope.dimension_count", number(config.hidden_size.checked_div(a.num_heads).unwrap_or(0)));
    set("vocab_size", number(config.vocab_size));
    set("ssm.conv_kernel", number(s.conv_kernel));
    set("ssm.state_size", number(s.state_size));
    set("ssm.group_count", number(s.num_groups));
    set("ssm.inner_size", number(s.inner_size()));
    set("ssm.time_step_rank", number(s.num_heads));
    if let Some(moe) = &config.moe {
        set_moe(&mut set, moe);
    }
    for (key, id) in [
        ("bos", config.bos_token_id),
        ("eos", config.eos_token_ids.first().copied()),
        ("padding", config.pad_token_id),
    ] {
        if let Some(id) = id {
            m.set(format!("tokenizer.ggml.{key}_token_id"), Value::U32(id));
        }
    }
    Ok(m)
}

fn set_moe(set: &mut impl FnMut(&str, Value), moe: &MoeConfig) {
    let number = |n: usize| Value::U32(n as u32);
    set("expert_count", number(moe.num_experts));
    set("expert_used_count", number(moe.num_experts_per_token));
    set("expert_group_count", number(moe.num_groups));
    set("expert_group_used_count", number(moe.num_groups_kept));
    set("expert_feed_forward_length", number(moe.intermediate_size));
    set("expert_shared_feed_forward_length", number(moe.shared_intermediate_size));
    set("expert_shared_count", Value::U32(1));
    set("expert_weights_norm", Value::Bool(moe.norm_topk_prob));
    set("expert_weights_scale", Value::F32(moe.routed_scaling_factor));
    if let Some(latent) = moe.latent_size {
        set("moe_latent_size", number(latent));
    }
}

#[cfg(test)]
mod tests {
    use tangelo_core::DType;

    use super::super::{names, reader::TensorInfo};
    use super::*;
    use crate::config::shapes;

    #[test]
    fn metadata_says_what_the_configuration_said() {
        for name in shapes::NAMES {
            let config = shapes::named(name).unwrap();
            let metadata = metadata_from_config(&config, name).unwrap();
            let info = |t: names::GgufTensor| TensorInfo {
                name: t.name,
                dtype: DType::F32,
                shape: t.shape,
                range: 0..0,
            };
            let tensors = names::from_config(&config).unwrap().into_iter().map(info).collect();
            let gguf = Gguf { version: 3, alignment: 32, metadata, tensors };
            assert_eq!(config_from_gguf(&gguf).unwrap(), config, "{name}");
        }
    }

    #[test]
    fn heads_for_multi_token_prediction_are_no_layers() {
        let config = shapes::named("nemotron-3-nano-30b-a3b").unwrap();
        let mut metadata = metadata_from_config(&config, "x").unwrap();
        let lengthened = |metadata: &Metadata, key: &str, more: u32| {
            let mut list: Vec<u32> = metadata
                .get_per_layer(key, config.blocks.len())
                .unwrap()
                .unwrap()
                .iter()
                .map(|x| *x as u32)
                .collect();
            list.push(more);
            Value::Array(Array::U32(list))
        };
        for (key, more) in [("attention.head_count_kv", 2), ("feed_forward_length", 7)] {
            let key = format!("nemotron_h_moe.{key}");
            let list = lengthened(&metadata, &key, more);
            metadata.set(key, list);
        }
        metadata.set("nemotron_h_moe.block_count", Value::U32(config.blocks.len() as u32 + 1));
        metadata.set("nemotron_h_moe.nextn_predict_layers", Value::U32(1));
        let info = |t: names::GgufTensor| TensorInfo {
            name: t.name,
            dtype: DType::F32,
            shape: t.shape,
            range: 0..0,
        };
        let tensors = names::from_config(&config).unwrap().into_iter().map(info).collect();
        let mut gguf = Gguf { version: 3, alignment: 32, metadata, tensors };
        assert_eq!(config_from_gguf(&gguf).unwrap().blocks, config.blocks);
        gguf.metadata.set("nemotron_h_moe.nextn_predict_layers", Value::U32(1000));
        let error = config_from_gguf(&gguf).unwrap_err().to_string();
        assert!(error.contains("nextn_predict_layers"), "{error}");
    }

    #[test]
    fn other_architectures_are_named() {
        let metadata = [("general.architecture", Value::String("llama".into()))].into_iter().collect();
        let gguf = Gguf { version: 3, alignment: 32, metadata, tensors: Vec::new() };
        let error = config_from_gguf(&gguf).unwrap_err().to_string();
        assert!(error.starts_with("unsupported architecture `llama`"), "{error}");
    }
}
