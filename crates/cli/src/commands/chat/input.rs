//! Reading messages: edited lines at a terminal, plain lines from anything else.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use anyhow::{Result, bail};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tangelo_core::limits::RENDERED_BYTES_MAX;

/// Prompt of the second and later lines of a message.
const MORE: &str = ". ";
/// Begins and ends a message of several lines.
const BLOCK: &str = "\"\"\"";

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A message, which may have several lines.
    Text(String),
    /// Ctrl-C instead of a message.
    Interrupted,
    /// The end of the input.
    End,
}

/// Where messages come from.
pub enum Input {
    /// A terminal, with line editing and a history that outlives the program.
    Terminal(Box<Terminal>),
    /// A pipe or a file.
    Pipe,
}

/// The editor and its history.
pub struct Terminal {
    editor: DefaultEditor,
    history: Option<PathBuf>,
}

impl Input {
    /// The input of this process.
    ///
    /// # Errors
    /// If the terminal cannot be used.
    pub fn new() -> Result<Input> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Input::Pipe);
        }
        let mut editor = DefaultEditor::new()?;
        let history = history_file();
        // The first time there is none, and a lost history is no reason not to talk.
        history.iter().for_each(|path| drop(editor.load_history(path)));
        Ok(Input::Terminal(Box::new(Terminal { editor, history })))
    }

    /// Whether somebody is typing.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Input::Terminal(_))
    }

    /// Reads a message: a line, lines that end with a backslash and the one behind them, or what stands between two
    /// triple quotes.
    ///
    /// # Errors
    /// If the input fails or is not text.
    pub fn read(&mut self, prompt: &str) -> Result<Line> {
        let line = assemble(prompt, |prompt| self.line(prompt, ""))?;
        if let (Line::Text(text), Input::Terminal(terminal)) = (&line, self) {
            terminal.remember(text);
        }
        Ok(line)
    }

    /// Lets the user change a text; `None` if there is nobody to change it, or it is given up.
    ///
    /// # Errors
    /// If the input fails, or is not a terminal.
    pub fn edit(&mut self, text: &str) -> Result<Option<String>> {
        if !self.is_terminal() {
            bail!("the input is not a terminal: give the new text, as in /edit TEXT");
        }
        let Line::Text(text) = self.line("edit> ", text)? else { return Ok(None) };
        if let Input::Terminal(terminal) = self {
            terminal.remember(&text);
        }
        Ok(Some(text).filter(|text| !text.trim().is_empty()))
    }

    /// Reads one line that answers a question; it is not remembered.
    ///
    /// # Errors
    /// If the input fails or is not text.
    pub fn ask(&mut self, prompt: &str) -> Result<Line> {
        self.line(prompt, "")
    }

    fn line(&mut self, prompt: &str, initial: &str) -> Result<Line> {
        match self {
            Input::Terminal(terminal) => match terminal.editor.readline_with_initial(prompt, (initial, "")) {
                Ok(text) => Ok(Line::Text(text)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(error.into()),
            },
            Input::Pipe => {
                let mut text = String::new();
                let limit = RENDERED_BYTES_MAX as u64;
                let read = io::Read::take(io::stdin().lock(), limit).read_line(&mut text)?;
                let text =
                    text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
                Ok(if read == 0 { Line::End } else { Line::Text(text.to_owned()) })
            }
        }
    }
}

impl Terminal {
    fn remember(&mut self, text: &str) {
        let _ = self.editor.add_history_entry(text);
        if let Some(path) = &self.history {
            let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            // Where nothing can be written, the history ends with the program.
            let _ = folder.map(|()| self.editor.save_history(path));
        }
    }
}

/// Reads lines until a message is complete. The end of the input completes it too.
fn assemble(prompt: &str, mut line: impl FnMut(&str) -> Result<Line>) -> Result<Line> {
    let first = match line(prompt)? {
        Line::Text(text) => text,
        other => return Ok(other),
    };
    let (mut text, is_block) = match first.trim_start().strip_prefix(BLOCK) {
        Some(rest) => (rest.to_owned(), true),
        None => (first, false),
    };
    loop {
        if is_block {
            if let Some(inner) = text.trim_end().strip_suffix(BLOCK) {
                return Ok(Line::Text(inner.trim_matches('\n').to_owned()));
            }
        } else {
            match text.strip_suffix('\\') {
                Some(open) => text = open.to_owned(),
                None => return Ok(Line::Text(text)),
            }
        }
        match line(MORE)? {
            Line::Text(more) => text = text + "\n" + &more,
            Line::Interrupted => return Ok(Line::Interrupted),
            Line::End => return Ok(Line::Text(text.trim_matches('\n').to_owned())),
        }
    }
}

/// Where the history is kept, by the XDG base directory specification.
fn history_file() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local").join("state")))?;
    Some(state.join("tangelo").join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> (Line, usize) {
        let mut used = 0;
        let line = assemble("> ", |prompt| {
            assert_eq!(prompt, if used == 0 { "> " } else { MORE });
            used += 1;
            Ok(lines.get(used - 1).map_or(Line::End, |line| Line::Text((*line).into())))
        });
        (line.expect("lines are read"), used)
    }

    #[test]
    fn messages_may_have_several_lines() {
        let text = |text: &str, used: usize| (Line::Text(text.into()), used);
        assert_eq!(read(&["one", "two"]), text("one", 1));
        assert_eq!(read(&["one\\", "two\\", "three", "four"]), text("one\ntwo\nthree", 3));
        assert_eq!(read(&["\"\"\"", "one", "", "two\\", "\"\"\"", "x"]), text("one\n\ntwo\\", 5));
        assert_eq!(read(&["\"\"\"one", "two\"\"\" ", "x"]), text("one\ntwo", 2));
        assert_eq!(read(&["\"\"\"one\"\"\"", "x"]), text("one", 1));
        assert_eq!(read(&["one\\"]), text("one", 2), "the end of the input ends the message");
        assert_eq!(read(&["\"\"\"", "one"]), text("one", 3));
        assert_eq!(read(&[]), (Line::End, 1));
    }
}
