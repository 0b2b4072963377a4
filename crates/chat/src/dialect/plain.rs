//! Templates with no tool calls that we know how to read: ChatML and everything unknown.
//!
//! Turns are looked for with ChatML's marker; where it does not occur, a prompt simply has no places worth keeping.
//! Reasoning tags are read as in the other dialects.

use super::{CallReader, CallSink, Dialect, Progress};
use crate::message::Tool;

pub(super) const DIALECT: Dialect = Dialect {
    name: "plain",
    recognises: |_| true,
    turn_starts: &["<|im_start|>"],
    tool_result_close: None,
    call_open: None,
    reader: || Box::new(NoCalls),
    write: |_, _, _| None,
};

/// Never finds a call.
struct NoCalls;

impl CallReader for NoCalls {
    fn step(&mut self, _: &str, _: bool, _: &[Tool], _: &mut CallSink) -> Progress {
        Progress::Reject
    }
}
