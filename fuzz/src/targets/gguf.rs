//! A GGUF file: header, tensor directory, the configuration and the tokenizer inside it.

use tangelo_formats::gguf::{Gguf, arch, names, parse};
use tangelo_formats::tokenizer::{EncodeOptions, GgufVocabulary, Tokenizer};

use super::{Target, fixtures};

pub(super) const TARGET: Target = Target {
    name: "gguf",
    what: "GGUF header, directory, configuration and tokenizer",
    run: target,
    seeds: || fixtures(&["tiny/gguf/bf16.gguf", "moe/gguf/bf16.gguf", "quantised/tiny-Q5_0.gguf"]),
    dictionary: &[
        "GGUF",
        "general.alignment",
        "general.architecture",
        "nemotron_h",
        "nemotron_h_moe",
        ".block_count",
        ".attention.head_count_kv",
        ".ssm.group_count",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
        "blk.0.ssm_in.weight",
        "\u{9}\0\0\0",
        "\u{8}\0\0\0",
    ],
};

/// Parses the file and everything its metadata describes.
pub fn target(data: &[u8]) -> bool {
    let Ok(gguf) = parse(data) else { return false };
    for tensor in &gguf.tensors {
        assert!(data.get(tensor.range.clone()).is_some(), "{} lies outside the file", tensor.name);
        let _ = names::to_checkpoint(tensor);
    }
    if let Ok(config) = arch::config_from_gguf(&gguf) {
        let _ = names::from_config(&config);
    }
    if let Some(tokenizer) = tokenizer(&gguf) {
        let ids = tokenizer.encode("Hello <think> 12\n", EncodeOptions::PROMPT).unwrap_or_default();
        let _ = tokenizer.decode(&ids, false);
    }
    true
}

/// The tokenizer, if the metadata holds the parts of one.
fn tokenizer(gguf: &Gguf) -> Option<Tokenizer> {
    let metadata = &gguf.metadata;
    let strings = |key: &str| -> Option<Vec<String>> {
        let strings = metadata.get_str_array(key).ok()??;
        Some(strings.iter().map(str::to_string).collect())
    };
    let (tokens, merges) = (strings("tokenizer.ggml.tokens")?, strings("tokenizer.ggml.merges")?);
    let token_types = metadata.get_i32_array("tokenizer.ggml.token_type").ok()?.unwrap_or_default();
    let vocabulary = GgufVocabulary {
        model: metadata.get_str("tokenizer.ggml.model").ok()??,
        pre: metadata.get_str("tokenizer.ggml.pre").ok()??,
        tokens: &tokens,
        token_types: &token_types,
        merges: &merges,
        bos: metadata.get_u32("tokenizer.ggml.bos_token_id").ok()?,
        eos: metadata.get_u32("tokenizer.ggml.eos_token_id").ok()?,
        add_bos: metadata.get_bool("tokenizer.ggml.add_bos_token").ok()?,
    };
    Tokenizer::from_gguf_parts(&vocabulary).ok()
}
