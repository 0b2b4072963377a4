//! The terminal: what goes where, in which style.
//!
//! Answers go to standard output. Everything else (reasoning, status, notes) goes to standard error, dimmed if that is a
//! terminal. What a model writes is not trusted: on a terminal its control characters are replaced, so that an answer
//! cannot move the cursor or rename the window.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use tangelo_chat::Event;

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// Shows one answer after the other.
#[derive(Debug)]
pub struct Screen {
    hides_reasoning: bool,
    out_is_terminal: bool,
    err_is_terminal: bool,
    is_styled: bool,
    /// Whether the last thing written was reasoning.
    in_reasoning: bool,
    /// Whether standard output, and standard error, are inside a line.
    out_is_open: bool,
    err_is_open: bool,
    /// Names of the calls that have begun.
    calls: Vec<(usize, String)>,
}

impl Screen {
    /// The screen of this process. `NO_COLOR` (no-color.org) and `TERM=dumb` turn styles off.
    pub fn new(hides_reasoning: bool) -> Screen {
        let (out_is_terminal, err_is_terminal) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Screen {
            hides_reasoning,
            out_is_terminal,
            err_is_terminal,
            is_styled: err_is_terminal && !is_set("NO_COLOR") && !is_dumb,
            in_reasoning: false,
            out_is_open: false,
            err_is_open: false,
            calls: Vec::new(),
        }
    }

    /// Shows an event of an answer.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn show(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Reasoning(text) if !self.hides_reasoning => {
                self.in_reasoning = true;
                self.aside(text);
            }
            Event::Reasoning(_) | Event::ToolCallArguments { .. } => {}
            Event::Content(text) => {
                self.end_reasoning();
                self.out(text)?;
            }
            Event::ToolCallStart { index, name, .. } => self.calls.push((*index, name.clone())),
            Event::ToolCallEnd { index, arguments, complete } => {
                self.end_reasoning();
                self.end_line()?;
                let name =
                    self.calls.iter().rfind(|(other, _)| other == index).map(|(_, name)| name.as_str());
                let arguments = serde_json::to_string(arguments).unwrap_or_default();
                let note = if *complete { "" } else { " (cut short)" };
                let line = format!("[tool call] {} {arguments}{note}\n", name.unwrap_or_default());
                self.out(&line)?;
            }
        }
        Ok(())
    }

    /// Ends an answer: what follows begins a line.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn finish(&mut self) -> io::Result<()> {
        self.end_reasoning();
        self.calls.clear();
        self.end_line()
    }

    /// A line beside the conversation.
    pub fn note(&mut self, text: &str) {
        self.aside(text);
        self.aside("\n");
    }

    /// Text for the reader's eye only. Nobody may be reading, which is no reason to stop.
    fn aside(&mut self, text: &str) {
        let text = if self.err_is_terminal { printable(text) } else { Cow::Borrowed(text) };
        let mut err = io::stderr().lock();
        let _ = if self.is_styled { write!(err, "{DIM}{text}{RESET}") } else { write!(err, "{text}") };
        let _ = err.flush();
        self.err_is_open = leaves_open(&text, self.err_is_open);
    }

    fn out(&mut self, text: &str) -> io::Result<()> {
        let text = if self.out_is_terminal { printable(text) } else { Cow::Borrowed(text) };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        self.out_is_open = leaves_open(&text, self.out_is_open);
        Ok(())
    }

    /// Reasoning is set off from what follows.
    fn end_reasoning(&mut self) {
        if std::mem::take(&mut self.in_reasoning) {
            let end = if self.err_is_open { "\n\n" } else { "\n" };
            self.aside(end);
        }
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.out_is_open { self.out("\n") } else { Ok(()) }
    }
}

/// Whether the line is open after `text` if it was before.
fn leaves_open(text: &str, was_open: bool) -> bool {
    if text.is_empty() { was_open } else { !text.ends_with('\n') }
}

/// The text with control characters, but for newlines and tabs, replaced by U+FFFD.
fn printable(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(is_bad) { Cow::Owned(text.replace(is_bad, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_cannot_speak_to_the_terminal() {
        assert_eq!(printable("plain \u{e9}\n\ttext"), "plain \u{e9}\n\ttext");
        assert_eq!(printable("\x1b[2J\x07\r\u{9b}x\u{7f}"), "\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}x\u{fffd}");
    }
}
