//! The table of tensor names: what llama.cpp's converter calls each tensor, what NVIDIA's checkpoints call it,
//! and how the two shapes relate.
//!
//! Nothing is ever copied to go from GGUF to checkpoint names: a transform is at most another shape for the
//! same bytes, or a slice of a stack. The exception goes by another name: `ssm_a` holds -exp(A_log), from
//! which A_log cannot be recovered bit for bit, so it appears as `mixer.A`.
//!
//! Rows of `attn_q` and `attn_k` are reordered by some converters (the two halves of each head interleaved, a
//! habit from rotary embeddings). Queries and keys are reordered alike, so no score changes, and since a file
//! does not say which order it has, they are left as they are.

use std::ops::Range;

use tangelo_core::limits::EXPERTS_MAX;

use super::reader::TensorInfo;
use crate::config::Config;
use crate::error::{Error, Result, shown};

/// How the shape in a GGUF file (row-major) relates to the shape in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The same.
    Same,
    /// `[heads, 1]` for `[heads]`.
    Column,
    /// `[heads, 1]` for `[heads]`, and the value is -exp of the checkpoint's `A_log`.
    NegativeExp,
    /// `[groups, width / groups]` for `[width]`.
    Groups,
    /// `[channels, taps]` for `[channels, 1, taps]`.
    Convolution,
    /// `[experts, rows, columns]` for one `[rows, columns]` matrix per expert.
    Experts,
}

/// GGUF name, checkpoint name, layout; names of layers are without `blk.{i}.` and `backbone.layers.{i}.`.
struct Row(&'static str, &'static str, Layout);

const MODEL: [Row; 3] = [
    Row("token_embd.weight", "backbone.embeddings.weight", Layout::Same),
    Row("output_norm.weight", "backbone.norm_f.weight", Layout::Same),
    Row("output.weight", "lm_head.weight", Layout::Same),
];

/// Reading accepts every row; writing uses the first row of a checkpoint name.
const LAYER: [Row; 27] = [
    Row("attn_norm.weight", "norm.weight", Layout::Same),
    Row("ssm_in.weight", "mixer.in_proj.weight", Layout::Same),
    Row("ssm_conv1d.weight", "mixer.conv1d.weight", Layout::Convolution),
    Row("ssm_conv1d.bias", "mixer.conv1d.bias", Layout::Same),
    Row("ssm_dt.bias", "mixer.dt_bias", Layout::Same),
    Row("ssm_a", "mixer.A_log", Layout::NegativeExp),
    Row("ssm_d", "mixer.D", Layout::Column),
    Row("ssm_norm.weight", "mixer.norm.weight", Layout::Groups),
    Row("ssm_out.weight", "mixer.out_proj.weight", Layout::Same),
    Row("attn_q.weight", "mixer.q_proj.weight", Layout::Same),
    Row("attn_k.weight", "mixer.k_proj.weight", Layout::Same),
    Row("attn_v.weight", "mixer.v_proj.weight", Layout::Same),
    Row("attn_output.weight", "mixer.o_proj.weight", Layout::Same),
    Row("ffn_up.weight", "mixer.up_proj.weight", Layout::Same),
    Row("ffn_up.bias", "mixer.up_proj.bias", Layout::Same),
    Row("ffn_down.weight", "mixer.down_proj.weight", Layout::Same),
    Row("ffn_down.bias", "mixer.down_proj.bias", Layout::Same),
    Row("ffn_gate_inp.weight", "mixer.gate.weight", Layout::Same),
    Row("exp_probs_b.bias", "mixer.gate.e_score_correction_bias", Layout::Same),
    Row("ffn_up_exps.weight", "mixer.experts.{e}.up_proj.weight", Layout::Experts),
    Row("ffn_down_exps.weight", "mixer.experts.{e}.down_proj.weight", Layout::Experts),
    Row("ffn_up_shexp.weight", "mixer.shared_experts.up_proj.weight", Layout::Same),
    Row("ffn_down_shexp.weight", "mixer.shared_experts.down_proj.weight", Layout::Same),
    Row("ffn_latent_down.weight", "mixer.fc1_latent_proj.weight", Layout::Same),
    Row("ffn_latent_up.weight", "mixer.fc2_latent_proj.weight", Layout::Same),
    // As ollama's converter names the two.
    Row("ffn_latent_in.weight", "mixer.fc1_latent_proj.weight", Layout::Same),
    Row("ffn_latent_out.weight", "mixer.fc2_latent_proj.weight", Layout::Same),
];

