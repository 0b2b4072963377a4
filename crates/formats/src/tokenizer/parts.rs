//! What a byte-level BPE tokenizer is made of, checked, whichever file it came from.

use std::collections::HashMap;

use tangelo_core::limits::VOCABULARY_MAX;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use super::{TokenId, TokenizerError};

/// Ids to put around a text.
#[derive(Debug, Clone, Default)]
pub(super) struct Affixes {
    pub(super) before: Vec<TokenId>,
    pub(super) after: Vec<TokenId>,
}

impl Affixes {
    pub(super) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }
}

/// A tokenizer before it is built.
pub(super) struct Parts {
    /// Token text (in the byte-level alphabet) to id.
    pub(super) vocabulary: HashMap<String, TokenId>,
    /// Pairs to merge, most urgent first.
    pub(super) merges: Vec<(String, String)>,
    /// Take a piece whole if it is itself a token.
    pub(super) ignore_merges: bool,
    /// Token for characters that have none; byte-level vocabularies usually name none.
    pub(super) unknown: Option<String>,
    /// Tokens found in the text before it is split, with their ids, in increasing order of id.
    pub(super) added: Vec<(TokenId, AddedToken)>,
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) pre_tokenizer: Option<PreTokenizerWrapper>,
    pub(super) affixes: Affixes,
    pub(super) bos: Option<TokenId>,
    pub(super) eos: Option<TokenId>,
}

impl Parts {
    /// One more than the largest id.
    pub(super) fn id_bound(&self) -> usize {
        let added = self.added.iter().map(|(id, _)| *id);
        self.vocabulary.values().copied().chain(added).max().map_or(0, |id| (id as usize).saturating_add(1))
    }

    /// Checks everything that the `tokenizers` crate takes for granted.
    ///
    /// # Errors
    /// An id too large or used twice, a merge of or into something that is not a token, an affix or an unknown
    /// token that does not exist.
    pub(super) fn check(&self) -> Result<(), TokenizerError> {
        if self.id_bound() > VOCABULARY_MAX {
            return Err(TokenizerError::vocabulary(format!(
                "the largest id is {} but ids must be below {VOCABULARY_MAX}",
                self.id_bound().saturating_sub(1)
            )));
        }
        let by_id = self.check_ids()?;
        self.check_merges()?;
        let named = [("the bos token", self.bos), ("the eos token", self.eos)];
        let affixes =
            self.affixes.before.iter().chain(&self.affixes.after).map(|&id| ("an added token", Some(id)));
        for (what, id) in named.into_iter().chain(affixes) {
            if let Some(id) = id.filter(|id| !by_id.contains_key(id)) {
                return Err(TokenizerError::vocabulary(format!("{what} is id {id}, which no token has")));
            }
        }
        if let Some(unknown) = self.unknown.as_ref().filter(|token| !self.vocabulary.contains_key(*token)) {
            return Err(TokenizerError::vocabulary(format!("the unknown token `{unknown}` is not a token")));
        }
        Ok(())
    }

    /// Every id names one text and every added token has the id that the library will give it.
    fn check_ids(&self) -> Result<HashMap<TokenId, &str>, TokenizerError> {
        let mut by_id: HashMap<TokenId, &str> = HashMap::with_capacity(self.vocabulary.len());
        let entries = self.vocabulary.iter().map(|(text, &id)| (id, text.as_str()));
        for (id, text) in entries.chain(self.added.iter().map(|(id, token)| (*id, token.content.as_str()))) {
            if let Some(other) = by_id.insert(id, text).filter(|other| *other != text) {
                return Err(TokenizerError::vocabulary(format!("`{other}` and `{text}` both have id {id}")));
            }
        }
        for (id, token) in &self.added {
            if let Some(other) = self.vocabulary.get(&token.content).filter(|other| *other != id) {
                return Err(TokenizerError::vocabulary(format!(
                    "added token `{}` has id {id} but the vocabulary gives it {other}",
                    token.content
                )));
            }
        }
        Ok(by_id)
    }

    fn check_merges(&self) -> Result<(), TokenizerError> {
        let mut merged = String::new();
        for (rank, (left, right)) in self.merges.iter().enumerate() {
            merged.clear();
            merged.push_str(left);
            merged.push_str(right);
            for token in [left, right, &merged] {
                if !self.vocabulary.contains_key(token) {
                    return Err(TokenizerError::vocabulary(format!(
                        "merge {rank} joins `{left}` and `{right}`, but `{token}` is not a token"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Builds the encoder. Call [`Parts::check`] first.
    pub(super) fn build(self) -> Result<tokenizers::Tokenizer, TokenizerError> {
        let refused = |error: tokenizers::Error| TokenizerError::vocabulary(error.to_string());
        let vocabulary: Vocab = self.vocabulary.into_iter().collect();
        let mut builder =
            BPE::builder().vocab_and_merges(vocabulary, self.merges).ignore_merges(self.ignore_merges);
        if let Some(unknown) = self.unknown {
            builder = builder.unk_token(unknown);
        }
        let mut tokenizer = tokenizers::Tokenizer::new(builder.build().map_err(refused)?);
        tokenizer.with_normalizer(self.normalizer).map_err(refused)?;
        tokenizer.with_pre_tokenizer(self.pre_tokenizer);
        tokenizer.add_tokens(self.added.iter().map(|(_, token)| token.clone())).map_err(refused)?;
        for (id, token) in &self.added {
            // Tokens beyond the BPE vocabulary are numbered by the library in the order given.
            let given = tokenizer.token_to_id(&token.content);
            if given != Some(*id) {
                return Err(TokenizerError::vocabulary(format!(
                    "added token `{}` should have id {id}, but the numbering of the tokens before it gives {given:?}",
                    token.content
                )));
            }
        }
        Ok(tokenizer)
    }
}
