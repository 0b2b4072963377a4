//! Reads `tokenizer.json` and the part of `tokenizer_config.json` that belongs to it.
//!
//! The top level is read here rather than by `tokenizers::Tokenizer::from_bytes`, for three reasons: that function
//! panics on a merge whose result is not in the vocabulary; its tagged parts cannot hold numbers when `serde_json`
//! keeps numbers as text, as this workspace asks it to; and what is not byte-level BPE should be refused by name.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tangelo_core::limits::{CONFIG_BYTES_MAX, TOKENIZER_BYTES_MAX};
use tokenizers::AddedToken;

use super::parts::{Affixes, Parts};
use super::{TokenId, TokenizerError};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Option<Value>,
    #[serde(default)]
    post_processor: Option<Value>,
    #[serde(default)]
    decoder: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: TokenId,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    /// An object for BPE, a list for Unigram: kept as a value until the type is known to be BPE.
    #[serde(default)]
    vocab: Value,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    dropout: Option<Value>,
}

/// Older files write `"left right"`, newer ones `["left", "right"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Joined(String),
}

/// Reads a `tokenizer.json` into parts that still have to be checked.
pub(super) fn read(bytes: &[u8]) -> Result<Parts, TokenizerError> {
    if bytes.len() as u64 > TOKENIZER_BYTES_MAX {
        return Err(invalid(format!("it has {} bytes, more than {TOKENIZER_BYTES_MAX}", bytes.len())));
    }
    let file: File = serde_json::from_slice(bytes).map_err(invalid)?;
    check_model(&file.model)?;
    check_decoder(file.decoder.as_ref())?;
    let mut added: Vec<(TokenId, AddedToken)> =
        file.added_tokens.into_iter().map(Added::into_token).collect();
    added.sort_by_key(|(id, _)| *id);
    Ok(Parts {
        vocabulary: serde_json::from_value::<HashMap<String, TokenId>>(file.model.vocab).map_err(invalid)?,
        merges: file.model.merges.into_iter().map(Merge::into_pair).collect::<Result<_, _>>()?,
        ignore_merges: file.model.ignore_merges.unwrap_or(false),
        unknown: file.model.unk_token,
        added,
        normalizer: optional(file.normalizer)?,
        pre_tokenizer: optional(file.pre_tokenizer)?,
        affixes: file.post_processor.as_ref().map_or_else(|| Ok(Affixes::default()), affixes)?,
        bos: None,
        eos: None,
    })
}

fn invalid(reason: impl ToString) -> TokenizerError {
    TokenizerError::Json { reason: reason.to_string() }
}

fn optional<T: DeserializeOwned>(value: Option<Value>) -> Result<Option<T>, TokenizerError> {
    value.filter(|value| !value.is_null()).map(serde_json::from_value).transpose().map_err(invalid)
}

impl Added {
    fn into_token(self) -> (TokenId, AddedToken) {
        let token = AddedToken::from(self.content, self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized);
        (self.id, token)
    }
}

impl Merge {
    fn into_pair(self) -> Result<(String, String), TokenizerError> {
        match self {
            Self::Pair(left, right) => Ok((left, right)),
            Self::Joined(text) => match text.split_once(' ') {
                Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
                _ => Err(invalid(format!("merge `{text}` is not two tokens with a space between"))),
            },
        }
    }
}

fn check_model(model: &Model) -> Result<(), TokenizerError> {
    let refuse = |what, found: String, expected| Err(TokenizerError::Unsupported { what, found, expected });
    if let Some(kind) = model.kind.as_deref().filter(|kind| *kind != "BPE") {
        return refuse("model type", kind.to_owned(), "`BPE`");
    }
    if model.byte_fallback == Some(true) {
        return refuse("byte_fallback", "true".to_owned(), "false");
    }
    for (what, affix) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
            return refuse(what, affix.clone(), "null");
        }
    }
    match &model.dropout {
        Some(rate) if rate.as_f64() != Some(0.0) => refuse("dropout", rate.to_string(), "null"),
        _ => Ok(()),
    }
}

