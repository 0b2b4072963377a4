//! How a conversation will come back: the beginnings that its next prompt can have.
//!
//! Templates rewrite history (reasoning of past turns is left out), clients send it back in their own form (with or
//! without reasoning), and text is not always tokenised as it was generated. So the state at the end of an answer is
//! rarely one that the next prompt continues. What the next prompt will begin with can be known at once, though: render
//! the conversation with the answer and a message of the kind that comes next, and take what lies before that message.
//! A server computes these beginnings while it has nothing else to do.

use tangelo_formats::tokenizer::Tokenizer;

use crate::error::Result;
use crate::message::{Conversation, Message, Role};
use crate::render::{PromptTokens, RenderOptions, Renderer};

/// Texts of a next message that have nothing in common.
const NEXT: [&str; 2] = ["Where to?", "{\"n\": 42}"];

/// The beginnings that the next prompt can have after `answer`, each up to the turn of the message to come. Reasoning may
/// come back or not; what comes next is the results of tools if the answer calls any, else something from the user.
///
/// # Errors
/// The template refuses such a conversation, or the tokenizer fails.
pub fn follow_ups(
    renderer: &Renderer,
    tokenizer: &Tokenizer,
    conversation: &Conversation,
    options: &RenderOptions,
    answer: &Message,
) -> Result<Vec<PromptTokens>> {
    let silent = Message { reasoning_content: None, ..answer.clone() };
    let forms = if silent == *answer { vec![silent] } else { vec![answer.clone(), silent] };
    let mut found: Vec<PromptTokens> = Vec::new();
    for form in forms {
        let mut prompts = Vec::with_capacity(NEXT.len());
        for text in NEXT {
            let mut next = conversation.clone();
            next.messages.push(form.clone());
            next.messages.extend(next_messages(&form, text));
            prompts.push(renderer.render(&next, options)?.tokens(tokenizer)?);
        }
        let [first, second] = prompts.as_slice() else { continue };
        let common = first.ids.iter().zip(&second.ids).take_while(|(a, b)| a == b).count();
        // The text of the message may change how what is before it is tokenised, but not across a turn's marker.
        let Some(end) = first.cuts.iter().map(|cut| cut.offset).filter(|&offset| offset <= common).max()
        else {
            continue;
        };
        let ids = first.ids.get(..end).unwrap_or_default().to_vec();
        let cuts = first.cuts.iter().copied().filter(|cut| cut.offset < end).collect();
        if !found.iter().any(|other| other.ids == ids) {
            found.push(PromptTokens { ids, cuts });
        }
    }
    Ok(found)
}

fn next_messages(answer: &Message, text: &str) -> Vec<Message> {
    if answer.tool_calls.is_empty() {
        return vec![Message::new(Role::User, text)];
    }
    let result = |id: &Option<String>| Message { tool_call_id: id.clone(), ..Message::new(Role::Tool, text) };
    answer.tool_calls.iter().map(|call| result(&call.id)).collect()
}
