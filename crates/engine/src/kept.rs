//! Kept states under a budget of bytes, found again by their tokens.
//!
//! A conversation comes back to points it has passed: the next prompt repeats the last one up to the answer, an undone
//! exchange ends where the one before it ended. Each point costs a recurrent state, whatever its position, so only so
//! many can be kept. The one to give up is the cheapest to rebuild: the one with the fewest tokens between it and the
//! kept state before it. That thins the past evenly and never loses a long system prompt.

use tangelo_core::TokenId;

use crate::sequence::Kept;

/// Kept states of any paths of one model.
#[derive(Debug)]
pub struct KeptStates {
    states: Vec<Kept>,
    budget_bytes: usize,
}

impl KeptStates {
    /// An empty collection that holds at most `budget_bytes`, but always the state inserted last.
    pub fn new(budget_bytes: usize) -> KeptStates {
        KeptStates { states: Vec::new(), budget_bytes }
    }

    /// Number of states held.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Bytes of all states: the recurrent part of each, and the caches of all tokens, where tokens that several states
    /// begin with count once.
    pub fn bytes(&self) -> usize {
        let mut sorted: Vec<&Kept> = self.states.iter().collect();
        sorted.sort_by_key(|state| state.tokens());
        // In this order the neighbour before a state shares more with it than any other before.
        let mut before: &[TokenId] = &[];
        let mut bytes = 0;
        for state in sorted {
            let tokens = state.tokens();
            let shared = tokens.iter().zip(before).take_while(|(a, b)| a == b).count();
            let (recurrent, caches) = state.bytes();
            bytes += recurrent + caches / tokens.len().max(1) * (tokens.len() - shared);
            before = tokens;
        }
        bytes
    }

    /// Adds a state, replacing one of the same tokens, and gives up others until the budget is met.
    pub fn insert(&mut self, kept: Kept) {
        self.states.retain(|s| s.tokens() != kept.tokens());
        self.states.push(kept);
        while self.bytes() > self.budget_bytes && self.states.len() > 1 {
            let old = 0..self.states.len() - 1;
            let Some(cheapest) = old.min_by_key(|&i| self.tokens_to_rebuild(i)) else { break };
            self.states.remove(cheapest);
        }
    }

    /// The state with the most tokens among those whose tokens begin `tokens`.
    pub fn longest_prefix<'s>(&'s self, tokens: &[TokenId]) -> Option<&'s Kept> {
        self.prefixes(tokens).max_by_key(|s| s.position())
    }

    /// Drops all states.
    pub fn clear(&mut self) {
        self.states.clear();
    }

    fn prefixes<'s, 't>(&'s self, tokens: &'t [TokenId]) -> impl Iterator<Item = &'s Kept> + use<'s, 't> {
        self.states.iter().filter(move |s| tokens.starts_with(s.tokens()))
    }

    /// Tokens between a state and the nearest one before it on its path.
    fn tokens_to_rebuild(&self, index: usize) -> usize {
        let tokens = self.states[index].tokens();
        let before = self.prefixes(tokens).map(Kept::position).filter(|&p| p < tokens.len()).max();
        tokens.len() - before.unwrap_or(0)
    }
}