/// Where the numeric part of an expert's name goes.
const EXPERT: &str = "{e}";

/// A tensor of a GGUF file, or a slice of one, under its checkpoint name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Checkpoint name.
    pub name: String,
    /// Checkpoint shape.
    pub shape: Vec<usize>,
    /// Bytes in the file.
    pub range: Range<usize>,
}

/// The checkpoint tensors that a GGUF tensor holds; one, except for stacked experts.
///
/// Returns `None` for a name that is not in the table.
///
/// # Errors
/// [`Error::Gguf`] if the tensor has another number of dimensions than its layout,
/// [`Error::TooLarge`] above [`EXPERTS_MAX`].
pub fn to_checkpoint(tensor: &TensorInfo) -> Result<Option<Vec<Mapped>>> {
    let (prefix, row) = match tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, name)) => {
            let Ok(layer) = layer.parse::<usize>() else { return Ok(None) };
            (format!("backbone.layers.{layer}."), LAYER.iter().find(|row| row.0 == name))
        }
        None => (String::new(), MODEL.iter().find(|row| row.0 == tensor.name)),
    };
    let Some(Row(_, checkpoint_name, layout)) = row else { return Ok(None) };
    let name = format!("{prefix}{checkpoint_name}");
    let range = tensor.range.clone();
    let one = |name, shape| Ok(Some(vec![Mapped { name, shape, range: range.clone() }]));
    match (layout, tensor.shape.as_slice()) {
        (Layout::Same, shape) => one(name, shape.to_vec()),
        (Layout::Column | Layout::Groups, shape) => one(name, vec![shape.iter().product()]),
        (Layout::NegativeExp, shape) => one(name.replace("A_log", "A"), vec![shape.iter().product()]),
        (Layout::Convolution, &[channels, taps]) => one(name, vec![channels, 1, taps]),
        (Layout::Experts, &[experts, ..]) if experts > EXPERTS_MAX => {
            let what = format!("the number of experts in tensor `{}`", shown(&tensor.name));
            Err(Error::TooLarge { what, found: experts as u64, limit: EXPERTS_MAX as u64 })
        }
        (Layout::Experts, &[experts, rows, columns]) => {
            let bytes_per_expert = range.len().checked_div(experts).unwrap_or(0);
            let expert = |e: usize| {
                let start = range.start + e * bytes_per_expert;
                Mapped {
                    name: name.replace(EXPERT, &e.to_string()),
                    shape: vec![rows, columns],
                    range: start..start + bytes_per_expert,
                }
            };
            Ok(Some((0..experts).map(expert).collect()))
        }
        (Layout::Convolution | Layout::Experts, found) => {
            let dimensions = if *layout == Layout::Experts { 3 } else { 2 };
            let problem = format!(
                "tensor `{}` has shape {found:?}; {dimensions} dimensions are expected",
                shown(&tensor.name)
            );
            Err(Error::Gguf { offset: range.start, problem })
        }
    }
}

/// A tensor to write into a GGUF file and where its values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// GGUF name.
    pub name: String,
    /// Row-major shape in the GGUF file.
    pub shape: Vec<usize>,
    /// Checkpoint tensors whose values follow one another in it; several for stacked experts.
    pub sources: Vec<String>,
    /// Relation between the two; [`Layout::NegativeExp`] is the only one that changes values.
    pub layout: Layout,
}

