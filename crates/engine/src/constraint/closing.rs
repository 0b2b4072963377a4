//! When an answer heads for its end, and how.
//!
//! A model that is free to go on may be cut off in the middle of a sentence that no reader of JSON accepts. So, as the
//! tokens that are left get fewer, the shortest [`Way`] to an end is looked up again and again, and once there is little
//! more room than it needs, it is taken: from there on every token is forced.
//!
//! How much room that is: a token that the model chooses may open something that takes longer to close than the token
//! took to write, so what is needed may grow between two looks, and there are few looks if there is much room.

use llguidance::earley::Parser;
use llguidance::toktrie::{TokEnv, TokTrie};
use tangelo_core::TokenId;

use super::search::{Nesting, Way, way_to_end};
use crate::mask::TokenMask;

/// Tokens of room beyond twice what the way needs, below which it is taken.
const RESERVE_TOKENS: usize = 32;
/// The next look is after this part of the room beyond that.
const LOOK_SHARE: usize = 8;

/// How an answer comes to its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Closing {
    /// What is open in the answer.
    nesting: Nesting,
    /// No look before as few tokens are left.
    next_look: Option<usize>,
    /// Whether the answer heads for its end.
    is_closing: bool,
    /// The rest of the way, if it was looked up.
    way: Option<Way>,
}

impl Closing {
    /// Goes to the end as soon as possible.
    pub fn close(&mut self) {
        self.is_closing = true;
    }

    /// Goes to the end as soon as possible if it is time, with `left` tokens to come.
    pub fn close_within(&mut self, left: usize, parser: &Parser, env: &TokEnv) {
        if self.is_closing || self.next_look.is_some_and(|next| left > next) {
            return;
        }
        let way = way_to_end(parser, env, self.nesting).unwrap_or_default();
        let needed = way.as_ref().map_or(0, |way| tokens(env.tok_trie(), &way.bytes));
        let room = left.saturating_sub(2 * needed + RESERVE_TOKENS);
        self.next_look = Some(left.saturating_sub((room / LOOK_SHARE).max(1)));
        self.is_closing = room == 0;
        self.way = way.filter(|_| self.is_closing);
    }

    /// Leaves of the allowed tokens those on the way to the end, if that is where the answer goes. Where no way is seen,
    /// all stay allowed.
    pub fn narrow(&mut self, allowed: &mut TokenMask, parser: &Parser, env: &TokEnv) {
        if !self.is_closing {
            return;
        }
        if self.way.as_ref().is_none_or(|way| way.bytes.is_empty() && !way.is_whole) {
            self.way = way_to_end(parser, env, self.nesting).unwrap_or_default();
        }
        let Some(way) = &self.way else { return };
        let trie = env.tok_trie();
        if way.bytes.is_empty() {
            let mut stop = TokenMask::none(trie.vocab_size());
            trie.eos_tokens().iter().for_each(|&token| stop.allow(token));
            allowed.intersect(&stop);
        } else if let Some(token) = first_token(trie, &way.bytes).filter(|&token| allowed.allows(token)) {
            *allowed = TokenMask::none(trie.vocab_size());
            allowed.allow(token);
        }
    }

    /// Takes note of a token of the answer.
    pub fn accept(&mut self, token: TokenId, trie: &TokTrie) {
        let bytes = trie.decode_raw(&[token]);
        self.nesting = self.nesting.after(&bytes);
        self.way = self.way.take().and_then(|mut way| {
            way.bytes = way.bytes.strip_prefix(&bytes[..])?.to_vec();
            Some(way)
        });
    }
}

/// Number of tokens that a text is written with, by [`first_token`].
fn tokens(trie: &TokTrie, mut text: &[u8]) -> usize {
    let mut count = 0;
    while !text.is_empty() {
        let len = first_token(trie, text).map_or(1, |token| trie.decode_raw(&[token]).len());
        text = text.get(len..).unwrap_or_default();
        count += 1;
    }
    count
}

/// The longest token that a text begins with.
fn first_token(trie: &TokTrie, text: &[u8]) -> Option<TokenId> {
    if text.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) {
        let end = text.iter().position(|&byte| byte == b']')?;
        return std::str::from_utf8(text.get(2..end)?).ok()?.parse().ok();
    }
    let (mut node, mut longest) = (trie.root(), None);
    for &byte in text {
        let Some(child) = trie.child_at_byte(node, byte) else { break };
        node = child;
        longest = node.token_id().or(longest);
    }
    longest
}
