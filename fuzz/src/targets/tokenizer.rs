//! `tokenizer.json`, and encoding with whatever it describes.

use tangelo_formats::tokenizer::{EncodeOptions, Tokenizer};

use super::{Target, fixtures};

pub(super) const TARGET: Target = Target {
    name: "tokenizer",
    what: "tokenizer.json and encoding with it",
    run: target,
    seeds: || fixtures(&["tokenizer/tokenizer512/tokenizer.json"]),
    dictionary: &[
        "\"added_tokens\": []",
        "\"special\": true",
        "\"ignore_merges\": true",
        "\"type\": \"ByteLevel\"",
        "\"type\": \"Split\"",
        "\"Regex\": \"(a*)*b\"",
        "\"merges\": [\"a b\"]",
        "\"vocab\":",
        "\"post_processor\":",
        "\"id\": 4294967295",
    ],
};

/// A text with words, digits, added tokens and more than one script.
const TEXT: &str = "<|im_start|>user\nIt's 2024, naïve café — 日本語 🍊  x\r\n</think>";

/// Reads a tokenizer and sends a text through it and back.
pub fn target(data: &[u8]) -> bool {
    let Ok(tokenizer) = Tokenizer::from_json(data) else { return false };
    for options in [EncodeOptions::PROMPT, EncodeOptions::PLAIN, EncodeOptions::default()] {
        if let Ok(ids) = tokenizer.encode(TEXT, options) {
            let _ = tokenizer.decode(&ids, true);
            let _ = ids.iter().filter_map(|&id| tokenizer.token_bytes(id)).count();
        }
    }
    true
}
