//! The calls of an assistant message, answered without asking anybody: what a server does between two answers.

use futures_util::future::join_all;
use tangelo_chat::{Message, Role, ToolCall};

use crate::allowed::Allowed;
use crate::error::Result;
use crate::outcome::ToolOutcome;
use crate::servers::Servers;

/// Runs the calls of an assistant message, all at once, and returns a tool message for each, in their order: append
/// them to the conversation behind the message, and let the model go on.
///
/// `None` if nothing was called, or if any call is of a tool that is not ours or not allowed: then none is run, since
/// whoever sent the other tools has to answer those calls, and would not know which of them have been made already.
/// That a call fails is a result, which the model is told. If the future is dropped, all calls are cancelled.
pub async fn answer_calls(servers: &Servers, allowed: &Allowed, message: &Message) -> Option<Vec<Message>> {
    let is_ours = |call: &ToolCall| servers.tool(&call.name).is_some_and(|tool| allowed.allows(&tool));
    if message.tool_calls.is_empty() || !message.tool_calls.iter().all(is_ours) {
        return None;
    }
    let answers = message.tool_calls.iter().map(|call| async move {
        let outcome = servers.call(&call.name, call.arguments.clone()).await;
        tool_message(call, &result_text(&outcome))
    });
    Some(join_all(answers).await)
}

/// What the model is told about a call.
pub fn result_text(outcome: &Result<ToolOutcome>) -> String {
    match outcome {
        Ok(outcome) => outcome.text.clone(),
        Err(error) => format!("The call failed: {error}"),
    }
}

/// The message that answers a call.
pub fn tool_message(call: &ToolCall, text: &str) -> Message {
    let (tool_call_id, name) = (call.id.clone(), Some(call.name.clone()));
    Message { tool_call_id, name, ..Message::new(Role::Tool, text) }
}
