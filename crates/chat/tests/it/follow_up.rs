//! What is foreseen of the next prompt is what it then begins with, whatever the template, the vocabulary and the client.

use tangelo_chat::{
    Conversation, Message, PromptTokens, RenderOptions, Renderer, Role, ToolCall, beginning, follow_ups,
};
use tangelo_formats::tokenizer::Tokenizer;

use crate::fixtures::{BARE, FOLDERS, NANO_V2, agent_conversation, read, renderer, tokenizer};

/// Texts of a next message that join in all sorts of ways with what is before them.
const TEXTS: [&str; 10] = [
    "Thanks! And now?",
    "",
    "\n",
    "\n\nhello",
    "  x",
    "{}",
    "5",
    "日本",
    "<think>",
    "e\u{301}t\u{e9} \u{1f34a}",
];

/// Most tokens between the end of what was foreseen and the text of the message: a role and the line ends around it, in a
/// vocabulary of 512 tokens.
const TOKENS_MISSED_MAX: usize = 4;

fn answer(reasoning: Option<&str>, content: Option<&str>, calls: &[(&str, &str)]) -> Message {
    let call = |&(name, city): &(&str, &str)| {
        let arguments = serde_json::Map::from_iter([("city".to_owned(), city.into())]);
        ToolCall { id: Some(format!("id_{city}")), name: name.to_owned(), arguments }
    };
    Message {
        content: content.map(str::to_owned),
        reasoning_content: reasoning.map(str::to_owned),
        tool_calls: calls.iter().map(call).collect(),
        ..Message::new(Role::Assistant, "")
    }
}

fn answers() -> Vec<Message> {
    vec![
        answer(None, Some("It is sunny."), &[]),
        answer(Some("Sun in Rome.\n\nSnow in Oslo."), Some("Sun and snow.\n"), &[]),
        answer(Some("Once more."), None, &[("w", "Rome")]),
        answer(Some("Both."), Some("Let me look."), &[("w", "Rome"), ("w", "Oslo")]),
        answer(None, Some(""), &[]),
    ]
}

/// A conversation after one turn of each kind: plain, and inside a loop of tools.
fn pasts() -> Vec<Conversation> {
    let inside_a_loop = agent_conversation();
    let mut plain = inside_a_loop.clone();
    plain.messages.truncate(4);
    vec![plain, inside_a_loop]
}

/// The tokens of `prompt` between the longest foreseen beginning and the last occurrence of `text`.
fn missed(
    tokenizer: &Tokenizer,
    prompt: &str,
    ids: &[u32],
    foreseen: &[PromptTokens],
    text: &str,
) -> Option<usize> {
    let known =
        foreseen.iter().filter(|known| ids.starts_with(&known.ids)).map(|known| known.ids.len()).max()?;
    let place = prompt.rfind(text).unwrap();
    let mut bytes = 0;
    let before = ids.iter().take_while(|&&id| {
        bytes += tokenizer.token_bytes(id).unwrap().len();
        bytes <= place
    });
    Some(before.count().saturating_sub(known))
}

fn check(renderer: &Renderer, tokenizer: &Tokenizer, options: &RenderOptions, context: &str) {
    for past in pasts() {
        for answer in answers() {
            let foreseen = follow_ups(renderer, tokenizer, &past, options, &answer).unwrap();
            assert!((1..=2).contains(&foreseen.len()), "{context}");
            for form in [answer.clone(), Message { reasoning_content: None, ..answer.clone() }] {
                for text in TEXTS {
                    let mut next = past.clone();
                    next.messages.push(form.clone());
                    if form.tool_calls.is_empty() {
                        next.messages.push(Message::new(Role::User, text));
                    }
                    for call in &form.tool_calls {
                        let result = Message::new(Role::Tool, text);
                        next.messages.push(Message { tool_call_id: call.id.clone(), ..result });
                    }
                    let rendered = renderer.render(&next, options).unwrap();
                    let ids = rendered.tokens(tokenizer).unwrap().ids;
                    let context = format!("{context}: {text:?} after {form:?}");
                    let known = foreseen.iter().any(|known| ids.starts_with(&known.ids));
                    assert!(known, "{context}: no beginning of {:?}", rendered.prompt);
                    // Only one text of a message occurs nowhere else and once.
                    if text == TEXTS[0] && form.tool_calls.len() < 2 {
                        let missed = missed(tokenizer, &rendered.prompt, &ids, &foreseen, text).unwrap();
                        assert!(missed <= TOKENS_MISSED_MAX, "{context}: {missed} tokens not foreseen");
                    }
                }
            }
            for PromptTokens { ids, cuts } in &foreseen {
                assert!(cuts.is_sorted_by(|a, b| a.offset < b.offset), "{context}");
                assert!(cuts.iter().all(|cut| cut.offset < ids.len()), "{context}");
            }
        }
    }
}

