//! The shortest way to the end of an answer, one token at a time.
//!
//! Finding it exactly would mean searching through the grammar. But what ends a part of JSON is a few characters, and a
//! grammar never allows them where they would not: so, of the allowed tokens, those of the first group that has any are
//! taken: stop tokens; quotation marks (which end a string, or begin one that the next step ends; inside a string a bracket
//! would be just another character); closing brackets; separators; digits. In a text that ends in one way only, such as a tool call, tokens that go on with that ending come
//! before all these groups but the first.

use tangelo_core::TokenId;

use crate::mask::TokenMask;

/// Tokens by what they begin with.
#[derive(Debug)]
pub(super) struct Closers {
    /// Most wanted first.
    groups: Vec<TokenMask>,
    vocabulary: Vec<Vec<u8>>,
}

impl Closers {
    /// Looks at every token once.
    pub fn new(vocabulary: &[Vec<u8>], special: &[TokenId], stop_ids: &[TokenId]) -> Closers {
        let starts: [&[u8]; 5] = [b"\"", b"}]", b",:", b"0123456789", b"ntf[{"];
        let mut groups = vec![TokenMask::none(vocabulary.len()); starts.len() + 1];
        for (id, bytes) in (0..).zip(vocabulary) {
            let text = bytes.strip_prefix(b" ").unwrap_or(bytes);
            let group = match text.first() {
                _ if stop_ids.contains(&id) => Some(0),
                Some(first) if !special.contains(&id) => {
                    starts.iter().position(|s| s.contains(first)).map(|at| at + 1)
                }
                _ => None,
            };
            if let Some(group) = group.and_then(|group| groups.get_mut(group)) {
                group.allow(id);
            }
        }
        Closers { groups, vocabulary: vocabulary.to_vec() }
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Leaves of the allowed tokens those that come to an end soonest; `rest` is what is missing of the `ending`.
    pub fn narrow(&self, allowed: &mut TokenMask, rest: &[u8], ending: &[u8]) {
        for (at, group) in self.groups.iter().enumerate() {
            if allowed.intersect(group) {
                return;
            }
            if at == 0 && self.narrow_to_text(allowed, if rest.is_empty() { ending } else { rest }) {
                return;
            }
        }
    }

    /// Leaves the allowed token that goes furthest along `text`; false if there is none.
    fn narrow_to_text(&self, allowed: &mut TokenMask, text: &[u8]) -> bool {
        let goes_on = |id: &TokenId| {
            self.vocabulary
                .get(*id as usize)
                .is_some_and(|bytes| !bytes.is_empty() && text.starts_with(bytes))
        };
        let len = |id: &TokenId| self.vocabulary.get(*id as usize).map_or(0, Vec::len);
        if text.is_empty() {
            return false;
        }
        let Some(best) = allowed.tokens().filter(goes_on).max_by_key(len) else { return false };
        *allowed = TokenMask::none(self.vocabulary.len());
        allowed.allow(best);
        true
    }

    /// How many bytes of `ending` the answer ends with after `token`, if it ended with `closed` before.
    pub fn advance(&self, ending: &[u8], closed: usize, token: TokenId) -> usize {
        let Some(bytes) = self.vocabulary.get(token as usize) else { return 0 };
        let rest = ending.get(closed..).unwrap_or_default();
        if rest.starts_with(bytes) {
            return closed + bytes.len();
        }
        // The end of the token may be a beginning of the ending.
        (1..=bytes.len().min(ending.len())).rev().find(|&len| bytes.ends_with(&ending[..len])).unwrap_or(0)
    }
}
