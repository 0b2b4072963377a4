//! Ends reasoning that has gone on for too long, while tokens are being sampled.
//!
//! Once `budget` tokens of reasoning have been generated, it is closed where a line ends; if no line ends within
//! `margin` further tokens, at once. Closing means that the caller appends given tokens instead of sampled ones: the
//! closing tag and a newline, as the template writes them behind reasoning. The scheme and the default margin are those
//! of NVIDIA's logits processor for the Nano models (`nano_v3_logit_processors`).
//!
//! A [`ThinkingBudget`] sees tokens and says which must follow. It doesn't sample, and it knows no model: between two
//! calls the caller may do anything, so a sequence may be forked by cloning it.

use tangelo_formats::tokenizer::{EncodeOptions, TokenId, Tokenizer, TokenizerError};

use crate::dialect::{Dialect, THINK_CLOSE};

/// Tokens that reasoning may go on beyond the budget in search of the end of a line.
pub const MARGIN_TOKENS_DEFAULT: usize = 500;

/// Counts the reasoning tokens of one answer.
#[derive(Debug, Clone)]
pub struct ThinkingBudget {
    /// Tokens after which the next end of a line closes.
    budget: usize,
    /// Tokens after which it is closed anywhere.
    hard_limit: usize,
    /// What closes at the end of a line, and what closes inside one.
    close_at_line_end: Vec<TokenId>,
    close_in_line: Vec<TokenId>,
    /// Texts that end reasoning by themselves.
    ends: Vec<&'static str>,
    used: usize,
    open: bool,
    /// The last bytes of reasoning, enough to see an end that several tokens spell.
    tail: Vec<u8>,
}

impl ThinkingBudget {
    /// A budget of `budget` tokens for an answer that starts in reasoning; `margin` is in tokens too.
    ///
    /// # Errors
    /// The closing tag cannot be encoded.
    pub fn new(
        tokenizer: &Tokenizer,
        dialect: &Dialect,
        budget: usize,
        margin: usize,
    ) -> Result<Self, TokenizerError> {
        let encode = |text: String| tokenizer.encode(&text, EncodeOptions::PROMPT);
        Ok(Self {
            budget,
            hard_limit: budget.saturating_add(margin),
            close_at_line_end: encode(format!("{THINK_CLOSE}\n"))?,
            close_in_line: encode(format!("\n{THINK_CLOSE}\n"))?,
            ends: [Some(THINK_CLOSE), dialect.call_open].into_iter().flatten().collect(),
            used: 0,
            open: true,
            tail: b"\n".to_vec(), // the prompt ends with `<think>` and a newline
        })
    }

    /// To be asked before the first token is sampled: with a budget of 0 reasoning is closed at once.
    pub fn before_first(&mut self) -> Option<&[TokenId]> {
        self.close_if_due()
    }

    /// Takes the next token of the answer, given as the bytes it stands for. If the result is `Some`, exactly these
    /// tokens must follow; they are not to be observed, and reasoning is over.
    pub fn observe(&mut self, token_bytes: &[u8]) -> Option<&[TokenId]> {
        if !self.open {
            return None;
        }
        self.used = self.used.saturating_add(1);
        self.tail.extend_from_slice(token_bytes);
        if self.ends.iter().any(|end| contains(&self.tail, end.as_bytes())) {
            self.open = false;
            return None;
        }
        let longest = self.ends.iter().map(|end| end.len()).max().unwrap_or(1);
        self.tail.drain(..self.tail.len().saturating_sub(longest));
        self.close_if_due()
    }

    /// Tokens of reasoning so far.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether the answer is still in reasoning.
    pub fn is_open(&self) -> bool {
        self.open
    }

    fn close_if_due(&mut self) -> Option<&[TokenId]> {
        if !self.open || self.used < self.budget {
            return None;
        }
        let at_line_end = ends_line(&self.tail);
        if !at_line_end && self.used < self.hard_limit {
            return None;
        }
        self.open = false;
        Some(if at_line_end { &self.close_at_line_end } else { &self.close_in_line })
    }
}

/// Whether the bytes end with a newline, but for spaces behind it.
fn ends_line(bytes: &[u8]) -> bool {
    bytes.iter().rev().find(|byte| !matches!(byte, b' ' | b'\t')) == Some(&b'\n')
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
