//! Every bound on what a file or a caller may ask for. A number in a file above its bound is an error, never
//! an allocation.

/// Largest JSON header of a safetensors file (the format's own limit).
pub const SAFETENSORS_HEADER_BYTES_MAX: usize = 100_000_000;
/// Most key-value pairs in a GGUF header.
pub const GGUF_METADATA_MAX: u64 = 65_536;
/// Most tensors in one file.
pub const TENSORS_MAX: u64 = 1 << 20;
/// Most elements in one GGUF metadata array (a vocabulary has 131,072 entries, its merges 269,443).
pub const GGUF_ARRAY_LEN_MAX: u64 = 1 << 24;
/// Longest string in a GGUF header.
pub const GGUF_STRING_BYTES_MAX: u64 = 1 << 24;
/// Deepest nesting of GGUF metadata arrays.
pub const GGUF_ARRAY_DEPTH_MAX: usize = 4;
/// Most dimensions of a tensor.
pub const TENSOR_DIMS_MAX: usize = 8;
/// Largest config.json, generation_config.json or tokenizer_config.json.
pub const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Largest tokenizer.json.
pub const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
/// Most layers in a model.
pub const LAYERS_MAX: usize = 4096;
/// Largest width of any dimension of a model (hidden size, vocabulary, channels).
pub const WIDTH_MAX: usize = 1 << 24;
/// Most attention or Mamba heads in a layer.
pub const HEADS_MAX: usize = 1 << 16;
/// Widest causal convolution.
pub const CONV_KERNEL_MAX: usize = 64;
/// Most experts in a layer.
pub const EXPERTS_MAX: usize = 1 << 16;
/// Most token ids of a tokenizer (the largest published vocabularies have about 300,000).
pub const VOCABULARY_MAX: usize = 1 << 22;
/// Longest chat template.
pub const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// Longest prompt that a chat template may render (a context of a million tokens is about 4 MB of text).
pub const RENDERED_BYTES_MAX: usize = 64 << 20;
/// Most arguments of one tool call, and most tool calls in one message.
pub const TOOL_CALLS_MAX: usize = 1024;
/// Longest list of files of a repository on the hub.
pub const HUB_LISTING_BYTES_MAX: u64 = 16 << 20;
/// Largest JSON header of a `.state` file (some 200 bytes for each of up to four tensors per layer).
pub const STATE_HEADER_BYTES_MAX: u64 = 4 << 20;
/// Longest token path of a `.state` file.
pub const CONTEXT_TOKENS_MAX: usize = 1 << 24;
/// Most alternatives whose log-probabilities are reported per token.
pub const LOGPROBS_MAX: usize = 1024;
/// Most entries of a logit bias.
pub const LOGIT_BIAS_MAX: usize = 65_536;
/// Largest image of the kernels of a device that is taken from a file.
pub const KERNEL_IMAGE_BYTES_MAX: u64 = 256 << 20;
/// Longest JSON schema, regular expression or grammar that an answer may be constrained by.
pub const GRAMMAR_BYTES_MAX: usize = 2 << 20;
/// Most states with a name that a server keeps.
pub const NAMED_STATES_MAX: usize = 10_000;
/// Most bytes of what is kept beside such a state: its tokens and its conversation.
pub const NAMED_STATE_ENTRY_BYTES_MAX: u64 = 256 << 20;
/// Most tools that one MCP server may offer, and most pages that it may list them on.
pub const MCP_TOOLS_MAX: usize = 1024;
/// Longest definition of a tool of an MCP server: name, description and schema together, as JSON.
pub const MCP_TOOL_BYTES_MAX: usize = 128 << 10;
/// Longest result of a tool that the model is shown (some 16,000 tokens); the rest is cut off, and the model told so.
pub const TOOL_RESULT_BYTES_MAX: usize = 64 << 10;
/// Longest TOML file of a persona.
pub const PERSONA_BYTES_MAX: usize = 1 << 20;
/// Longest name of a persona.
pub const PERSONA_NAME_BYTES_MAX: usize = 64;
/// Most stop strings of one answer.
pub const STOP_STRINGS_MAX: usize = 16;