/// The decoder must be `ByteLevel`, alone or in a sequence: it is what makes the tokens byte strings.
fn check_decoder(decoder: Option<&Value>) -> Result<(), TokenizerError> {
    let kind = |value: &Value| value.get("type").and_then(Value::as_str).unwrap_or("none").to_owned();
    let found = decoder.map_or_else(|| "none".to_owned(), kind);
    let byte_level = match decoder.and_then(|value| value.get("decoders")).and_then(Value::as_array) {
        Some(list) if found == "Sequence" => {
            list.iter().all(|inner| kind(inner) == "ByteLevel") && !list.is_empty()
        }
        _ => found == "ByteLevel",
    };
    if !byte_level {
        return Err(TokenizerError::Unsupported { what: "decoder", found, expected: "`ByteLevel`" });
    }
    Ok(())
}

#[derive(Deserialize)]
struct TemplateProcessing {
    single: Vec<TemplatePiece>,
    #[serde(default)]
    special_tokens: HashMap<String, TemplateToken>,
}

#[derive(Deserialize)]
enum TemplatePiece {
    Sequence {},
    SpecialToken { id: String },
}

#[derive(Deserialize)]
struct TemplateToken {
    ids: Vec<TokenId>,
}

/// What the post-processor puts around a single text: nothing for `ByteLevel` (it only adjusts offsets), the
/// special tokens before and after the sequence for `TemplateProcessing`, both for a `Sequence` of them.
fn affixes(processor: &Value) -> Result<Affixes, TokenizerError> {
    match processor.get("type").and_then(Value::as_str) {
        None if processor.is_null() => Ok(Affixes::default()),
        Some("ByteLevel") => Ok(Affixes::default()),
        Some("TemplateProcessing") => template_affixes(processor),
        Some("Sequence") => {
            let mut all = Affixes::default();
            for inner in processor.get("processors").and_then(Value::as_array).into_iter().flatten() {
                // Each later processor wraps what the earlier ones made.
                let Affixes { mut before, after } = affixes(inner)?;
                before.append(&mut all.before);
                all.before = before;
                all.after.extend(after);
            }
            Ok(all)
        }
        other => Err(TokenizerError::Unsupported {
            what: "post-processor",
            found: other.unwrap_or("without a type").to_owned(),
            expected: "`ByteLevel`, `TemplateProcessing` or a `Sequence` of them",
        }),
    }
}

fn template_affixes(processor: &Value) -> Result<Affixes, TokenizerError> {
    let template = TemplateProcessing::deserialize(processor).map_err(invalid)?;
    let mut all = Affixes::default();
    let mut seen = false;
    for piece in template.single {
        match piece {
            TemplatePiece::Sequence {} => seen = true,
            TemplatePiece::SpecialToken { id } => {
                let token = template.special_tokens.get(&id).ok_or_else(|| {
                    invalid(format!("the post-processor uses `{id}`, which its special_tokens do not list"))
                })?;
                let side = if seen { &mut all.after } else { &mut all.before };
                side.extend_from_slice(&token.ids);
            }
        }
    }
    Ok(all)
}

/// The two tokens that `tokenizer_config.json` names.
pub(super) struct Config {
    pub(super) bos_token: Option<String>,
    pub(super) eos_token: Option<String>,
}

/// Reads `bos_token` and `eos_token`, each a string, null, absent, or an object with `content`.
pub(super) fn read_config(bytes: &[u8]) -> Result<Config, TokenizerError> {
    let invalid =
        |reason: String| TokenizerError::Json { reason: format!("in tokenizer_config.json: {reason}") };
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(invalid(format!("it has {} bytes, more than {CONFIG_BYTES_MAX}", bytes.len())));
    }
    let config: Value = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
    let token = |key: &str| match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(object) => match object.get("content").and_then(Value::as_str) {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(invalid(format!("{key} is neither a string nor an object with `content`"))),
        },
    };
    Ok(Config { bos_token: token("bos_token")?, eos_token: token("eos_token")? })
}
