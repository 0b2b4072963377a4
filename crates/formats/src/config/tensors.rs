//! Every tensor a configuration implies, with NVIDIA's names and shapes.
//!
//! Used to count parameters, to check that a checkpoint is complete, and to write one.

use super::{BlockKind, Config};

/// Name and shape of a tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Checkpoint name, `backbone.…` or `lm_head.weight`.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Number of elements, saturating.
    pub fn num_elements(&self) -> u64 {
        self.shape.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64))
    }
}

impl Config {
    /// All tensors, in the order of the published checkpoints: embedding, layers, final norm, output matrix.
    /// Experts are listed one by one. A tied output matrix is not listed.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = List(Vec::new());
        let d = self.hidden_size;
        list.push("backbone", "embeddings.weight", &[self.vocab_size, d]);
        for (i, &kind) in self.blocks.iter().enumerate() {
            let layer = format!("backbone.layers.{i}");
            list.push(&layer, "norm.weight", &[d]);
            let mixer = format!("{layer}.mixer");
            match kind {
                BlockKind::Mamba => self.mamba_tensors(&mut list, &mixer),
                BlockKind::Attention => self.attention_tensors(&mut list, &mixer),
                BlockKind::Mlp => {
                    let inner = self.mlp.intermediate_size;
                    list.mlp(&mixer, d, inner, self.mlp.bias);
                }
                BlockKind::Moe => self.moe_tensors(&mut list, &mixer),
            }
        }
        list.push("backbone", "norm_f.weight", &[d]);
        if !self.tie_word_embeddings {
            list.push("lm_head", "weight", &[self.vocab_size, d]);
        }
        list.0
    }

    /// Number of parameters: the elements of [`Config::tensors`].
    pub fn num_parameters(&self) -> u64 {
        self.tensors().iter().fold(0u64, |sum, t| sum.saturating_add(t.num_elements()))
    }

    fn mamba_tensors(&self, list: &mut List, mixer: &str) {
        let (d, m) = (self.hidden_size, &self.mamba);
        list.push(mixer, "A_log", &[m.num_heads]);
        list.push(mixer, "D", &[m.num_heads]);
        list.push(mixer, "conv1d.weight", &[m.conv_size(), 1, m.conv_kernel]);
        if m.conv_bias {
            list.push(mixer, "conv1d.bias", &[m.conv_size()]);
        }
        list.push(mixer, "dt_bias", &[m.num_heads]);
        list.linear(mixer, "in_proj", m.in_proj_size(), d, m.proj_bias);
        list.push(mixer, "norm.weight", &[m.inner_size()]);
        list.linear(mixer, "out_proj", d, m.inner_size(), m.proj_bias);
    }

    fn attention_tensors(&self, list: &mut List, mixer: &str) {
        let (d, a) = (self.hidden_size, &self.attention);
        list.linear(mixer, "q_proj", a.q_size(), d, false);
        list.linear(mixer, "k_proj", a.kv_size(), d, false);
        list.linear(mixer, "v_proj", a.kv_size(), d, false);
        list.linear(mixer, "o_proj", d, a.q_size(), false);
    }

    fn moe_tensors(&self, list: &mut List, mixer: &str) {
        let Some(moe) = &self.moe else { return };
        let d = self.hidden_size;
        list.push(mixer, "gate.weight", &[moe.num_experts, d]);
        list.push(mixer, "gate.e_score_correction_bias", &[moe.num_experts]);
        let width = moe.latent_size.unwrap_or(d);
        for e in 0..moe.num_experts {
            list.mlp(&format!("{mixer}.experts.{e}"), width, moe.intermediate_size, false);
        }
        list.mlp(&format!("{mixer}.shared_experts"), d, moe.shared_intermediate_size, self.mlp.bias);
        if let Some(latent) = moe.latent_size {
            list.linear(mixer, "fc1_latent_proj", latent, d, self.mlp.bias);
            list.linear(mixer, "fc2_latent_proj", d, latent, self.mlp.bias);
        }
    }
}

struct List(Vec<TensorSpec>);

impl List {
    fn push(&mut self, prefix: &str, name: &str, shape: &[usize]) {
        self.0.push(TensorSpec { name: format!("{prefix}.{name}"), shape: shape.to_vec() });
    }

    fn linear(&mut self, prefix: &str, name: &str, rows: usize, columns: usize, bias: bool) {
        self.push(prefix, &format!("{name}.weight"), &[rows, columns]);
        if bias {
            self.push(prefix, &format!("{name}.bias"), &[rows]);
        }
    }

    fn mlp(&mut self, prefix: &str, outer: usize, inner: usize, bias: bool) {
        self.linear(prefix, "up_proj", inner, outer, bias);
        self.linear(prefix, "down_proj", outer, inner, bias);
    }
}
