//! The byte-level alphabet of GPT-2: every byte is written as one printable character, so that a vocabulary of
//! byte strings can be kept as text.
//!
//! The bytes `!`..=`~`, `0xA1`..=`0xAC` and `0xAE`..=`0xFF` stand for themselves (as Latin-1 characters); the
//! other 68, in increasing order, are `U+0100`, `U+0101`, ... so a space is `Ġ` (U+0120) and a newline `Ċ`
//! (U+010A). Source: `bytes_to_unicode` in openai/gpt-2 `src/encoder.py`.

/// Whether a byte is written as the character of the same number.
fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The 68 bytes that do not stand for themselves, in increasing order: the n-th is written `U+0100 + n`.
fn shifted_bytes() -> impl Iterator<Item = u8> {
    (0..=u8::MAX).filter(|&byte| !stands_for_itself(byte))
}

/// The byte that a character of the alphabet stands for; `None` for a character outside it.
fn byte_of(character: char, shifted: &[u8]) -> Option<u8> {
    let code = u32::from(character);
    match u8::try_from(code) {
        Ok(byte) => stands_for_itself(byte).then_some(byte),
        Err(_) => shifted.get(usize::try_from(code.checked_sub(0x100)?).ok()?).copied(),
    }
}

/// Inverts the alphabet for many tokens.
pub(super) struct Alphabet {
    shifted: Vec<u8>,
}

impl Alphabet {
    /// The GPT-2 alphabet.
    pub(super) fn new() -> Self {
        Self { shifted: shifted_bytes().collect() }
    }

    /// Appends the bytes that a token's text stands for. A token with any character outside the alphabet (an
    /// added token such as `two words`) stands for its own UTF-8 bytes, as in the `ByteLevel` decoder of the
    /// Hugging Face library.
    pub(super) fn append_bytes(&self, token: &str, out: &mut Vec<u8>) {
        let start = out.len();
        for character in token.chars() {
            let Some(byte) = byte_of(character, &self.shifted) else {
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            };
            out.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection_on_bytes() {
        let shifted: Vec<u8> = shifted_bytes().collect();
        assert_eq!(shifted.len(), 68);
        let mut seen = [false; 256];
        for code in 0..0x200u32 {
            if let Some(byte) = byte_of(char::from_u32(code).unwrap(), &shifted) {
                assert!(!std::mem::replace(&mut seen[usize::from(byte)], true), "byte {byte} twice");
            }
        }
        assert!(seen.iter().all(|&hit| hit));
        assert_eq!(byte_of('Ġ', &shifted), Some(b' '));
        assert_eq!(byte_of('Ċ', &shifted), Some(b'\n'));
        assert_eq!(byte_of('ĉ', &shifted), Some(b'\t'));
        assert_eq!(byte_of('é', &shifted), Some(0xE9));
        assert_eq!(byte_of(' ', &shifted), None);
        assert_eq!(byte_of('\u{ad}', &shifted), None);
        assert_eq!(byte_of('\u{144}', &shifted), None);
    }

    #[test]
    fn a_token_outside_the_alphabet_keeps_its_text() {
        let mut out = b"x".to_vec();
        Alphabet::new().append_bytes("two words", &mut out);
        Alphabet::new().append_bytes("ĠĊ", &mut out);
        assert_eq!(out, b"xtwo words \n");
    }
}
