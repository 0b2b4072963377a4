//! `config.json` in both vocabularies of layers, and everything that is derived from it.

use tangelo_formats::Config;
use tangelo_formats::gguf::{arch, names};

use super::{Target, fixtures};

pub(super) const TARGET: Target = Target {
    name: "config",
    what: "config.json and what is derived from it",
    run: target,
    seeds: || {
        let models = ["tiny", "odd", "moe", "moe_latent", "shape4b"];
        fixtures(&models.map(|m| format!("{m}/config.json")).each_ref().map(String::as_str))
    },
    dictionary: &[
        "\"hybrid_override_pattern\": \"M-M*E\"",
        "\"layers_block_type\": [\"mamba\", \"moe\", \"attention\", \"mlp\"]",
        "\"num_hidden_layers\":",
        "{\"__float__\": \"Infinity\"}",
        "Infinity",
        "\"n_routed_experts\":",
        "\"moe_latent_size\":",
        "\"time_step_limit\": [0, Infinity]",
        "M*-E",
    ],
};

/// Reads a configuration, lists its tensors and writes it in both formats.
pub fn target(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(config) = Config::from_json(text) else { return false };
    assert_eq!(config.pattern().len(), config.blocks.len(), "one letter per layer");
    let _ = config.num_parameters();
    let _ = names::from_config(&config);
    let _ = arch::metadata_from_config(&config, "fuzz");
    let again = Config::from_json(&config.to_json()).expect("what we write we can read");
    assert_eq!(again, config, "what we write means the same");
    true
}
