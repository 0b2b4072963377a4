//! The tokenizer inside a GGUF file.
//!
//! `tokenizer.ggml.tokens` and `.merges` are in the byte-level alphabet, as in `tokenizer.json`, but the split
//! expression is only named (`tokenizer.ggml.pre`): the names below and what they mean come from llama.cpp
//! `src/llama-vocab.cpp`. `tokenizer.ggml.token_type` says which tokens are added tokens.
//!
//! A beginning-of-sequence token is added only if `tokenizer.ggml.add_bos_token` is true. llama.cpp also adds one
//! for these pre-tokenizers when the key is absent; the Hugging Face tokenizer of the same models does not, and
//! the models were trained with the latter.

use std::collections::HashMap;

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::parts::{Affixes, Parts};
use super::{TokenId, TokenizerError};

/// The `tokenizer.ggml.*` metadata of a GGUF file, borrowed from its header.
#[derive(Debug, Clone)]
pub struct GgufVocabulary<'a> {
    /// `tokenizer.ggml.model`; must be `gpt2` (byte-level BPE).
    pub model: &'a str,
    /// `tokenizer.ggml.pre`: the name of the split expression.
    pub pre: &'a str,
    /// `tokenizer.ggml.tokens`: the id of a token is its index.
    pub tokens: &'a [String],
    /// `tokenizer.ggml.token_type`, one per token; empty if the file has none (then no token is special).
    pub token_types: &'a [i32],
    /// `tokenizer.ggml.merges`, `left right`, most urgent first.
    pub merges: &'a [String],
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<TokenId>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<TokenId>,
    /// `tokenizer.ggml.add_bos_token`; absent means no.
    pub add_bos: Option<bool>,
}

/// What a `tokenizer.ggml.pre` name stands for.
struct Pre {
    names: &'static [&'static str],
    /// Matches the pieces that are merged separately.
    split: &'static str,
    ignore_merges: bool,
}

/// The known pre-tokenizers. Adding one is adding a row.
const PRES: &[Pre] = &[
    Pre {
        names: &["pixtral", "llama-bpe", "llama3", "llama-v3"],
        split: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ignore_merges: true,
    },
    Pre {
        names: &["tekken"],
        split: r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ignore_merges: true,
    },
];

/// The numbers of `tokenizer.ggml.token_type` (`llama_token_type` in llama.cpp `include/llama.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenType {
    fn from_number(number: i32, id: usize) -> Result<Self, TokenizerError> {
        Ok(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => {
                return Err(TokenizerError::vocabulary(format!(
                    "tokenizer.ggml.token_type of token {id} is {number}, but only 1 to 6 are defined"
                )));
            }
        })
    }

    /// Whether a token of this type is found in the text before it is split, and if so whether it is special.
    fn added(self) -> Option<bool> {
        match self {
            Self::Unknown | Self::Control => Some(true),
            Self::UserDefined => Some(false),
            Self::Normal | Self::Unused | Self::Byte => None,
        }
    }
}

/// Reads the metadata into checked parts.
pub(super) fn read(source: &GgufVocabulary<'_>) -> Result<Parts, TokenizerError> {
    if source.model != "gpt2" {
        return Err(TokenizerError::Unsupported {
            what: "tokenizer.ggml.model",
            found: source.model.to_owned(),
            expected: "`gpt2`",
        });
    }
    let pre = find_pre(source.pre)?;
    if !source.token_types.is_empty() && source.token_types.len() != source.tokens.len() {
        return Err(TokenizerError::vocabulary(format!(
            "tokenizer.ggml.token_type has {} entries for {} tokens",
            source.token_types.len(),
            source.tokens.len()
        )));
    }
    let (vocabulary, added) = read_tokens(source)?;
    let before = match source.add_bos {
        Some(true) => vec![source.bos.ok_or_else(|| {
            TokenizerError::vocabulary("tokenizer.ggml.add_bos_token is true but there is no bos_token_id")
        })?],
        Some(false) | None => Vec::new(),
    };
    Ok(Parts {
        vocabulary,
        merges: read_merges(source.merges)?,
        ignore_merges: pre.ignore_merges,
        unknown: None,
        added,
        normalizer: None,
        pre_tokenizer: Some(pre_tokenizer(pre.split)?),
        affixes: Affixes { before, after: Vec::new() },
        bos: source.bos,
        eos: source.eos,
    })
}

fn find_pre(name: &str) -> Result<&'static Pre, TokenizerError> {
    PRES.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| TokenizerError::UnknownPre {
        found: name.to_owned(),
        known: PRES
            .iter()
            .flat_map(|pre| pre.names)
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", "),
    })
}

type Vocabulary = (HashMap<String, TokenId>, Vec<(TokenId, AddedToken)>);

fn read_tokens(source: &GgufVocabulary<'_>) -> Result<Vocabulary, TokenizerError> {
    let mut vocabulary = HashMap::with_capacity(source.tokens.len());
    let mut added = Vec::new();
    for (index, text) in source.tokens.iter().enumerate() {
        let id = TokenId::try_from(index)
            .map_err(|_| TokenizerError::vocabulary("there are more than 2^32 tokens"))?;
        let number = source.token_types.get(index).copied().unwrap_or(1);
        let token_type = TokenType::from_number(number, index)?;
        if let Some(other) = vocabulary.insert(text.clone(), id) {
            return Err(TokenizerError::vocabulary(format!("tokens {other} and {id} are both `{text}`")));
        }
        if let Some(special) = token_type.added() {
            added.push((id, AddedToken::from(text.as_str(), special).normalized(false)));
        }
    }
    Ok((vocabulary, added))
}

/// Splits `left right` at the first space after the first character (which may itself be anything), as llama.cpp
/// does.
fn read_merges(merges: &[String]) -> Result<Vec<(String, String)>, TokenizerError> {
    let split = |(rank, merge): (usize, &String)| {
        let first = merge.chars().next().map_or(0, char::len_utf8);
        merge
            .get(first..)
            .and_then(|rest| rest.find(' '))
            .and_then(|space| merge.split_at_checked(first.saturating_add(space)))
            .and_then(|(left, right)| Some((left.to_owned(), right.strip_prefix(' ')?.to_owned())))
            .ok_or_else(|| {
                TokenizerError::vocabulary(format!(
                    "merge {rank} is `{merge}`, not two tokens with a space between"
                ))
            })
    };
    merges.iter().enumerate().map(split).collect()
}

/// Splits by the expression, then writes the pieces in the byte-level alphabet.
fn pre_tokenizer(expression: &str) -> Result<PreTokenizerWrapper, TokenizerError> {
    let split =
        Split::new(SplitPattern::Regex(expression.to_owned()), SplitDelimiterBehavior::Isolated, false)
            .map_err(|error| {
                TokenizerError::vocabulary(format!("the split expression is invalid: {error}"))
            })?;
    let byte_level = ByteLevel::new(false, true, false);
    Ok(PreTokenizerWrapper::Sequence(Sequence::new(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(byte_level),
    ])))
}
