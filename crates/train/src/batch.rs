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
    /// Appends a sequence, of which each token but the first is learned with its weight; `weights` has an entry for every
    /// token. A sequence of one token has nothing to learn and is left out.
    ///
    /// # Panics
    /// If there is not a weight for every token.
    pub fn push(&mut self, tokens: &[TokenId], weights: &[f32]) {
        assert_eq!(tokens.len(), weights.len(), "Batch: one weight per token");
        let Some(inputs) = tokens.len().checked_sub(1).filter(|&n| n > 0) else { return };
        let start = self.tokens.len();
        self.tokens.extend_from_slice(&tokens[..inputs]);
        self.sequences.push(start..start + inputs);
        let targets = tokens.iter().zip(weights).skip(1);
        self.targets.extend(targets.map(|(&token, &weight)| Target { token, weight }));
    }

    /// Whether this sequence would bring it, if it is not empty, beyond so many tokens.
    pub fn is_full(&self, tokens: &[TokenId], most: usize) -> bool {
        !self.tokens.is_empty() && self.tokens.len() + tokens.len().saturating_sub(1) > most
    }

    /// The sum of all weights.
    pub fn weight(&self) -> f64 {
        self.targets.iter().map(|target| f64::from(target.weight)).sum()
    }

    /// Multiplies all weights.
    pub fn scale(&mut self, by: f32) {
        self.targets.iter_mut().for_each(|target| target.weight *= by);
    }
}
