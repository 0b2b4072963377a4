//! FP8 checkpoints as NVIDIA's ModelOpt exports them, and as the published FP8 models of this family are made.
//!
//! A quantised linear layer `X` has `X.weight` (F8_E4M3), `X.weight_scale` and `X.input_scale` (F32 scalars, largest
//! magnitude / 448); attention layers have `k_proj.k_scale` and `v_proj.v_scale` for an FP8 cache. W = weight ·
//! weight_scale. Left alone are the attention layers, the Mamba layers that feed them, the convolutions, router and
//! latent projections of expert layers, embedding and output matrix: the list of the published models.

use serde_json::{Value, json};
use tangelo_formats::config::{BlockKind, Config};

use super::values::Values;

/// Largest finite E4M3 value.
const E4M3_MAX: f64 = 448.0;
/// What calibration would have found as the largest input of a linear layer; inputs are normed or squared normal
/// variables, of which a few million stay below this.
const INPUT_MAX: f64 = 64.0;
/// The same for keys and values.
const CACHE_MAX: f64 = 16.0;

/// A scalar stored beside the tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// Checkpoint name.
    pub name: String,
    /// Its value.
    pub value: f32,
}

/// Whether the published recipe stores this tensor in FP8.
pub fn is_quantised(config: &Config, name: &str) -> bool {
    let Some((layer, rest)) = name.strip_prefix("backbone.layers.").and_then(|rest| rest.split_once('.'))
    else {
        return false;
    };
    let Ok(layer) = layer.parse::<usize>() else { return false };
    let is_linear = ["in_proj.weight", "out_proj.weight", "up_proj.weight", "down_proj.weight"]
        .iter()
        .any(|end| rest.ends_with(end));
    is_linear && !is_excluded(config, layer)
}

/// Attention layers, and Mamba layers right before one.
fn is_excluded(config: &Config, layer: usize) -> bool {
    let kind = |i: usize| config.blocks.get(i).copied();
    let feeds_attention =
        kind(layer) == Some(BlockKind::Mamba) && kind(layer + 1) == Some(BlockKind::Attention);
    kind(layer) == Some(BlockKind::Attention) || feeds_attention
}

/// The scale of a weight: its largest possible magnitude, which a tensor of any size all but reaches, over 448.
pub fn weight_scale(values: &Values) -> f32 {
    ((values.centre.abs() + values.half_width) / E4M3_MAX) as f32
}

/// The scalars of a tensor of the checkpoint.
pub fn scales(config: &Config, name: &str, values: &Values) -> Vec<Scale> {
    let Some(module) = name.strip_suffix(".weight") else { return Vec::new() };
    let scale = |suffix: &str, value: f32| Scale { name: format!("{module}.{suffix}"), value };
    if is_quantised(config, name) {
        return vec![
            scale("weight_scale", weight_scale(values)),
            scale("input_scale", (INPUT_MAX / E4M3_MAX) as f32),
        ];
    }
    let cache = (CACHE_MAX / E4M3_MAX) as f32;
    match module.rsplit('.').next() {
        Some("k_proj") => vec![scale("k_scale", cache)],
        Some("v_proj") => vec![scale("v_scale", cache)],
        _ => Vec::new(),
    }
}

/// The modules left alone, as ModelOpt lists them.
fn excluded(config: &Config) -> Vec<String> {
    let mut names = vec!["backbone.embeddings".to_string(), "lm_head".to_string()];
    for spec in config.tensors() {
        let Some(module) = spec.name.strip_suffix(".weight") else { continue };
        let is_norm = module.ends_with("norm") || module.ends_with("norm_f");
        if !is_norm && !is_quantised(config, &spec.name) && !names.iter().any(|n| n == module) {
            names.push(module.to_string());
        }
    }
    names
}

/// `quantization_config` of `config.json`.
pub fn quantization_config(config: &Config) -> Value {
    let float8 = json!({ "dynamic": false, "num_bits": 8, "type": "float" });
    json!({
        "config_groups": {
            "group_0": { "input_activations": float8, "weights": float8, "targets": ["Linear"] },
        },
        "ignore": excluded(config),
        "quant_algo": "FP8",
        "kv_cache_scheme": float8,
        "producer": { "name": "tangelo", "version": env!("CARGO_PKG_VERSION") },
        "quant_method": "modelopt",
    })
}

/// The text of `hf_quant_config.json`.
pub fn hf_quant_config(config: &Config) -> Value {
    json!({
        "producer": { "name": "tangelo", "version": env!("CARGO_PKG_VERSION") },
        "quantization": {
            "quant_algo": "FP8",
            "kv_cache_quant_algo": "FP8",
            "exclude_modules": excluded(config),
        },
    })
}

#[cfg(test)]
mod tests {
    use tangelo_formats::config::shapes;

    use super::*;

    /// model card and size of the published FP8 repository: 17 Mamba layers and 17 MLPs are quantised.
    #[test]
    fn the_4b_is_quantised_like_the_published_one() {
        let config = shapes::named("nemotron-3-nano-4b").expect("a shape");
        let specs = config.tensors();
        let quantised: Vec<_> = specs.iter().filter(|s| is_quantised(&config, &s.name)).collect();
        let of = |end: &str| quantised.iter().filter(|s| s.name.ends_with(end)).count();
        assert_eq!((of("in_proj.weight"), of("out_proj.weight")), (17, 17));
        assert_eq!((of("up_proj.weight"), of("down_proj.weight")), (17, 17));
        assert_eq!(quantised.len(), 68);
        for layer in [11, 16, 23, 31] {
            assert!(!is_quantised(&config, &format!("backbone.layers.{layer}.mixer.in_proj.weight")));
        }
        let ignored = excluded(&config);
        assert!(ignored.contains(&"backbone.layers.11.mixer.in_proj".to_string()));
        assert!(ignored.contains(&"backbone.layers.0.mixer.conv1d".to_string()));
        assert!(!ignored.iter().any(|n| n.contains("norm") || n.ends_with("layers.0.mixer.in_proj")));
        let fp8: u64 = quantised.iter().map(|s| s.num_elements()).sum();
        let bytes = fp8 + 2 * (config.num_parameters() - fp8);
        assert!((4.88..4.95).contains(&(bytes as f64 / (1u64 << 30) as f64)), "{bytes} bytes");
    }

    #[test]
    fn scales_stand_beside_what_they_scale() {
        let config = shapes::named("nemotron-3-nano-4b").expect("a shape");
        let values = Values { stream: 0, centre: 0.0, half_width: 0.25, round_to_bf16: true };
        let names = |name: &str| -> Vec<String> {
            scales(&config, name, &values).into_iter().map(|s| s.name).collect()
        };
        assert_eq!(
            names("backbone.layers.0.mixer.in_proj.weight"),
            ["backbone.layers.0.mixer.in_proj.weight_scale", "backbone.layers.0.mixer.in_proj.input_scale"]
        );
        assert_eq!(
            names("backbone.layers.12.mixer.k_proj.weight"),
            ["backbone.layers.12.mixer.k_proj.k_scale"]
        );
        assert_eq!(names("backbone.layers.12.mixer.q_proj.weight"), [] as [&str; 0]);
        assert_eq!(names("backbone.layers.0.mixer.A_log"), [] as [&str; 0]);
    }
}
