//! A `config.json` as NVIDIA writes it, for the folders this program makes.

use serde_json::{Map, Value, json};

use super::{BlockKind, Config};

impl Config {
    /// The configuration as the text of a `config.json` that transformers and [`Config::from_json`] read.
    ///
    /// Sizes of layer kinds that the model does not have are left out. `time_step_limit` is written only if it
    /// clamps anything: its infinite bound has no spelling in standard JSON.
    pub fn to_json(&self) -> String {
        let mut object = Map::new();
        let mut set = |key: &str, value: Value| {
            object.insert(key.to_string(), value);
        };
        set("architectures", json!(["NemotronHForCausalLM"]));
        set("model_type", json!("nemotron_h"));
        set("hybrid_override_pattern", json!(self.pattern()));
        set("num_hidden_layers", json!(self.blocks.len()));
        set("hidden_size", json!(self.hidden_size));
        set("vocab_size", json!(self.vocab_size));
        set("max_position_embeddings", json!(self.max_position_embeddings));
        set("layer_norm_epsilon", number(self.norm_eps));
        set("tie_word_embeddings", json!(self.tie_word_embeddings));
        set("bos_token_id", json!(self.bos_token_id));
        set("eos_token_id", json!(self.eos_token_ids));
        set("pad_token_id", json!(self.pad_token_id));
        for (key, value) in self.block_fields() {
            set(key, value);
        }
        let mut text = format!("{:#}", Value::Object(object));
        text.push('\n');
        text
    }

    fn block_fields(&self) -> Vec<(&'static str, Value)> {
        let mut fields = Vec::new();
        if self.has(BlockKind::Mamba) {
            let m = &self.mamba;
            fields.extend([
                ("mamba_num_heads", json!(m.num_heads)),
                ("mamba_head_dim", json!(m.head_dim)),
                ("ssm_state_size", json!(m.state_size)),
                ("n_groups", json!(m.num_groups)),
                ("conv_kernel", json!(m.conv_kernel)),
                ("use_conv_bias", json!(m.conv_bias)),
                ("use_bias", json!(m.proj_bias)),
                ("mamba_hidden_act", json!("silu")),
            ]);
            if m.time_step_limit != (0.0, f32::INFINITY) {
                fields.push((
                    "time_step_limit",
                    json!([number(m.time_step_limit.0), number(m.time_step_limit.1)]),
                ));
            }
        }
        if self.has(BlockKind::Attention) {
            let a = &self.attention;
            fields.extend([
                ("num_attention_heads", json!(a.num_heads)),
                ("num_key_value_heads", json!(a.num_kv_heads)),
                ("head_dim", json!(a.head_dim)),
            ]);
        }
        fields.extend([("mlp_bias", json!(self.mlp.bias)), ("mlp_hidden_act", json!("relu2"))]);
        if self.has(BlockKind::Mlp) {
            fields.push(("intermediate_size", json!(self.mlp.intermediate_size)));
        }
        if let Some(moe) = &self.moe {
            fields.extend([
                ("n_routed_experts", json!(moe.num_experts)),
                ("n_shared_experts", json!(1)),
                ("num_experts_per_tok", json!(moe.num_experts_per_token)),
                ("moe_intermediate_size", json!(moe.intermediate_size)),
                ("moe_shared_expert_intermediate_size", json!(moe.shared_intermediate_size)),
                ("moe_latent_size", json!(moe.latent_size)),
                ("n_group", json!(moe.num_groups)),
                ("topk_group", json!(moe.num_groups_kept)),
                ("norm_topk_prob", json!(moe.norm_topk_prob)),
                ("routed_scaling_factor", number(moe.routed_scaling_factor)),
            ]);
        }
        fields
    }
}

/// The shortest decimal that reads back as `x`; infinity in transformers' spelling.
fn number(x: f32) -> Value {
    if x.is_infinite() {
        return json!({"__float__": if x > 0.0 { "Infinity" } else { "-Infinity" }});
    }
    // Through text: widening 1e-5f32 to f64 would print its binary expansion.
    x.to_string().parse::<serde_json::Number>().map_or(Value::Null, Value::Number)
}
