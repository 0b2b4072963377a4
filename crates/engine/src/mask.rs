//! Sets of tokens: what a constraint allows next.

use tangelo_core::TokenId;

/// Token ids of one word.
const WORD_BITS: usize = u32::BITS as usize;

/// A set of token ids, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
}

impl TokenMask {
    /// No token out of `vocab_size`.
    pub fn none(vocab_size: usize) -> TokenMask {
        TokenMask { words: vec![0; vocab_size.div_ceil(WORD_BITS)] }
    }

    /// The set with bit `id % 32` of word `id / 32` for token `id`.
    pub fn from_words(words: Vec<u32>) -> TokenMask {
        TokenMask { words }
    }

    /// The bits; see [`TokenMask::from_words`].
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The same, to change them.
    pub fn words_mut(&mut self) -> &mut Vec<u32> {
        &mut self.words
    }

    /// Adds a token that is within the size.
    pub fn allow(&mut self, token: TokenId) {
        if let Some(word) = self.words.get_mut(token as usize / WORD_BITS) {
            *word |= 1 << (token as usize % WORD_BITS);
        }
    }

    /// Whether a token is in the set.
    pub fn allows(&self, token: TokenId) -> bool {
        self.words
            .get(token as usize / WORD_BITS)
            .is_some_and(|word| word >> (token as usize % WORD_BITS) & 1 == 1)
    }

    /// Number of tokens in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no token is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Keeps the tokens that `other` has too; if there are none, changes nothing and returns false.
    pub fn intersect(&mut self, other: &TokenMask) -> bool {
        let both = self.words.iter().zip(&other.words);
        if both.clone().all(|(a, b)| a & b == 0) {
            return false;
        }
        let others = other.words.iter().chain(std::iter::repeat(&0));
        self.words.iter_mut().zip(others).for_each(|(word, other)| *word &= other);
        true
    }

    /// The tokens of the set, in increasing order.
    pub fn tokens(&self) -> impl Iterator<Item = TokenId> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            let bits = (0..u32::BITS).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| (at * WORD_BITS) as TokenId + bit)
        })
    }

    /// Makes the logits of all other tokens -∞.
    pub(crate) fn forbid_others(&self, logits: &mut [f32]) {
        let empty = std::iter::repeat(&0);
        for (chunk, &word) in logits.chunks_mut(WORD_BITS).zip(self.words.iter().chain(empty)) {
            if word == u32::MAX {
                continue;
            }
            for (bit, logit) in chunk.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_beyond_the_set_are_not_allowed() {
        let mut mask = TokenMask::none(70);
        for token in [0, 31, 32, 69, 1000] {
            mask.allow(token);
        }
        assert_eq!(mask.tokens().collect::<Vec<_>>(), [0, 31, 32, 69]);
        assert_eq!(
            (mask.count(), mask.allows(69), mask.allows(1), mask.allows(1000)),
            (4, true, false, false)
        );
        let mut logits = vec![1.0; 100];
        mask.forbid_others(&mut logits);
        let left: Vec<usize> = (0..100).filter(|&id| logits[id] == 1.0).collect();
        assert_eq!(left, [0, 31, 32, 69]);
    }
}
