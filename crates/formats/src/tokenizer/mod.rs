//! Text to token ids and back: byte-level BPE, from `tokenizer.json` or from the vocabulary inside a GGUF file.
//!
//! Encoding is done by the `tokenizers` crate, so it is Hugging Face's own: added tokens are found first, the rest
//! is split by a regular expression, each piece is written in the byte-level alphabet (`bytes.rs`) and merged by
//! rank. With `ignore_merges` a piece that is itself a token is taken whole. Both kinds of file are first read
//! into the same checked parts (`parts.rs`), because the crate panics on some inconsistent files; the reader of
//! `tokenizer.json` is `json.rs`, that of GGUF is [`gguf`].
//!
//! Decoding is done here, from a table of the bytes of every token that is built once: the bytes of the ids are
//! concatenated and read as UTF-8 with U+FFFD for what is invalid, which is what the crate's `ByteLevel` decoder
//! computes. [`stream`] does the same incrementally.
//!
//! Not handled: sentencepiece, WordPiece and Unigram models, byte fallback, truncation and padding (a model
//! server must not do either silently). Known difference: in a run of more than a million whitespace characters the
//! regular expression engine gives up and the run is split elsewhere than by Hugging Face's; the text is the same.

mod bytes;
mod control;
mod error;
pub mod gguf;
mod json;
mod parts;
pub mod stream;

pub use control::{CONTROL_TOKENS, control_tokens};
pub use error::TokenizerError;
pub use gguf::GgufVocabulary;
pub use tangelo_core::TokenId;

use std::collections::HashSet;

use tokenizers::{Model as _, OffsetType, PreTokenizedString, PreTokenizer as _};

use crate::gguf::Metadata;
use parts::Parts;

/// How [`Tokenizer::encode`] treats the special strings of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Recognise added tokens (`<|im_end|>`, `<think>`, ...) inside the text. When `false` the text is plain: no
    /// part of it becomes an added token, whatever it looks like.
    pub parse_special: bool,
    /// Add the tokens that the file wants around every text (its post-processor, or
    /// `tokenizer.ggml.add_bos_token`). Nemotron models want none. A rendered chat template already holds its own.
    pub add_special_tokens: bool,
}

impl EncodeOptions {
    /// Recognise added tokens, add none: what a rendered chat prompt needs.
    pub const PROMPT: Self = Self { parse_special: true, add_special_tokens: false };
    /// Take every character literally, add nothing: what untrusted text needs.
    pub const PLAIN: Self = Self { parse_special: false, add_special_tokens: false };
}

impl Default for EncodeOptions {
    /// The Hugging Face default: recognise added tokens and add what the file wants.
    fn default() -> Self {
        Self { parse_special: true, add_special_tokens: true }
    }
}

