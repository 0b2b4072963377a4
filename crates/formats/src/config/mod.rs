//! What a `nemotron_h` model is made of: the layer pattern and the sizes of each kind of layer.
//!
//! A [`Config`] is read from `config.json` ([`Config::from_json`]), from GGUF metadata
//! ([`crate::gguf::arch`]) or taken from the table of published shapes ([`shapes`]). Whatever its origin, it has
//! passed the same checks: every size is positive and below [`tangelo_core::limits`], and the divisions that
//! the architecture makes (heads by groups, query heads by key heads, experts by groups) are exact. A reader
//! may therefore multiply its fields without fear.
//!
//! Keys that are in the files but mean nothing at inference are not here: `expand` (the inner width is
//! heads × head size), `attention_bias` (attention has no biases), `mamba_proj_bias`, `sliding_window`,
//! `residual_in_fp32`, `chunk_size`, `time_step_min`, `time_step_max`, `time_step_floor` and everything about
//! rotary embeddings, which this family does not use.

mod check;
mod from_json;
pub mod shapes;
mod tensors;
mod to_json;

pub(crate) use from_json::Fields;
pub use tensors::TensorSpec;

/// One kind of layer. Every layer is `x + mixer(rms_norm(x))` with one of these as its mixer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockKind {
    /// Mamba-2 mixer (`M`).
    Mamba,
    /// Grouped-query attention without positional encoding (`*`).
    Attention,
    /// Squared-ReLU MLP without gate (`-`).
    Mlp,
    /// Mixture of squared-ReLU experts plus a shared one (`E`).
    Moe,
}

impl BlockKind {
    /// The character of `hybrid_override_pattern`.
    pub const fn symbol(self) -> char {
        match self {
            BlockKind::Mamba => 'M',
            BlockKind::Attention => '*',
            BlockKind::Mlp => '-',
            BlockKind::Moe => 'E',
        }
    }

    /// Inverse of [`BlockKind::symbol`].
    pub const fn from_symbol(symbol: char) -> Option<BlockKind> {
        match symbol {
            'M' => Some(BlockKind::Mamba),
            '*' => Some(BlockKind::Attention),
            '-' => Some(BlockKind::Mlp),
            'E' => Some(BlockKind::Moe),
            _ => None,
        }
    }

    /// The words of `layers_block_type`: those of transformers 5 and the older ones.
    pub fn from_word(word: &str) -> Option<BlockKind> {
        match word {
            "mamba" | "linear_attention" => Some(BlockKind::Mamba),
            "attention" | "full_attention" => Some(BlockKind::Attention),
            "mlp" => Some(BlockKind::Mlp),
            "moe" => Some(BlockKind::Moe),
            _ => None,
        }
    }
}

/// Sizes of the Mamba-2 layers (Dao & Gu 2024, arXiv 2405.21060, section 7).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct MambaConfig {
    /// Heads h; each has its own A, D and dt.
    pub num_heads: usize,
    /// Channels per head p.
    pub head_dim: usize,
    /// State width n.
    pub state_size: usize,
    /// Groups g of heads that share B and C; head j uses group j / (h / g).
    pub num_groups: usize,
    /// Taps k of the causal depthwise convolution; the last one meets the current token.
    pub conv_kernel: usize,
    /// Whether the convolution has a bias (`use_conv_bias`).
    pub conv_bias: bool,
    /// Whether the input and output projections have biases (`use_bias`).
    pub proj_bias: bool,
    /// dt is clamped to this range after the softplus; (0, ∞) is no clamp.
    pub time_step_limit: (f32, f32),
}

impl MambaConfig {
    /// Inner width i = h·p.
    pub const fn inner_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Channels of the convolution: x, B and C, that is i + 2·g·n.
    pub const fn conv_size(&self) -> usize {
        self.inner_size() + 2 * self.num_groups * self.state_size
    }

    /// Rows of the input projection: z, xBC and dt, in this order.
    pub const fn in_proj_size(&self) -> usize {
        self.inner_size() + self.conv_size() + self.num_heads
    }
}

/// Sizes of the attention layers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AttentionConfig {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; query head j attends with head j / (num_heads / num_kv_heads).
    pub num_kv_heads: usize,
    /// Channels per head; independent of the hidden size.
    pub head_dim: usize,
}

impl AttentionConfig {
    /// Rows of the query projection.
    pub const fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Rows of the key projection, and of the value projection.
    pub const fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
}

/// Sizes of the MLP layers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MlpConfig {
    /// Width between the two projections.
    pub intermediate_size: usize,
    /// Whether up and down projections have biases (`mlp_bias`); the shared expert of a MoE layer follows it.
    pub bias: bool,
}

/// Sizes and routing rules of the mixture-of-experts layers.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    /// Routed experts.
    pub num_experts: usize,
    /// Experts that each token visits.
    pub num_experts_per_token: usize,
    /// Width of one routed expert.
    pub intermediate_size: usize,
    /// Width of the expert that every token visits.
    pub shared_intermediate_size: usize,
    /// Width of the latent space in which the routed experts live, if it is not the hidden size itself.
    pub latent_size: Option<usize>,
    /// Groups of experts that the router ranks first.
    pub num_groups: usize,
    /// Groups that stay eligible, by the sum of their two best scores.
    pub num_groups_kept: usize,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub norm_topk_prob: bool,
    /// Factor on the weights of the chosen experts.
    pub routed_scaling_factor: f32,
}

/// A checked model configuration; see the module's description for what that promises.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Kind of each layer, in order.
    pub blocks: Vec<BlockKind>,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Rows of the embedding; token ids are below it.
    pub vocab_size: usize,
    /// Mamba-2 layers; meaningless zeros if there are none.
    pub mamba: MambaConfig,
    /// Attention layers; meaningless zeros if there are none.
    pub attention: AttentionConfig,
    /// MLP layers; a zero width if there are none.
    pub mlp: MlpConfig,
    /// Mixture-of-experts layers; present if and only if there are some.
    pub moe: Option<MoeConfig>,
    /// Added to the mean square in every RMS norm.
    pub norm_eps: f32,
    /// Whether the output matrix is the embedding.
    pub tie_word_embeddings: bool,
    /// Longest context the file claims. In GGUF files from llama.cpp's converter this is 1048576 whatever the
    /// model was trained for. Nothing in the architecture depends on it.
    pub max_position_embeddings: usize,
    /// Beginning-of-sequence token.
    pub bos_token_id: Option<u32>,
    /// End-of-sequence tokens of the model configuration; see also [`crate::Checkpoint::stop_token_ids`].
    pub eos_token_ids: Vec<u32>,
    /// Padding token.
    pub pad_token_id: Option<u32>,
}

impl Config {
    /// The layers as a `hybrid_override_pattern`, such as `M-M*-`.
    pub fn pattern(&self) -> String {
        self.blocks.iter().map(|b| b.symbol()).collect()
    }

    /// Number of layers of one kind.
    pub fn num_blocks(&self, kind: BlockKind) -> usize {
        self.blocks.iter().filter(|&&b| b == kind).count()
    }

    /// Whether there is a layer of this kind.
    pub fn has(&self, kind: BlockKind) -> bool {
        self.blocks.contains(&kind)
    }
}
