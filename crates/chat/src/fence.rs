//! Whether text that arrives in pieces is inside a fenced code block.
//!
//! CommonMark 0.31 section 4.5: a fence is three or more backticks or tildes behind at most three spaces. It is closed
//! by a line of at least as many of the same character and nothing else. What follows an opening fence of backticks on
//! its line holds no backtick (else it is inline code). Indentation inside lists is not followed.

/// The state of a text.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fence {
    /// The character and the length of the open fence.
    open: Option<(char, usize)>,
    line: Line,
}

/// What the current line has been so far.
#[derive(Debug, Clone, Copy)]
enum Line {
    /// This many spaces.
    Indent(usize),
    /// Then a run of a fence character of this length.
    Run(char, usize),
    /// A run that opened the fence, and then its info string.
    Opening { info: bool },
    /// A run that closes the fence if only spaces follow.
    Closing,
    /// Anything else.
    Text,
}

impl Default for Line {
    fn default() -> Self {
        Self::Indent(0)
    }
}

impl Fence {
    /// Whether the next character would be code.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The state behind some more text.
    #[must_use]
    pub(crate) fn after(mut self, text: &str) -> Self {
        text.chars().for_each(|character| self.push(character));
        self
    }

    /// A line ends, as with a newline.
    pub(crate) fn end_line(&mut self) {
        if matches!(self.line, Line::Closing) || self.run_closes() {
            self.open = None;
        }
        self.line = Line::Indent(0);
    }

    fn push(&mut self, character: char) {
        let space = matches!(character, ' ' | '\t' | '\r');
        match (self.line, character) {
            (_, '\n') => self.end_line(),
            (Line::Indent(width), ' ') if width < 3 => self.line = Line::Indent(width.saturating_add(1)),
            (Line::Indent(_), '`' | '~') => self.line = Line::Run(character, 1),
            (Line::Run(run, length), _) if run == character => self.lengthen(run, length.saturating_add(1)),
            (Line::Run(..), _) if space && self.run_closes() => self.line = Line::Closing,
            (Line::Closing, _) if space => {}
            (Line::Opening { info }, _) => self.push_opening(character, info),
            _ => self.line = Line::Text,
        }
    }

    /// A run of three opens a fence at once if none is open.
    fn lengthen(&mut self, run: char, length: usize) {
        if self.open.is_none() && length >= 3 {
            self.open = Some((run, length));
            self.line = Line::Opening { info: false };
        } else {
            self.line = Line::Run(run, length);
        }
    }

    fn push_opening(&mut self, character: char, info: bool) {
        match &mut self.open {
            Some((run, length)) if *run == character && !info => *length = length.saturating_add(1),
            Some(('`', _)) if character == '`' => {
                self.open = None;
                self.line = Line::Text;
            }
            _ => self.line = Line::Opening { info: true },
        }
    }

    fn run_closes(&self) -> bool {
        match (self.line, self.open) {
            (Line::Run(run, length), Some((open, needed))) => run == open && length >= needed,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_open_and_close_as_in_commonmark() {
        for (text, open) in [
            ("", false),
            ("``", false),
            ("```", true),
            ("```rust\nlet x", true),
            ("```\ncode\n```", true),
            ("```\ncode\n```\n", false),
            ("```\ncode\n```  \r\n", false),
            ("```\ncode\n```x\n", true),
            ("````\n```\n", true),
            ("````\n```\n````\n", false),
            ("   ```\n", true),
            ("    ```\n", false),
            ("text ```\n", false),
            ("~~~\n```\n", true),
            ("~~~ `info`\n", true),
            ("~~~\n~~~~\n", false),
            ("```inline``` code\n", false),
            ("``` a\nb\n```\n```\n", true),
        ] {
            assert_eq!(Fence::default().after(text).is_open(), open, "{text:?}");
        }
    }
}