/// The tensors of the GGUF file of a model, in checkpoint order: the inverse of [`to_checkpoint`].
///
/// # Errors
/// [`Error::Config`] if the configuration fails [`Config::check`] or the model has something that GGUF has no place
/// for (projection biases, for instance).
pub fn from_config(config: &Config) -> Result<Vec<GgufTensor>> {
    config.check()?;
    let mut list: Vec<GgufTensor> = Vec::new();
    for spec in config.tensors() {
        let (name, layout) = to_gguf(&spec.name).ok_or_else(|| {
            let problem =
                format!("`{}` has no counterpart in GGUF; keep this model in safetensors", spec.name);
            Error::config("tensors", problem)
        })?;
        let shape = match (layout, spec.shape.as_slice()) {
            (Layout::Column | Layout::NegativeExp, &[heads]) => vec![heads, 1],
            (Layout::Groups, &[width]) => vec![config.mamba.num_groups, width / config.mamba.num_groups],
            (Layout::Convolution, &[channels, _, taps]) => vec![channels, taps],
            (Layout::Experts, &[rows, columns]) => vec![1, rows, columns],
            (_, shape) => shape.to_vec(),
        };
        // Experts of one layer are interleaved in checkpoint order: up, down, up, down.
        let stack = list.iter_mut().rev().take(2).find(|t| layout == Layout::Experts && t.name == name);
        match stack {
            Some(stack) => {
                stack.sources.push(spec.name);
                if let Some(experts) = stack.shape.first_mut() {
                    *experts += 1;
                }
            }
            None => list.push(GgufTensor { name, shape, sources: vec![spec.name], layout }),
        }
    }
    Ok(list)
}

/// GGUF name and layout of a checkpoint tensor.
fn to_gguf(checkpoint_name: &str) -> Option<(String, Layout)> {
    let find = |rows: &'static [Row], name: &str| rows.iter().find(|row| row.1 == name);
    let Some(rest) = checkpoint_name.strip_prefix("backbone.layers.") else {
        return find(&MODEL, checkpoint_name).map(|row| (row.0.to_string(), row.2));
    };
    let (layer, name) = rest.split_once('.')?;
    let row = match name.strip_prefix("mixer.experts.").and_then(|rest| rest.split_once('.')) {
        Some((_, tail)) => find(&LAYER, &format!("mixer.experts.{EXPERT}.{tail}")),
        None => find(&LAYER, name),
    }?;
    Some((format!("blk.{layer}.{}", row.0), row.2))
}

#[cfg(test)]
mod tests {
    use tangelo_core::DType;

    use super::*;
    use crate::config::shapes;
    use crate::tensor::storage_bytes;

    /// Every tensor of every published shape survives the way to GGUF and back.
    #[test]
    fn the_table_is_its_own_inverse() {
        for name in shapes::NAMES {
            let config = shapes::named(name).unwrap();
            let mut expected: Vec<_> = config.tensors();
            for spec in &mut expected {
                spec.name = spec.name.replace("A_log", "A");
            }
            let mut found = Vec::new();
            for t in from_config(&config).unwrap() {
                let bytes = storage_bytes(DType::F32, &t.shape).unwrap();
                let info =
                    TensorInfo { name: t.name, dtype: DType::F32, shape: t.shape, range: 64..64 + bytes };
                let mapped = to_checkpoint(&info).unwrap().unwrap();
                assert_eq!(mapped.len(), t.sources.len());
                assert_eq!(mapped.first().unwrap().range.start, info.range.start);
                assert_eq!(mapped.last().unwrap().range.end, info.range.end);
                found.extend(mapped.into_iter().map(|m| (m.name, m.shape)));
            }
            let mut expected: Vec<_> = expected.into_iter().map(|s| (s.name, s.shape)).collect();
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn unknown_names_are_none_and_wrong_ranks_are_errors() {
        let info = |name: &str, shape: &[usize]| TensorInfo {
            name: name.into(),
            dtype: DType::F32,
            shape: shape.to_vec(),
            range: 0..4,
        };
        for name in ["blk.0.attn_q.bias", "blk.x.attn_q.weight", "blk.0", "rope_freqs.weight", ""] {
            assert_eq!(to_checkpoint(&info(name, &[1])).unwrap(), None, "{name}");
        }
        let error = to_checkpoint(&info("blk.0.ffn_up_exps.weight", &[1])).unwrap_err();
        assert!(error.to_string().contains("blk.0.ffn_up_exps.weight"), "{error}");
    }

    #[test]
    fn what_gguf_cannot_hold_is_refused() {
        let mut config = shapes::named("nemotron-h-4b").unwrap();
        config.mamba.proj_bias = true;
        let error = from_config(&config).unwrap_err().to_string();
        assert!(error.contains("backbone.layers.0.mixer.in_proj.bias"), "{error}");
    }
}
