//! `config.json` in the two vocabularies that exist: NVIDIA's (a `hybrid_override_pattern` string) and that of
//! transformers 5 (a `layers_block_type` list).
//!
//! Defaults of absent keys are those of transformers' `configuration_nemotron_h.py`, with one exception:
//! an absent `time_step_limit` is (0, ∞), as the published kernels and checkpoints have it.

use serde_json::{Map, Value};

use super::{AttentionConfig, BlockKind, Config, MambaConfig, MlpConfig, MoeConfig};
use crate::error::{Error, Result, shown};
use crate::json;

const NORM_EPS_DEFAULT: f32 = 1e-5;
const MAX_POSITION_EMBEDDINGS_DEFAULT: usize = 4096;

impl Config {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Json`] for broken text, [`Error::UnsupportedArchitecture`] for another family,
    /// [`Error::Config`] for a missing, mistyped or impossible value.
    pub fn from_json(text: &str) -> Result<Config> {
        let value = json::parse("config.json", text)?;
        let Value::Object(object) = &value else {
            return Err(Error::config("config.json", "should be an object of keys and values"));
        };
        let fields = Fields(object);
        check_architecture(&fields)?;
        let blocks = blocks(&fields)?;
        let has = |kind| blocks.contains(&kind);
        let config = Config {
            hidden_size: fields.require("hidden_size")?,
            vocab_size: fields.require("vocab_size")?,
            mamba: if has(BlockKind::Mamba) { mamba(&fields)? } else { MambaConfig::default() },
            attention: if has(BlockKind::Attention) {
                attention(&fields)?
            } else {
                AttentionConfig::default()
            },
            mlp: MlpConfig {
                intermediate_size: if has(BlockKind::Mlp) {
                    fields.require("intermediate_size")?
                } else {
                    0
                },
                bias: fields.bool("mlp_bias")?.unwrap_or(false),
            },
            moe: if has(BlockKind::Moe) { Some(moe(&fields)?) } else { None },
            norm_eps: match fields.f32("layer_norm_epsilon")? {
                Some(eps) => eps,
                None => fields.f32("rms_norm_eps")?.unwrap_or(NORM_EPS_DEFAULT),
            },
            tie_word_embeddings: fields.bool("tie_word_embeddings")?.unwrap_or(false),
            max_position_embeddings: fields
                .usize("max_position_embeddings")?
                .unwrap_or(MAX_POSITION_EMBEDDINGS_DEFAULT),
            bos_token_id: fields.token_ids("bos_token_id")?.first().copied(),
            eos_token_ids: fields.token_ids("eos_token_id")?,
            pad_token_id: fields.token_ids("pad_token_id")?.first().copied(),
            blocks,
        };
        config.check()?;
        Ok(config)
    }
}

/// The family is named by `model_type`; `architectures` serves files without it.
fn check_architecture(fields: &Fields) -> Result<()> {
    let architecture = fields.0.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
    let supported = match (fields.str("model_type")?, architecture) {
        (Some(model_type), _) => model_type == "nemotron_h",
        (None, Some(architecture)) => architecture == "NemotronHForCausalLM",
        (None, None) => false,
    };
    if !supported {
        let found = fields.str("model_type")?.or(architecture).unwrap_or("none named in `model_type`");
        return Err(Error::UnsupportedArchitecture { found: shown(found) });
    }
    for (key, accepted) in [("mlp_hidden_act", &["relu2"][..]), ("mamba_hidden_act", &["silu", "swish"])] {
        if let Some(found) = fields.str(key)?
            && !accepted.contains(&found)
        {
            let problem = format!(
                "is `{}`; this architecture is run with `{}` only",
                shown(found),
                accepted.join("` or `")
            );
            return Err(Error::config(key, problem));
        }
    }
    Ok(())
}

/// The layer kinds, from either vocabulary; where a file has both, or a count, they must agree.
fn blocks(fields: &Fields) -> Result<Vec<BlockKind>> {
    let by_pattern = fields.str("hybrid_override_pattern")?.map(blocks_from_pattern).transpose()?;
    let by_list = match fields.0.get("layers_block_type") {
        None | Some(Value::Null) => None,
        Some(list) => Some(blocks_from_list(list)?),
    };
    let blocks = match (by_pattern, by_list) {
        (Some(a), Some(b)) if a != b => {
            return Err(Error::config("layers_block_type", "disagrees with `hybrid_override_pattern`"));
        }
        (Some(blocks), _) | (None, Some(blocks)) => blocks,
        (None, None) => {
            let problem = "is missing, and so is `layers_block_type`: one of them must list the layers";
            return Err(Error::config("hybrid_override_pattern", problem));
        }
    };
    match fields.usize("num_hidden_layers")? {
        Some(n) if n != blocks.len() => {
            let problem = format!("is {n}, but the layer pattern has {} layers", blocks.len());
            Err(Error::config("num_hidden_layers", problem))
        }
        _ => Ok(blocks),
    }
}

fn blocks_from_pattern(pattern: &str) -> Result<Vec<BlockKind>> {
    let block = |symbol| {
        BlockKind::from_symbol(symbol).ok_or_else(|| {
            let problem = format!(
                "has `{}`; layers are M (Mamba), * (attention), - (MLP) or E (experts)",
                symbol.escape_debug()
            );
            Error::config("hybrid_override_pattern", problem)
        })
    };
    pattern.chars().map(block).collect()
}

fn blocks_from_list(list: &Value) -> Result<Vec<BlockKind>> {
    let key = "layers_block_type";
    let words = list.as_array().ok_or_else(|| Error::config(key, "should be a list of words"))?;
    let block = |word: &Value| {
        word.as_str().and_then(BlockKind::from_word).ok_or_else(|| {
            let problem = format!(
                "has {}; layers are mamba or linear_attention, attention or full_attention, mlp, moe",
                shown(&word.to_string())
            );
            Error::config(key, problem)
        })
    };
    words.iter().map(block).collect()
}

fn mamba(fields: &Fields) -> Result<MambaConfig> {
    Ok(MambaConfig {
        num_heads: fields.require("mamba_num_heads")?,
        head_dim: fields.require("mamba_head_dim")?,
        state_size: fields.require("ssm_state_size")?,
        num_groups: fields.require("n_groups")?,
        conv_kernel: fields.require("conv_kernel")?,
        conv_bias: fields.bool("use_conv_bias")?.unwrap_or(true),
        proj_bias: fields.bool("use_bias")?.unwrap_or(false),
        time_step_limit: time_step_limit(fields)?,
    })
}

fn time_step_limit(fields: &Fields) -> Result<(f32, f32)> {
    let key = "time_step_limit";
    let bound = |v: &Value| {
        json::as_f64(v).map(|x| x as f32).ok_or_else(|| Error::config(key, "should be a list of two numbers"))
    };
    match fields.0.get(key) {
        None | Some(Value::Null) => Ok((0.0, f32::INFINITY)),
        Some(Value::Array(pair)) => match pair.as_slice() {
            [low, high] => Ok((bound(low)?, bound(high)?)),
            _ => Err(Error::config(key, format!("should be a list of two numbers, found {}", pair.len()))),
        },
        Some(_) => Err(Error::config(key, "should be a list of two numbers")),
    }
}

fn attention(fields: &Fields) -> Result<AttentionConfig> {
    let num_heads = fields.require("num_attention_heads")?;
    Ok(AttentionConfig {
        num_heads,
        num_kv_heads: fields.usize("num_key_value_heads")?.unwrap_or(num_heads),
        head_dim: match fields.usize("head_dim")? {
            Some(head_dim) => head_dim,
            // The name in the configurations of the first Nemotron-H models.
            None => fields.usize("attention_head_dim")?.ok_or_else(|| missing("head_dim"))?,
        },
    })
}

fn moe(fields: &Fields) -> Result<MoeConfig> {
    Ok(MoeConfig {
        num_experts: fields.require("n_routed_experts")?,
        num_experts_per_token: fields.require("num_experts_per_tok")?,
        intermediate_size: fields.require("moe_intermediate_size")?,
        shared_intermediate_size: fields.require("moe_shared_expert_intermediate_size")?,
        latent_size: fields.usize("moe_latent_size")?,
        num_groups: fields.usize("n_group")?.unwrap_or(1),
        num_groups_kept: fields.usize("topk_group")?.unwrap_or(1),
        norm_topk_prob: fields.bool("norm_topk_prob")?.unwrap_or(true),
        routed_scaling_factor: fields.f32("routed_scaling_factor")?.unwrap_or(1.0),
    })
}

fn missing(key: &str) -> Error {
    Error::config(key, "is missing")
}

/// Typed access to the keys of a JSON object. An explicit `null` counts as absent.
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong =
            || Error::config(key, format!("should be {expected}, found {}", shown(&value.to_string())));
        read(value).map(Some).ok_or_else(wrong)
    }

    pub(crate) fn usize(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a non-negative whole number", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    fn require(&self, key: &str) -> Result<usize> {
        self.usize(key)?.ok_or_else(|| missing(key))
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(crate) fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a number", json::as_f64).map(|x| x.map(|x| x as f32))
    }

    pub(crate) fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    /// One token id, a list of them, or nothing.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let read = |v: &Value| match v {
            Value::Array(list) => list.iter().map(id).collect(),
            single => id(single).map(|id| vec![id]),
        };
        self.typed(key, "a token id or a list of token ids", read).map(Option::unwrap_or_default)
    }
}
