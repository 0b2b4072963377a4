//! A model's output, as it arrives, to events.
//!
//! The output is reasoning, then content and tool calls in any order. [`StreamParser`] may be given it in pieces cut
//! anywhere; after [`crate::event::merge`] the events do not depend on the cuts. To that end nothing is passed on that
//! later text could make into something else: a beginning of a tag, or whitespace that a tag may follow.
//!
//! The rules:
//!
//! - **Reasoning** goes on until `</think>`, or until a tool call begins (models sometimes forget to close). One
//!   `<think>` at its beginning is dropped, since the prompt usually holds it already. If the prompt did not open
//!   reasoning, a `<think>` that is the very first thing in the output does.
//! - **Content** is everything else. `<think>` and `</think>` in it are text.
//! - **Tool calls** are read if the conversation has tools and the text follows the dialect's grammar; a tag that does
//!   not is text, exactly as written. So is everything inside a fenced code block (Markdown, three or more backticks or
//!   tildes at the beginning of a line): a model that explains the format does not call.
//! - **Whitespace** next to a tag belongs to the tag: at the beginning of reasoning and content, before `</think>`,
//!   around calls. All other whitespace is passed on, also at the end of the output.
//! - At **the end of the output** whatever was held back is text, except a call that had begun: it ends, and is
//!   marked as not complete.

use std::fmt;

use crate::dialect::{CallReader, CallSink, Dialect, Progress, THINK_CLOSE, THINK_OPEN, is_partial};
use crate::event::Event;
use crate::fence::Fence;
use crate::message::Tool;

/// What is being read.
enum Mode {
    /// Nothing yet, outside reasoning.
    Start,
    /// Whitespace at the beginning of reasoning. `true`: a repeated `<think>` may still follow.
    ReasoningStart(bool),
    Reasoning,
    /// Whitespace before content.
    ContentStart,
    Content,
    Call(Box<dyn CallReader>),
}

/// Turns output into events, piece by piece.
pub struct StreamParser {
    dialect: &'static Dialect,
    tools: Vec<Tool>,
    mode: Mode,
    /// Output that is not yet decided.
    buffer: String,
    /// Has looked at the opening tag in the buffer and is undecided.
    undecided: Option<Box<dyn CallReader>>,
    fence: Fence,
    calls: CallSink,
    events: Vec<Event>,
}

impl fmt::Debug for StreamParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamParser")
            .field("dialect", self.dialect)
            .field("buffer", &self.buffer)
            .finish_non_exhaustive()
    }
}

/// What one look at the buffer came to.
enum Step {
    /// Something changed; look again.
    Again,
    /// Nothing more can be decided.
    Wait,
}

impl StreamParser {
    /// A parser for one answer. `starts_in_reasoning`: the prompt ends inside an open `<think>`
    /// ([`crate::Rendered::starts_in_reasoning`]). Without tools, no tool call is recognised.
    pub fn new(dialect: &'static Dialect, tools: &[Tool], starts_in_reasoning: bool) -> Self {
        Self {
            dialect,
            tools: tools.to_vec(),
            mode: if starts_in_reasoning { Mode::ReasoningStart(true) } else { Mode::Start },
            buffer: String::new(),
            undecided: None,
            fence: Fence::default(),
            calls: CallSink::new("call_".to_owned()),
            events: Vec::new(),
        }
    }

    /// Begins the ids of tool calls with something else than `call_`, so that they are unique in a conversation.
    #[must_use]
    pub fn with_call_ids(mut self, prefix: impl Into<String>) -> Self {
        self.calls = CallSink::new(prefix.into());
        self
    }

    /// Whether what comes next is reasoning, as far as the output is decided.
    pub fn is_reasoning(&self) -> bool {
        matches!(self.mode, Mode::ReasoningStart(_) | Mode::Reasoning)
    }

    /// Takes the next piece of the output and returns what is now certain; may be empty.
    pub fn push(&mut self, text: &str) -> Vec<Event> {
        self.buffer.push_str(text);
        self.run(false)
    }

    /// Ends the output. The parser must not be used afterwards.
    pub fn finish(&mut self) -> Vec<Event> {
        self.run(true)
    }

    fn run(&mut self, at_end: bool) -> Vec<Event> {
        while matches!(self.step(at_end), Step::Again) {}
        std::mem::take(&mut self.events)
    }

    fn step(&mut self, at_end: bool) -> Step {
        match &mut self.mode {
            Mode::Start => self.step_start(at_end, true),
            Mode::ReasoningStart(may_repeat) => {
                let may_repeat = *may_repeat;
                self.step_start(at_end, may_repeat)
            }
            Mode::ContentStart => self.step_start(at_end, false),
            Mode::Reasoning | Mode::Content => self.step_text(at_end),
            Mode::Call(_) => self.step_call(at_end),
        }
    }