/// A byte-level BPE tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    tokens: TokenTable,
    special: HashSet<TokenId>,
    /// Ids put before and after a text when special tokens are added.
    affixes: parts::Affixes,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// The file is larger than [`tangelo_core::limits::TOKENIZER_BYTES_MAX`], is not such a file, contradicts
    /// itself, or is not byte-level BPE.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        Self::from_parts(json::read(bytes)?)
    }

    /// Builds the tokenizer inside a GGUF file.
    ///
    /// # Errors
    /// A `tokenizer.ggml.*` value has the wrong type, or as [`Tokenizer::from_gguf_parts`].
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let strings = |name: &str| -> Result<Vec<String>, TokenizerError> {
            let list = metadata.get_str_array(&key(name))?;
            Ok(list.map(|list| list.iter().map(str::to_owned).collect()).unwrap_or_default())
        };
        Self::from_gguf_parts(&GgufVocabulary {
            model: metadata.get_str(&key("model"))?.unwrap_or_default(),
            pre: metadata.get_str(&key("pre"))?.unwrap_or_default(),
            tokens: &strings("tokens")?,
            token_types: &metadata.get_i32_array(&key("token_type"))?.unwrap_or_default(),
            merges: &strings("merges")?,
            bos: metadata.get_u32(&key("bos_token_id"))?,
            eos: metadata.get_u32(&key("eos_token_id"))?,
            add_bos: metadata.get_bool(&key("add_bos_token"))?,
        })
    }

    /// Builds the tokenizer of a GGUF file from its `tokenizer.ggml.*` values.
    ///
    /// # Errors
    /// The model is not `gpt2`, the pre-tokenizer is unknown, or the vocabulary contradicts itself.
    pub fn from_gguf_parts(vocabulary: &GgufVocabulary<'_>) -> Result<Self, TokenizerError> {
        Self::from_parts(gguf::read(vocabulary)?)
    }

    /// Takes the beginning- and end-of-sequence tokens from a `tokenizer_config.json` (`tokenizer.json` does not
    /// name them). A token may be a string or an object with `content`; one that is absent or null is left as is.
    ///
    /// # Errors
    /// The file is not JSON of that shape, or names a token that is not in the vocabulary.
    pub fn with_config(mut self, bytes: &[u8]) -> Result<Self, TokenizerError> {
        let config = json::read_config(bytes)?;
        let find = |key: &str, token: Option<String>, current: Option<TokenId>| match token {
            None => Ok(current),
            Some(text) => self.id_of(&text).map(Some).ok_or_else(|| {
                TokenizerError::vocabulary(format!(
                    "{key} in tokenizer_config.json is `{text}`, which is not in the vocabulary"
                ))
            }),
        };
        let (bos, eos) =
            (find("bos_token", config.bos_token, self.bos)?, find("eos_token", config.eos_token, self.eos)?);
        (self.bos, self.eos) = (bos, eos);
        Ok(self)
    }

    fn from_parts(parts: Parts) -> Result<Self, TokenizerError> {
        parts.check()?;
        let tokens = TokenTable::new(&parts);
        let special = parts.added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let (affixes, bos, eos) = (parts.affixes.clone(), parts.bos, parts.eos);
        let inner = parts.build()?;
        Ok(Self { inner, tokens, special, affixes, bos, eos })
    }

    /// Encodes a text.
    ///
    /// # Errors
    /// The `tokenizers` crate refuses the text; not seen for byte-level BPE.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, TokenizerError> {
        let ids = if options.parse_special { self.encode_marked(text) } else { self.encode_literal(text) }
            .map_err(|error| TokenizerError::Encode { reason: error.to_string() })?;
        if !options.add_special_tokens || self.affixes.is_empty() {
            return Ok(ids);
        }
        Ok([self.affixes.before.as_slice(), &ids, &self.affixes.after].concat())
    }

    fn encode_marked(&self, text: &str) -> tokenizers::Result<Vec<TokenId>> {
        Ok(self.inner.encode_fast(text, false)?.get_ids().to_vec())
    }

    /// The same pipeline without its first step, the search for added tokens.
    fn encode_literal(&self, text: &str) -> tokenizers::Result<Vec<TokenId>> {
        let mut pieces = PreTokenizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            pieces.normalize(|piece| tokenizers::Normalizer::normalize(normalizer, piece))?;
        }
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| self.inner.get_model().tokenize(piece.get()))?;
        Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    /// Decodes ids to text: their bytes concatenated, invalid UTF-8 replaced by U+FFFD. Ids that are not in the
    /// vocabulary contribute nothing.
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        let bytes: Vec<u8> = ids
            .iter()
            .filter(|&&id| !(skip_special && self.is_special(id)))
            .flat_map(|&id| self.token_bytes(id).unwrap_or_default())
            .copied()
            .collect();
        match String::from_utf8_lossy(&bytes) {
            std::borrow::Cow::Owned(replaced) => replaced,
            std::borrow::Cow::Borrowed(valid) => valid.to_owned(),
        }
    }

    /// The bytes that a token stands for; `None` for an id that is not in the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.tokens.get(id)
    }

    /// The text of a token as the vocabulary writes it (`Ġthe`, `<|im_end|>`).
    pub fn token_of(&self, id: TokenId) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token written as the vocabulary writes it.
    pub fn id_of(&self, token: &str) -> Option<TokenId> {
        self.inner.token_to_id(token)
    }

    /// Whether a token is special: left out of decoded text on request, never produced by plain text.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.special.contains(&id)
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// The beginning-of-sequence token, if the files name one.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// The end-of-sequence token, if the files name one. A model may stop on others too: see its
    /// generation_config.json.
    pub fn eos(&self) -> Option<TokenId> {
        self.eos
    }

    /// Checks that every id of the tokenizer has a row in the model's embedding. A model may have more rows than
    /// the tokenizer has ids (padding).
    ///
    /// # Errors
    /// The tokenizer has an id that the model lacks.
    pub fn check_vocabulary(&self, model_vocab_size: usize) -> Result<(), TokenizerError> {
        if self.vocab_size() > model_vocab_size {
            return Err(TokenizerError::VocabularyMismatch {
                tokenizer: self.vocab_size(),
                model: model_vocab_size,
            });
        }
        Ok(())
    }
}

/// The bytes of every token, end to end, and where each begins and ends.
#[derive(Debug)]
struct TokenTable {
    bytes: Vec<u8>,
    /// `spans[id]` is the range of that token in `bytes`; `None` where the numbering has a hole.
    spans: Vec<Option<(usize, usize)>>,
}

impl TokenTable {
    /// Inverts the byte-level alphabet once for the whole vocabulary. Ids are below
    /// [`tangelo_core::limits::VOCABULARY_MAX`] because [`Parts::check`] has passed.
    fn new(parts: &Parts) -> Self {
        let alphabet = bytes::Alphabet::new();
        let mut table = Self { bytes: Vec::new(), spans: vec![None; parts.id_bound()] };
        let added = parts.added.iter().map(|(id, token)| (*id, token.content.as_str()));
        for (id, text) in parts.vocabulary.iter().map(|(text, id)| (*id, text.as_str())).chain(added) {
            let start = table.bytes.len();
            alphabet.append_bytes(text, &mut table.bytes);
            if let Some(span) = table.spans.get_mut(id as usize) {
                *span = Some((start, table.bytes.len()));
            }
        }
        table
    }

    fn len(&self) -> usize {
        self.spans.len()
    }

    fn get(&self, id: TokenId) -> Option<&[u8]> {
        let (start, end) = (*self.spans.get(id as usize)?)?;
        self.bytes.get(start..end)
    }
}
