//! Tokens to learn from.

use std::ops::Range;

use tangelo_core::TokenId;
use tangelo_ops::cross_entropy::Target;

/// Sequences of tokens, one after the other, and what should follow each token. Every sequence begins with an empty state
/// and sees nothing of the others, whatever their lengths: that is all there is to packing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The tokens of all sequences.
    pub tokens: Vec<TokenId>,
    /// Where each sequence lies, in order and without gaps.
    pub sequences: Vec<Range<usize>>,
    /// One for each token.
    pub targets: Vec<Target>,
}

impl Batch {
    /// Appends a sequence. `taught` says of every token of `tokens` but the first whether it should be learned; each weighs
    /// `weight` then.
    ///
    /// # Panics
    /// If `taught` does not have an entry for every token.
    pub fn push(&mut self, tokens: &[TokenId], taught: &[bool], weight: f32) {
        assert_eq!(tokens.len(), taught.len(), "Batch: one mark per token");
        let Some(inputs) = tokens.len().checked_sub(1).filter(|&n| n > 0) else { return };
        let start = self.tokens.len();
        self.tokens.extend_from_slice(&tokens[..inputs]);
        self.sequences.push(start..start + inputs);
        let targets = tokens.iter().zip(taught).skip(1);
        self.targets.extend(
            targets
                .map(|(&token, &is_taught)| Target { token, weight: if is_taught { weight } else { 0.0 } }),
        );
    }

    /// Number of tokens that are learned.
    pub fn num_taught(&self) -> usize {
        self.targets.iter().filter(|target| target.weight != 0.0).count()
    }
}
