//! How a conversation will come back: the beginnings that its next prompt can have.
//!
//! Templates rewrite history (reasoning of past turns is left out), clients send it back in their own form (with or
//! without reasoning), and text is not always tokenised as it was generated. So the state at the end of an answer is
//! rarely one that the next prompt continues. What the next prompt will begin with can be known at once, though: render
//! the conversation with the answer and a message of the kind that comes next, and take what does not depend on that
//! message's text. A server computes these beginnings while it has nothing else to do.
//!
//! Nothing is assumed about the template. That a token belongs to the beginning is seen from prompts with very different
//! messages, whose first characters join in different ways with what is before them.

use tangelo_formats::tokenizer::{EncodeOptions, TokenId, Tokenizer};

use crate::error::Result;
use crate::message::{Conversation, Message, Role};
use crate::render::{PromptTokens, RenderOptions, Renderer};

/// Texts of a next message. They begin with a word, a line end, a space and a bracket: whatever stands before a message's
/// text, one of them is not joined with it into one token as the others are.
const NEXT: [&str; 4] = ["Where to?", "\n\n1. so", " 42", "{\"n\": 0}"];

/// The beginnings that the next prompt can have after `answer`. Reasoning may come back or not; what comes next is the
/// results of tools if the answer calls any, else something from the user.
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
        let mut past = conversation.clone();
        past.messages.push(form);
        let beginning = beginning(renderer, tokenizer, &past, options)?;
        if !found.contains(&beginning) {
            found.push(beginning);
        }
    }
    Ok(found)
}

/// The tokens with which every prompt begins that continues `past` by one turn, and the cuts in them. The turn is the
/// results of tools if the last message calls any, else a message of the user.
///
/// # Errors
/// The template refuses such a conversation, or the tokenizer fails.
pub fn beginning(
    renderer: &Renderer,
    tokenizer: &Tokenizer,
    past: &Conversation,
    options: &RenderOptions,
) -> Result<PromptTokens> {
    let mut continued = past.clone();
    let mut render = |text: &str| {
        continued.messages.truncate(past.messages.len());
        continued.messages.extend(next_messages(past.messages.last(), text));
        renderer.render(&continued, options)
    };
    let [first, others @ ..] = NEXT;
    let first = render(first)?;
    let others = others.iter().map(|text| Ok(render(text)?.prompt)).collect::<Result<Vec<String>>>()?;
    let PromptTokens { mut ids, mut cuts } = first.tokens(tokenizer)?;
    let common =
        others.iter().map(|other| common(first.prompt.as_bytes(), other.as_bytes())).min().unwrap_or(0);
    let (tokens, bytes) = last_special(tokenizer, &ids, common);
    let rest = ids.get(tokens..).unwrap_or_default();
    let mut same = rest.len();
    for other in &others {
        let other = tokenizer.encode(other.get(bytes..).unwrap_or_default(), EncodeOptions::PROMPT)?;
        same = same.min(self::common(rest, &other));
    }
    ids.truncate(tokens.saturating_add(same));
    cuts.retain(|cut| cut.offset < ids.len());
    Ok(PromptTokens { ids, cuts })
}

/// The last special token among the first `limit` bytes of a prompt, as the numbers of tokens and of bytes before it. Special
/// tokens are found before the rest is tokenised, so what is behind one is tokenised as if it stood alone.
fn last_special(tokenizer: &Tokenizer, ids: &[TokenId], limit: usize) -> (usize, usize) {
    let (mut last, mut bytes) = ((0, 0), 0usize);
    for (index, &id) in ids.iter().enumerate() {
        let end = bytes.saturating_add(tokenizer.token_bytes(id).map_or(0, <[u8]>::len));
        if end > limit {
            break;
        }
        if tokenizer.is_special(id) {
            last = (index, bytes);
        }
        bytes = end;
    }
    last
}

/// How many elements at the beginning are the same.
fn common<T: PartialEq>(left: &[T], right: &[T]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

fn next_messages(last: Option<&Message>, text: &str) -> Vec<Message> {
    let calls = last.map_or(&[][..], |message| message.tool_calls.as_slice());
    if calls.is_empty() {
        return vec![Message::new(Role::User, text)];
    }
    let result = |id: &Option<String>| Message { tool_call_id: id.clone(), ..Message::new(Role::Tool, text) };
    calls.iter().map(|call| result(&call.id)).collect()
}
