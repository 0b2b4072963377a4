//! A Rust file with comments and strings told apart from code, and its functions.
//!
//! This is a scanner, not a parser: it knows the lexical rules that decide where a string, a character or a
//! comment ends, and then counts braces. Macro bodies are treated as code, which is what the rules want.
//!
//! [`Source::code`] has the length and the line breaks of the original. Every byte of a comment becomes a
//! space, every byte inside a string or character literal (quotes included) becomes `"`: a line holding only
//! a comment is blank in it, a line inside a long string literal is not, and neither can be mistaken for code.

/// A scanned Rust file.
#[derive(Debug)]
pub struct Source {
    /// The code; see the module's description.
    pub code: String,
    /// Functions with a body, in order of their `fn`.
    pub functions: Vec<Function>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// The name as written.
    pub name: String,
    /// Line of the word `fn`, from 1.
    pub first: usize,
    /// Line of the closing brace, from 1.
    pub last: usize,
}

impl Function {
    /// Lines from `fn` to the closing brace, both included.
    pub fn lines(&self) -> usize {
        self.last - self.first + 1
    }
}

impl Source {
    /// Scans the text of a Rust file. Text that is not valid Rust gives some answer, never a panic.
    pub fn scan(text: &str) -> Source {
        let code = mask(text);
        let functions = functions(&code);
        Source { code, functions }
    }

    /// Lines holding code: neither blank nor comment only.
    pub fn code_lines(&self) -> usize {
        self.code.lines().filter(|l| !l.trim().is_empty()).count()
    }

    /// Lines (from 1) on which `word` occurs in code as a whole word.
    pub fn lines_with_word(&self, word: &str) -> Vec<usize> {
        words(&self.code).filter(|(_, w)| *w == word).map(|(at, _)| line_of(&self.code, at)).collect()
    }

    /// Code lines inside items marked `#[cfg(test)]`.
    pub fn test_lines(&self) -> usize {
        let mut total = 0;
        let mut from = 0;
        while let Some(at) = self.code[from..].find("#[cfg(test)]") {
            let start = from + at;
            let end = item_end(self.code.as_bytes(), start + "#[cfg(test)]".len());
            total += self.code[start..end].lines().filter(|l| !l.trim().is_empty()).count();
            from = end;
        }
        total
    }
}

/// Line (from 1) of byte `at`.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1
}

/// Identifiers and keywords of masked code with their byte offsets.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + code[rest..].find(is_word)?;
        let len = code[start..].find(|c| !is_word(c)).unwrap_or(code.len() - start);
        rest = start + len;
        Some((start, &code[start..rest]))
    })
}

/// What a stretch of text is.
enum Piece {
    Code,
    Comment,
    Literal,
}

/// Replaces comments by spaces and literals by quotes.
fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (piece, len) = piece(bytes, at);
        let end = (at + len).min(bytes.len());
        out.extend(bytes[at..end].iter().map(|&b| match piece {
            _ if b == b'\n' => b'\n',
            Piece::Code => b,
            Piece::Comment => b' ',
            Piece::Literal => b'"',
        }));
        at = end;
    }
    String::from_utf8(out).expect("whole characters were kept or replaced byte by byte")
}

