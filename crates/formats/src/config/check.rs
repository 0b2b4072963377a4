//! The checks that every configuration passes, whatever file it comes from.

use tangelo_core::limits::{CONV_KERNEL_MAX, EXPERTS_MAX, HEADS_MAX, LAYERS_MAX, TENSORS_MAX, WIDTH_MAX};

use super::{AttentionConfig, BlockKind, Config, MambaConfig, MoeConfig};
use crate::error::{Error, Result};

/// Most positions a configuration may claim: positions are counted in 32 bits.
const POSITIONS_MAX: usize = u32::MAX as usize;

impl Config {
    /// Refuses sizes that are zero, absurd or do not divide as the architecture requires.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key as `config.json` spells it.
    pub fn check(&self) -> Result<()> {
        size("number of layers", self.blocks.len(), LAYERS_MAX)?;
        size("hidden_size", self.hidden_size, WIDTH_MAX)?;
        size("vocab_size", self.vocab_size, WIDTH_MAX)?;
        size("max_position_embeddings", self.max_position_embeddings, POSITIONS_MAX)?;
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            let problem = format!("must be a positive number, found {}", self.norm_eps);
            return Err(Error::config("layer_norm_epsilon", problem));
        }
        if self.has(BlockKind::Mamba) {
            check_mamba(&self.mamba)?;
        }
        if self.has(BlockKind::Attention) {
            check_attention(&self.attention)?;
        }
        if self.has(BlockKind::Mlp) {
            size("intermediate_size", self.mlp.intermediate_size, WIDTH_MAX)?;
        }
        match (&self.moe, self.num_blocks(BlockKind::Moe)) {
            (None, 0) => Ok(()),
            (Some(moe), layers @ 1..) => check_moe(moe, layers),
            (None, _) => {
                Err(Error::config("n_routed_experts", "is required by the mixture-of-experts layers"))
            }
            (Some(_), 0) => Err(Error::config("n_routed_experts", "is given but no layer has experts")),
        }
    }
}

fn check_mamba(m: &MambaConfig) -> Result<()> {
    size("mamba_num_heads", m.num_heads, HEADS_MAX)?;
    size("mamba_head_dim", m.head_dim, WIDTH_MAX)?;
    size("ssm_state_size", m.state_size, WIDTH_MAX)?;
    size("n_groups", m.num_groups, HEADS_MAX)?;
    size("conv_kernel", m.conv_kernel, CONV_KERNEL_MAX)?;
    product("mamba_num_heads", "mamba_head_dim", m.num_heads, m.head_dim)?;
    product("n_groups", "ssm_state_size", m.num_groups, m.state_size)?;
    divides("mamba_num_heads", m.num_heads, "n_groups", m.num_groups)?;
    let (low, high) = m.time_step_limit;
    if !(low >= 0.0 && low <= high) {
        let problem = format!("must be a range of non-negative numbers, found [{low}, {high}]");
        return Err(Error::config("time_step_limit", problem));
    }
    Ok(())
}

fn check_attention(a: &AttentionConfig) -> Result<()> {
    size("num_attention_heads", a.num_heads, HEADS_MAX)?;
    size("num_key_value_heads", a.num_kv_heads, HEADS_MAX)?;
    size("head_dim", a.head_dim, WIDTH_MAX)?;
    product("num_attention_heads", "head_dim", a.num_heads, a.head_dim)?;
    divides("num_attention_heads", a.num_heads, "num_key_value_heads", a.num_kv_heads)
}

fn check_moe(moe: &MoeConfig, layers: usize) -> Result<()> {
    size("n_routed_experts", moe.num_experts, EXPERTS_MAX)?;
    size("moe_intermediate_size", moe.intermediate_size, WIDTH_MAX)?;
    size("moe_shared_expert_intermediate_size", moe.shared_intermediate_size, WIDTH_MAX)?;
    if let Some(latent) = moe.latent_size {
        size("moe_latent_size", latent, WIDTH_MAX)?;
    }
    size("num_experts_per_tok", moe.num_experts_per_token, moe.num_experts)?;
    size("n_group", moe.num_groups, moe.num_experts)?;
    size("topk_group", moe.num_groups_kept, moe.num_groups)?;
    divides("n_routed_experts", moe.num_experts, "n_group", moe.num_groups)?;
    let group_size = moe.num_experts / moe.num_groups;
    if moe.num_groups > 1 && group_size < 2 {
        return Err(Error::config(
            "n_group",
            "leaves one expert per group, but groups are ranked by their best two",
        ));
    }
    let eligible = group_size * moe.num_groups_kept;
    if moe.num_experts_per_token > eligible {
        let problem = format!("is {}, but only {eligible} experts are eligible", moe.num_experts_per_token);
        return Err(Error::config("num_experts_per_tok", problem));
    }
    if !moe.routed_scaling_factor.is_finite() {
        return Err(Error::config("routed_scaling_factor", "must be a finite number"));
    }
    // Two tensors per expert and layer: bounds what `Config::tensors` lists.
    let tensors = layers as u64 * moe.num_experts as u64 * 2;
    if tensors > TENSORS_MAX {
        let what = "the number of expert tensors that the configuration implies".to_string();
        return Err(Error::TooLarge { what, found: tensors, limit: TENSORS_MAX });
    }
    Ok(())
}

/// A positive size of at most `limit`.
fn size(key: &str, found: usize, limit: usize) -> Result<()> {
    if found == 0 || found > limit {
        return Err(Error::config(key, format!("must be between 1 and {limit}, found {found}")));
    }
    Ok(())
}

/// A width that is the product of two sizes.
fn product(a_key: &str, b_key: &str, a: usize, b: usize) -> Result<()> {
    match a.checked_mul(b) {
        Some(width) if width <= WIDTH_MAX => Ok(()),
        _ => {
            Err(Error::config(a_key, format!("times `{b_key}` is {a} × {b}, above the limit of {WIDTH_MAX}")))
        }
    }
}

fn divides(key: &str, number: usize, divisor_key: &str, divisor: usize) -> Result<()> {
    if !number.is_multiple_of(divisor) {
        return Err(Error::config(key, format!("is {number}, not a multiple of `{divisor_key}`, {divisor}")));
    }
    Ok(())
}
