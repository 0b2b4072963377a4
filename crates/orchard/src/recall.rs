//! Drills in taking up what was said before: names repeated, and values found by their names. Every word of an answer stands
//! in its question, so copying is learned here that all other subjects need.

use tangelo_core::random::Random;

use crate::names::{listed, names, things};
use crate::{Exercise, Split, Subject, asked, if_so, said, says};

pub(crate) fn exercise(random: &mut Random, split: Split) -> Exercise {
    let count = 2 + random.below(7);
    let (kind, question, answer, thought) = match random.below(3) {
        0 => repeat(random, split, count),
        1 => values(random, split, count),
        _ => next(random, split, count + 1),
    };
    let thinks = random.chance(0.25);
    let mut message = says(answer.clone());
    message.reasoning_content = thinks.then_some(thought);
    Exercise {
        subject: Subject::Recall,
        kind,
        conversation: asked(None, question),
        thinks,
        answer: message,
        grader: Box::new(move |message| {
            if_so(said(message).trim_end_matches('.') == answer.trim_end_matches('.'))
        }),
    }
}

/// Names, or names and things, as they stand.
fn repeat(random: &mut Random, split: Split, count: usize) -> (&'static str, String, String, String) {
    let mut words = names(random, split, count);
    if random.chance(0.4) {
        words.extend(things(random, 2).into_iter().map(|(one, _)| one.to_owned()));
        random.shuffle(&mut words);
    }
    let list = words.join(", ");
    let ask = random.pick(&["Repeat this", "Say this again", "Copy this list", "Write this once more"]);
    ("recall.repeat", format!("{ask}: {list}."), format!("{list}."), "I copy the list.".to_owned())
}

/// The values of some names, in another order.
fn values(random: &mut Random, split: Split, count: usize) -> (&'static str, String, String, String) {
    let mut pairs: Vec<(String, String)> = names(random, split, count)
        .into_iter()
        .map(|name| (name, (2 + random.below(97)).to_string()))
        .collect();
    let of = |pairs: &[(String, String)]| -> Vec<String> {
        pairs.iter().map(|(name, value)| format!("{name} {value}")).collect()
    };
    let told = of(&pairs).join(", ");
    random.shuffle(&mut pairs);
    pairs.truncate(1 + random.below(count));
    let wanted: Vec<String> = pairs.iter().map(|(name, _)| name.clone()).collect();
    let ask = random.pick(&["What are the numbers of", "Give the numbers of", "Say again the numbers of"]);
    let answer = format!("{}.", of(&pairs).join(", "));
    (
        "recall.values",
        format!("{told}. {ask} {}?", listed(&wanted)),
        answer,
        "I look each of them up.".to_owned(),
    )
}

/// What follows a name in a list.
fn next(random: &mut Random, split: Split, count: usize) -> (&'static str, String, String, String) {
    let names = names(random, split, count);
    let at = random.below(count - 1);
    let ask = random.pick(&["Who comes after", "Who is next after", "Which name follows"]);
    let question = format!("{}. {ask} {}?", names.join(", "), names[at]);
    (
        "recall.next",
        question,
        format!("{}.", names[at + 1]),
        format!("{} is followed by {}.", names[at], names[at + 1]),
    )
}