/// The kind and length of what starts at byte `at`.
fn piece(b: &[u8], at: usize) -> (Piece, usize) {
    let rest = &b[at..];
    match rest {
        [b'/', b'/', ..] => (Piece::Comment, rest.iter().position(|&c| c == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => (Piece::Comment, block_comment_len(rest)),
        [b'"', ..] => (Piece::Literal, string_len(rest)),
        [b'\'', ..] => char_len(rest).map_or((Piece::Code, 1), |len| (Piece::Literal, len)),
        [c, ..] if c.is_ascii_alphabetic() || *c == b'_' => {
            let word = rest.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == b'_').count();
            match literal_after_prefix(&rest[..word], &rest[word..]) {
                Some(len) => (Piece::Literal, word + len),
                None => (Piece::Code, word),
            }
        }
        _ => (Piece::Code, 1),
    }
}

/// Length of the literal that follows a prefix such as `b`, `r` or `br`; `None` if `word` is no prefix of one.
fn literal_after_prefix(word: &[u8], after: &[u8]) -> Option<usize> {
    match (word, after.first()?) {
        (b"b" | b"c", b'"') => Some(string_len(after)),
        (b"b", b'\'') => char_len(after),
        (b"r" | b"br" | b"cr", b'"' | b'#') => {
            let hashes = after.iter().take_while(|&&c| c == b'#').count();
            if after.get(hashes) != Some(&b'"') {
                return None; // A raw identifier such as r#type.
            }
            let mut close = vec![b'"'];
            close.resize(hashes + 1, b'#');
            let body = hashes + 1;
            let end = after[body..].windows(close.len()).position(|w| w == close);
            Some(end.map_or(after.len(), |e| body + e + close.len()))
        }
        _ => None,
    }
}

fn block_comment_len(b: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < b.len() {
        match &b[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a string literal that starts with its quote.
fn string_len(b: &[u8]) -> usize {
    let mut at = 1;
    while at < b.len() {
        match b[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    b.len()
}

/// Length of a character literal that starts with its quote; `None` for a lifetime.
fn char_len(b: &[u8]) -> Option<usize> {
    if b.get(1) == Some(&b'\\') {
        // The escaped character may itself be a quote, so the search starts behind it.
        return b.get(3..)?.iter().position(|&c| c == b'\'').map(|p| p + 4);
    }
    // One character of one to four bytes, then a quote; a lifetime has none there.
    let width = match b.get(1)? {
        0..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (b.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

/// Finds functions with bodies in masked code.
fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let mut fn_at = None;
    for (at, word) in words(code) {
        if word == "fn" {
            fn_at = Some(at);
        } else if let Some(start) = fn_at.take() {
            // `fn(` is a pointer type: only white space may stand between `fn` and the name.
            if !code[start + 2..at].trim().is_empty() {
                continue;
            }
            if let Some(end) = body_end(code.as_bytes(), at) {
                let (first, last) = (line_of(code, start), line_of(code, end));
                found.push(Function { name: word.to_string(), first, last });
            }
        }
    }
    found
}

/// Byte of the brace that closes the body of the item whose header contains byte `at`; `None` for an item
/// without a body (it ends in `;`) or one whose braces do not match.
fn body_end(code: &[u8], at: usize) -> Option<usize> {
    let mut nested = 0usize; // Parentheses and brackets; `[u8; 4]` has a `;` that ends nothing.
    let mut braces = 0usize;
    for (i, &c) in code.iter().enumerate().skip(at) {
        match c {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested = nested.saturating_sub(1),
            b'{' => braces += 1,
            b'}' if braces <= 1 => return (braces == 1).then_some(i),
            b'}' => braces -= 1,
            b';' if nested == 0 && braces == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Byte after the item whose header contains byte `at`.
fn item_end(code: &[u8], at: usize) -> usize {
    let semicolon = code[at..].iter().position(|&c| c == b';').map(|p| at + p + 1);
    body_end(code, at).map(|e| e + 1).or(semicolon).unwrap_or(code.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, usize)> {
        Source::scan(text).functions.into_iter().map(|f| (f.name.clone(), f.lines())).collect()
    }

    #[test]
    fn comments_and_literals_are_masked() {
        let s = Source::scan(
            "let a = \"}{\"; // fn x() {\nlet b = '{'; /* } /* } */ } */ let c = r#\"fn \"q {\"#;\n",
        );
        for word in ["fn", "x", "q"] {
            assert!(s.lines_with_word(word).is_empty(), "{word}");
        }
        assert!(!s.code.contains(['{', '}']));
        assert_eq!(s.lines_with_word("let"), [1, 2, 2]);
        assert_eq!(s.code_lines(), 2);
    }

    #[test]
    fn lifetimes_are_not_characters() {
        let s = Source::scan(
            "fn f<'a>(x: &'a str, c: char) -> bool { c == '\\'' || c == 'é' || x == b\"\\\"\" }\nunsafe {}",
        );
        assert_eq!(s.functions, [Function { name: "f".into(), first: 1, last: 1 }]);
        assert_eq!(s.lines_with_word("unsafe"), [2]);
    }

    #[test]
    fn raw_identifiers_are_code() {
        assert_eq!(names("fn r#type() {}\nfn g() {}"), [("r".into(), 1), ("g".into(), 1)]);
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let text = "trait T { fn none(&self, x: [u8; 4]) -> u8; fn some() {\n}\n}\n\
                    pub fn outer<F: Fn(u8)>(g: fn(u8) -> u8) where F: Clone {\n  fn inner() {\n  }\n  let s = \"}\";\n}\n";
        assert_eq!(names(text), [("some".into(), 2), ("outer".into(), 5), ("inner".into(), 2)]);
    }

    #[test]
    fn broken_text_does_not_panic() {
        for text in ["\"open", "'", "'\\", "r#\"open", "/* /*", "fn f( {", "}}}", "fn", "b'", "/*é*/ 'é"] {
            let s = Source::scan(text);
            assert_eq!(s.code.len(), text.len());
        }
    }

    #[test]
    fn test_items_are_counted_apart() {
        let s = Source::scan(
            "fn a() {}\n#[cfg(test)]\nmod tests {\n  // note\n  fn b() {}\n}\n#[cfg(test)]\nuse x;\nfn c() {}\n",
        );
        assert_eq!(s.code_lines(), 8);
        assert_eq!(s.test_lines(), 6);
    }
}
