//! The published shapes of the family by name, for writing models of random weights and for reference.
//!
//! Sources: the `config.json` of each model on the hub; parameter counts are those of the model cards.

use super::{AttentionConfig, BlockKind, Config, MambaConfig, MlpConfig, MoeConfig};

/// Every name that [`named`] knows.
pub const NAMES: [&str; 6] = [
    "nemotron-3-nano-4b",
    "nemotron-nano-9b-v2",
    "nemotron-nano-12b-v2",
    "nemotron-h-8b",
    "nemotron-h-4b",
    "nemotron-3-nano-30b-a3b",
];

/// What distinguishes one model from another; the rest is common to the family.
struct Shape {
    name: &'static str,
    pattern: &'static str,
    hidden_size: usize,
    intermediate_size: usize,
    attention: (usize, usize),
    mamba: (usize, usize),
    max_position_embeddings: usize,
    pad_token_id: u32,
    moe: Option<MoeConfig>,
}

const PATTERN_H: &str = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-";

const SHAPES: [Shape; NAMES.len()] = [
    Shape {
        name: "nemotron-3-nano-4b",
        pattern: "M-M-M-MM-M-M*-M-M*-M-M-M*-M-M-MM*-MMM-M-M-",
        hidden_size: 3136,
        intermediate_size: 12544,
        attention: (40, 8),
        mamba: (96, 80),
        max_position_embeddings: 262_144,
        pad_token_id: 0,
        moe: None,
    },
    Shape {
        name: "nemotron-nano-9b-v2",
        pattern: "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-",
        hidden_size: 4480,
        intermediate_size: 15680,
        attention: (40, 8),
        mamba: (128, 80),
        max_position_embeddings: 131_072,
        pad_token_id: 12,
        moe: None,
    },
    Shape {
        name: "nemotron-nano-12b-v2",
        pattern: "M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M-",
        hidden_size: 5120,
        intermediate_size: 20480,
        attention: (40, 8),
        mamba: (128, 80),
        max_position_embeddings: 131_072,
        pad_token_id: 12,
        moe: None,
    },
    Shape {
        name: "nemotron-h-8b",
        pattern: PATTERN_H,
        hidden_size: 4096,
        intermediate_size: 21504,
        attention: (32, 8),
        mamba: (128, 64),
        max_position_embeddings: 8192,
        pad_token_id: 0,
        moe: None,
    },
    Shape {
        name: "nemotron-h-4b",
        pattern: PATTERN_H,
        hidden_size: 3072,
        intermediate_size: 12288,
        attention: (32, 8),
        mamba: (112, 64),
        max_position_embeddings: 8192,
        pad_token_id: 0,
        moe: None,
    },
    Shape {
        name: "nemotron-3-nano-30b-a3b",
        pattern: "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
        hidden_size: 2688,
        intermediate_size: 0,
        attention: (32, 2),
        mamba: (64, 64),
        max_position_embeddings: 262_144,
        pad_token_id: 0,
        moe: Some(MoeConfig {
            num_experts: 128,
            num_experts_per_token: 6,
            intermediate_size: 1856,
            shared_intermediate_size: 3712,
            latent_size: None,
            num_groups: 1,
            num_groups_kept: 1,
            norm_topk_prob: true,
            routed_scaling_factor: 2.5,
        }),
    },
];

/// The configuration of a published model; `None` for a name that is not in [`NAMES`].
pub fn named(name: &str) -> Option<Config> {
    let shape = SHAPES.iter().find(|shape| shape.name == name)?;
    Some(Config {
        blocks: shape.pattern.chars().filter_map(BlockKind::from_symbol).collect(),
        hidden_size: shape.hidden_size,
        vocab_size: 131_072,
        mamba: MambaConfig {
            num_heads: shape.mamba.0,
            head_dim: shape.mamba.1,
            state_size: 128,
            num_groups: 8,
            conv_kernel: 4,
            conv_bias: true,
            proj_bias: false,
            time_step_limit: (0.0, f32::INFINITY),
        },
        attention: AttentionConfig {
            num_heads: shape.attention.0,
            num_kv_heads: shape.attention.1,
            head_dim: 128,
        },
        mlp: MlpConfig { intermediate_size: shape.intermediate_size, bias: false },
        moe: shape.moe.clone(),
        norm_eps: 1e-5,
        tie_word_embeddings: false,
        max_position_embeddings: shape.max_position_embeddings,
        bos_token_id: Some(1),
        eos_token_ids: vec![2],
        pad_token_id: Some(shape.pad_token_id),
    })
}
