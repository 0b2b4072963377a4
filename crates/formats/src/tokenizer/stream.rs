//! Incremental detokenisation: token ids in, complete characters out.
//!
//! A byte-level token may end inside a UTF-8 character (an emoji is often three or four tokens), so bytes that
//! could still become a character are held back, at most three of them. Bytes that can no longer become one are
//! replaced by U+FFFD at once, by the rule of [`String::from_utf8_lossy`] (one replacement per maximal invalid
//! prefix, Unicode 15 section 3.9, D93b). Therefore the pieces of a stream, concatenated, always equal the
//! one-shot [`Tokenizer::decode`] of the same ids.

use super::{TokenId, Tokenizer};

/// Turns a stream of bytes that is cut anywhere into whole characters.
#[derive(Debug, Clone, Default)]
pub struct Utf8Stream {
    /// A proper prefix of a character: at most three bytes between calls.
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes some bytes and returns the characters that are now complete; may be empty.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.pending.len());
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, invalid) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = invalid;
                    let Some(skip) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = rest.get(skip..).unwrap_or_default();
                }
            }
        }
        let kept = rest.len();
        let consumed = self.pending.len().saturating_sub(kept);
        self.pending.drain(..consumed);
        text
    }

    /// Ends the stream: an unfinished character becomes one U+FFFD. The stream is empty afterwards.
    pub fn finish(&mut self) -> String {
        if std::mem::take(&mut self.pending).is_empty() {
            String::new()
        } else {
            char::REPLACEMENT_CHARACTER.to_string()
        }
    }
}

/// Whether the text of special tokens is part of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// `<|im_end|>` appears as text.
    Render,
    /// Special tokens are dropped.
    Skip,
}

/// Detokenises one sequence as it is generated.
#[derive(Debug, Clone)]
pub struct TokenDecoder<'t> {
    tokenizer: &'t Tokenizer,
    special: SpecialTokens,
    utf8: Utf8Stream,
}

impl<'t> TokenDecoder<'t> {
    /// A decoder at the start of a sequence.
    pub fn new(tokenizer: &'t Tokenizer, special: SpecialTokens) -> Self {
        Self { tokenizer, special, utf8: Utf8Stream::new() }
    }

    /// Takes the next id and returns the text that is now complete; empty if the id ends inside a character, is
    /// a skipped special token, or is not in the vocabulary.
    pub fn push(&mut self, id: TokenId) -> String {
        if self.special == SpecialTokens::Skip && self.tokenizer.is_special(id) {
            return String::new();
        }
        self.utf8.push(self.tokenizer.token_bytes(id).unwrap_or_default())
    }

    /// Ends the sequence: an unfinished character becomes one U+FFFD.
    pub fn finish(&mut self) -> String {
        self.utf8.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8], cuts: &[usize]) -> String {
        let mut stream = Utf8Stream::new();
        let mut text = String::new();
        let mut start = 0;
        for &end in cuts.iter().chain([&bytes.len()]) {
            text += &stream.push(&bytes[start..end]);
            start = end;
        }
        text + &stream.finish()
    }

    #[test]
    fn every_pair_of_cuts_equals_the_lossy_decoding() {
        let samples: [&[u8]; 8] = [
            b"",
            "a\u{e9}\u{20ac}\u{1f34a}z".as_bytes(),
            b"\xff\xfe\x80",
            b"\xe2\x82",
            b"\xe2\x82\xe2\x82\xac",
            b"\xf0\x9f\x8d\xf0\x9f\x8d\x8a\xf0",
            b"\xed\xa0\x80 surrogate",
            b"\xc0\xaf overlong \xf4\x90\x80\x80",
        ];
        for bytes in samples {
            let whole = String::from_utf8_lossy(bytes);
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    assert_eq!(cut(bytes, &[first, second]), whole, "{bytes:x?} at {first}, {second}");
                }
            }
        }
    }

    #[test]
    fn a_hopeless_byte_is_replaced_at_once() {
        let mut stream = Utf8Stream::new();
        assert_eq!(stream.push(b"\xf0\x9f"), "");
        assert_eq!(stream.push(b"a"), "\u{fffd}a");
        assert_eq!(stream.push(b"\x80"), "\u{fffd}");
        assert_eq!(stream.finish(), "");
    }
}