#[test]
fn the_next_prompt_begins_as_foreseen() {
    for folder in FOLDERS {
        let tokenizer = tokenizer(folder);
        let own = read(&format!("{folder}/chat_template.jinja"));
        for (name, source) in [("own", own.as_str()), ("Nano v2", NANO_V2), ("bare", BARE)] {
            let renderer = renderer(source);
            for (thinking, truncate) in
                [(None, None), (Some(true), Some(false)), (Some(false), Some(true)), (Some(false), None)]
            {
                let options = RenderOptions {
                    add_generation_prompt: true,
                    enable_thinking: thinking,
                    truncate_history_thinking: truncate,
                    ..RenderOptions::default()
                };
                let context = format!("{folder}, {name}, thinking {thinking:?}, truncated {truncate:?}");
                check(&renderer, &tokenizer, &options, &context);
            }
        }
    }
}

#[test]
fn there_are_as_many_beginnings_as_forms_that_differ() {
    let tokenizer = tokenizer("tiny");
    let [plain, inside_a_loop] = pasts().try_into().unwrap();
    let answers = answers();
    let (thoughtful, calling) = (&answers[1], &answers[2]);
    let found = |source: &str, past: &Conversation, answer: &Message, truncate| -> Vec<String> {
        let options = RenderOptions {
            add_generation_prompt: true,
            truncate_history_thinking: truncate,
            ..RenderOptions::default()
        };
        let found = follow_ups(&renderer(source), &tokenizer, past, &options, answer).unwrap();
        found.iter().map(|known| tokenizer.decode(&known.ids, false)).collect()
    };
    let own = read("tiny/chat_template.jinja");
    let thoughts =
        |found: &[String], text| found.iter().map(|known| known.contains(text)).collect::<Vec<_>>();
    // The next message is the user's, so the template leaves reasoning out, and a line end behind it in.
    let truncated = found(&own, &plain, thoughtful, None);
    assert_eq!(thoughts(&truncated, "Snow in Oslo."), [false, false]);
    assert_eq!(thoughts(&truncated, "<think></think>\nSun and snow."), [true, false]);
    assert_eq!(thoughts(&found(&own, &plain, thoughtful, Some(false)), "Snow in Oslo."), [true, false]);
    // The results of tools belong to the same turn: the template keeps reasoning that comes back.
    assert_eq!(thoughts(&found(&own, &plain, calling, None), "Once more."), [true, false]);
    assert_eq!(thoughts(&found(&own, &inside_a_loop, calling, None), "Once more."), [true, false]);
    // This one never writes it.
    assert_eq!(thoughts(&found(NANO_V2, &plain, thoughtful, None), "Sun and snow."), [true]);
}

/// A state that is kept for a persona: everything before the user's first message.
#[test]
fn a_conversation_that_has_not_begun_has_a_beginning() {
    let (renderer, tokenizer) = (renderer(&read("tiny/chat_template.jinja")), tokenizer("tiny"));
    let mut past = agent_conversation();
    past.messages.truncate(1);
    let known = beginning(&renderer, &tokenizer, &past, &RenderOptions::default()).unwrap();
    let text = tokenizer.decode(&known.ids, false);
    assert!(text.starts_with("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>"), "{text:?}");
    assert!(!text.contains(['?', '4', '{']), "{text:?}");
}
