//! `generation_config.json`.

use tangelo_formats::GenerationConfig;

use super::{Target, fixtures};

pub(super) const TARGET: Target = Target {
    name: "generation",
    what: "generation_config.json",
    run: target,
    seeds: || fixtures(&["tiny/generation_config.json", "odd/generation_config.json"]),
    dictionary: &[
        "\"eos_token_id\": [2, 11]",
        "\"eos_token_id\": 2",
        "\"temperature\":",
        "\"top_k\":",
        "null",
    ],
};

/// Reads the defaults of sampling.
pub fn target(data: &[u8]) -> bool {
    std::str::from_utf8(data).is_ok_and(|text| GenerationConfig::from_json(text).is_ok())
}
