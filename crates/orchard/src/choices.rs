//! The choice among tools by itself, which takes a tenth of the tokens of a call: functions as the chat template writes them,
//! without parameters, and which of them is for what is asked.

use tangelo_chat::{Conversation, Message, Role};
use tangelo_core::random::Random;

use crate::tools::{Declared, NONE, asked_for, declines, some, two};
use crate::{Exercise, Split, Subject, if_so, said, says};

/// Questions in a conversation, at most.
const QUESTIONS: usize = 8;

/// What is asked, and the answer.
struct Question {
    kind: &'static str,
    text: String,
    answer: String,
    thought: String,
}

pub(crate) fn exercise(random: &mut Random, split: Split) -> Exercise {
    let count = 2 + random.below(4);
    let (declared, spare) = some(random, split, count);
    let mut messages = vec![Message::new(Role::System, system(random, &declared))];
    let question = |random: &mut Random| match random.below(10) {
        0..3 => Question {
            kind: "choices.none",
            text: asked_for(random, split, &spare).text,
            answer: NONE.to_owned(),
            thought: "None of the tools fits.".to_owned(),
        },
        3..6 => {
            let (text, requests) = two(random, split, &declared);
            chosen("choices.two", text, &requests.map(|(tool, _)| tool.name.as_str()))
        }
        _ => {
            let tool = random.of(&declared);
            chosen("choices.one", tool.request(random, split, 0).text, &[tool.name.as_str()])
        }
    };
    for _ in 0..random.below(QUESTIONS) {
        let Question { text, answer, .. } = question(random);
        messages.extend([Message::new(Role::User, text), says(answer)]);
    }
    let Question { kind, text, answer, thought } = question(random);
    messages.push(Message::new(Role::User, text));
    let thinks = random.chance(0.2);
    let mut message = says(answer.clone());
    message.reasoning_content = thinks.then_some(thought);
    Exercise {
        subject: Subject::Choices,
        kind,
        conversation: Conversation { messages, tools: Vec::new() },
        thinks,
        answer: message,
        grader: Box::new(move |message| {
            let is_right = match kind {
                "choices.none" => declines(said(message)),
                _ => named(said(message)).eq(named(&answer)),
            };
            if_so(is_right)
        }),
    }
}

/// The functions of an answer, each in its line, with the tag of calls or without.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("<function=").trim_end_matches('>'));
    lines.filter(|name| !name.is_empty())
}

fn chosen(kind: &'static str, text: String, names: &[&str]) -> Question {
    let answer: Vec<String> = names.iter().map(|name| format!("<function={name}>")).collect();
    Question { kind, text, answer: answer.join("\n"), thought: format!("I call {}.", names.join(" and ")) }
}

fn system(random: &mut Random, declared: &[Declared]) -> String {
    let mut text = "Which function is for it?\n".to_owned();
    for tool in declared {
        let description = tool.description(random);
        let description = description.map(|text| format!("\n<description>{text}</description>"));
        text += &format!(
            "\n<function>\n<name>{}</name>{}\n</function>",
            tool.name,
            description.unwrap_or_default()
        );
    }
    text
}