    /// Drops whitespace at a beginning, and a `<think>` if one may stand here.
    fn step_start(&mut self, at_end: bool, think_may_follow: bool) -> Step {
        let text = self.buffer.trim_start();
        let whitespace = self.buffer.len().saturating_sub(text.len());
        let opens = think_may_follow && text.starts_with(THINK_OPEN);
        let could_open = think_may_follow && is_partial(text, THINK_OPEN);
        if text.is_empty() || (could_open && !at_end) {
            self.buffer.drain(..whitespace);
            return Step::Wait;
        }
        if opens {
            self.buffer.drain(..whitespace.saturating_add(THINK_OPEN.len()));
            self.mode = Mode::ReasoningStart(false);
        } else {
            self.buffer.drain(..whitespace);
            self.mode =
                if matches!(self.mode, Mode::ReasoningStart(_)) { Mode::Reasoning } else { Mode::Content };
        }
        Step::Again
    }

    /// Passes on text up to the next tag that means something here.
    fn step_text(&mut self, at_end: bool) -> Step {
        let close = matches!(self.mode, Mode::Reasoning).then_some(THINK_CLOSE);
        let open = self.dialect.call_open.filter(|_| !self.tools.is_empty());
        let tags = [close, open];
        let found = tags.iter().flatten().filter_map(|tag| Some((self.buffer.find(tag)?, *tag))).min();
        match found {
            Some((place, tag)) if Some(tag) == close => {
                self.pass_on(place, Trim::Whitespace);
                self.buffer.drain(..tag.len());
                self.mode = Mode::ContentStart;
                Step::Again
            }
            Some((place, tag)) => self.step_call_tag(place, tag, at_end),
            None if at_end => {
                self.pass_on(self.buffer.len(), Trim::Nothing);
                Step::Wait
            }
            None => {
                let held =
                    tags.iter().flatten().map(|tag| partial_suffix(&self.buffer, tag)).max().unwrap_or(0);
                self.pass_on(self.buffer.len().saturating_sub(held), Trim::Hold);
                Step::Wait
            }
        }
    }

    /// There is an opening tag of calls at `place`: a call begins, or the tag is text, or it is too early to say.
    fn step_call_tag(&mut self, place: usize, tag: &str, at_end: bool) -> Step {
        let (text, block) = self.buffer.split_at_checked(place).unwrap_or_default();
        let mut grammar = self.undecided.take().unwrap_or_else(self.dialect.reader);
        let fenced = matches!(self.mode, Mode::Content) && self.fence.after(text).is_open();
        let progress =
            if fenced { Progress::Reject } else { grammar.step(block, at_end, &self.tools, &mut self.calls) };
        match progress {
            Progress::More => {
                self.undecided = Some(grammar);
                self.pass_on(place, Trim::Hold);
                Step::Wait
            }
            Progress::Reject => {
                self.pass_on(place.saturating_add(tag.len()), Trim::Nothing);
                Step::Again
            }
            Progress::Advance(consumed) | Progress::Done(consumed) => {
                self.pass_on(place, Trim::Whitespace);
                self.buffer.drain(..consumed);
                self.fence.end_line();
                self.events.append(&mut self.calls.take_events());
                self.mode = match progress {
                    Progress::Done(_) => Mode::ContentStart,
                    _ => Mode::Call(grammar),
                };
                Step::Again
            }
        }
    }

    fn step_call(&mut self, at_end: bool) -> Step {
        let Mode::Call(grammar) = &mut self.mode else { return Step::Wait };
        let progress = grammar.step(&self.buffer, at_end, &self.tools, &mut self.calls);
        self.events.append(&mut self.calls.take_events());
        match progress {
            Progress::More => Step::Wait,
            Progress::Advance(consumed) => {
                self.buffer.drain(..consumed);
                Step::Again
            }
            Progress::Done(consumed) => {
                self.buffer.drain(..consumed);
                self.mode = Mode::ContentStart;
                Step::Again
            }
            // A grammar that has begun a call ends it before it gives up.
            Progress::Reject => {
                self.mode = Mode::ContentStart;
                Step::Again
            }
        }
    }

    /// Makes an event of the first `length` bytes of the buffer, but for whitespace at their end as `trim` says.
    fn pass_on(&mut self, length: usize, trim: Trim) {
        let text = self.buffer.get(..length).unwrap_or_default();
        let kept = if matches!(trim, Trim::Nothing) { text } else { text.trim_end() };
        let removed = if matches!(trim, Trim::Hold) { kept.len() } else { length };
        if !kept.is_empty() {
            self.events.push(match self.mode {
                Mode::Reasoning => Event::Reasoning(kept.to_owned()),
                _ => {
                    self.fence = self.fence.after(kept);
                    Event::Content(kept.to_owned())
                }
            });
        }
        self.buffer.drain(..removed);
    }
}

/// What happens to whitespace before a tag.
#[derive(Clone, Copy)]
enum Trim {
    /// It is passed on.
    Nothing,
    /// It stays in the buffer until it is known what follows.
    Hold,
    /// It is dropped.
    Whitespace,
}

/// Length of the longest end of `text` that is a beginning of `tag`.
fn partial_suffix(text: &str, tag: &str) -> usize {
    let longest = text.len().min(tag.len().saturating_sub(1));
    (1..=longest).rev().find(|&length| text.ends_with(tag.get(..length).unwrap_or(tag))).unwrap_or(0)
}
