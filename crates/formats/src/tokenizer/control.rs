//! The control tokens of Nemotron 3.

/// Those with a meaning; those up to [`CONTROL_TOKENS`] are `<SPECIAL_n>`.
const NAMED: [&str; 18] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
];

/// How many there are in tokenizers that are made here.
pub const CONTROL_TOKENS: usize = 32;

/// All of them, in the order of their numbers.
pub fn control_tokens() -> impl Iterator<Item = String> {
    (0..CONTROL_TOKENS)
        .map(|i| NAMED.get(i).map_or_else(|| format!("<SPECIAL_{i}>"), |name| (*name).to_string()))
}
