//! The header of a safetensors file.

use tangelo_formats::safetensors::parse_header;

use super::{Target, fixtures};

pub(super) const TARGET: Target = Target {
    name: "safetensors",
    what: "header of a safetensors file",
    run: target,
    seeds: || fixtures(&["tiny/model.safetensors", "moe_latent/model.safetensors"]),
    dictionary: &[
        "\"dtype\":\"BF16\"",
        "\"F8_E4M3\"",
        "\"U64\"",
        "\"shape\":[]",
        "\"shape\":[0]",
        "\"data_offsets\":[0,0]",
        "\"__metadata__\":{\"a\":\"b\"},",
        "18446744073709551615",
    ],
};

/// Parses the header; the tensors it places must lie in the file.
pub fn target(data: &[u8]) -> bool {
    let Ok(header) = parse_header(data, data.len()) else { return false };
    for tensor in &header.tensors {
        assert!(data.get(tensor.range.clone()).is_some(), "{} lies outside the file", tensor.name);
    }
    true
}
