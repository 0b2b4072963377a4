//! Drills in taking up what was said before: lists repeated, values found by their names, and names that are not there. Every
//! word of an answer stands before it, so copying is learned here that all other subjects need.

use tangelo_core::random::Random;

use crate::names::{listed, name_unlike, names, things};
use crate::{Exercise, Split, Subject, asked, if_so, said, says};
use tangelo_chat::{Message, Role};

/// A question about a list, and what is thought and said of it.
struct Drill {
    kind: &'static str,
    question: String,
    answer: String,
    /// What is right too.
    shorter: Option<String>,
    thought: String,
}

pub(crate) fn exercise(random: &mut Random, split: Split) -> Exercise {
    let count = 2 + random.below(7);
    let list = List::new(random, split, count);
    let mut drills: Vec<Drill> = (0..=random.below(QUESTIONS)).map(|_| list.drill(random, split)).collect();
    let mut conversation = asked(None, format!("{}. {}", list.text(), drills[0].question));
    for next in 1..drills.len() {
        conversation.messages.push(says(drills[next - 1].answer.clone()));
        conversation.messages.push(Message::new(Role::User, drills[next].question.clone()));
    }
    let Drill { kind, answer, shorter, thought, .. } = drills.remove(drills.len() - 1);
    let thinks = random.chance(0.25);
    let mut message = says(answer.clone());
    message.reasoning_content = thinks.then_some(thought);
    Exercise {
        subject: Subject::Recall,
        kind,
        conversation,
        thinks,
        answer: message,
        grader: Box::new(move |message| {
            let is = |right: &String| said(message).trim_end_matches('.') == right.trim_end_matches('.');
            if_so(is(&answer) || shorter.as_ref().is_some_and(is))
        }),
    }
}

/// Questions in a conversation, at most.
const QUESTIONS: usize = 4;

/// Names, each with what belongs to it if anything does.
struct List {
    names: Vec<String>,
    values: Option<Vec<String>>,
}

impl List {
    fn new(random: &mut Random, split: Split, count: usize) -> List {
        let names = names(random, split, count);
        let values = match random.below(3) {
            0 => None,
            1 => Some((0..count).map(|_| (2 + random.below(97)).to_string()).collect()),
            _ => Some(things(random, count).into_iter().map(|(one, _)| one.to_owned()).collect()),
        };
        List { names, values }
    }

    fn entry(&self, at: usize) -> String {
        match &self.values {
            Some(values) => format!("{} {}", self.names[at], values[at]),
            None => self.names[at].clone(),
        }
    }

    fn text(&self) -> String {
        (0..self.names.len()).map(|at| self.entry(at)).collect::<Vec<_>>().join(", ")
    }

    fn drill(&self, random: &mut Random, split: Split) -> Drill {
        match (random.below(6), &self.values) {
            (0, _) => self.repeat(random),
            (1 | 2, Some(values)) => self.values(random, values),
            (3, Some(_)) => self.absent(random, split),
            (4, Some(values)) => self.owner(random, values),
            _ => self.next(random),
        }
    }

    /// What belongs to a name that is not there.
    fn absent(&self, random: &mut Random, split: Split) -> Drill {
        let name = name_unlike(random, split, self.names.iter());
        let ask = random.pick(&["What belongs to", "Look up"]);
        Drill {
            kind: "recall.absent",
            question: format!("{ask} {name}?"),
            answer: format!("{name} is not there."),
            shorter: None,
            thought: format!("{name} is not in the list."),
        }
    }

    /// All of it, as it stands.
    fn repeat(&self, random: &mut Random) -> Drill {
        let ask = random.pick(&[
            "Repeat the list.",
            "Say the list again.",
            "Copy the list.",
            "Write the list once more.",
        ]);
        Drill {
            kind: "recall.repeat",
            question: ask.to_owned(),
            answer: format!("{}.", self.text()),
            shorter: None,
            thought: "I copy the list.".to_owned(),
        }
    }

    /// The name that something belongs to, which stands before it.
    fn owner(&self, random: &mut Random, values: &[String]) -> Drill {
        let value = random.of(values);
        let owners = self.names.iter().zip(values).filter(|(_, other)| *other == value);
        let owners: Vec<String> = owners.map(|(name, _)| name.clone()).collect();
        let ask = random.pick(&["Who has", "Find", "Whose is"]);
        Drill {
            kind: "recall.owner",
            question: format!("{ask} {value}?"),
            answer: format!("{}.", owners.join(", ")),
            shorter: Some(listed(&owners)),
            thought: "I look for the name before it.".to_owned(),
        }
    }

    /// What belongs to some names, in another order.
    fn values(&self, random: &mut Random, values: &[String]) -> Drill {
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        random.shuffle(&mut order);
        order.truncate(1 + random.below(order.len()));
        let wanted: Vec<String> = order.iter().map(|&at| self.names[at].clone()).collect();
        let entries: Vec<String> = order.iter().map(|&at| self.entry(at)).collect();
        let values: Vec<String> = order.iter().map(|&at| values[at].clone()).collect();
        let ask = random.pick(&["What belongs to", "Look up", "Say again what belongs to"]);
        Drill {
            kind: "recall.values",
            question: format!("{ask} {}?", listed(&wanted)),
            answer: format!("{}.", entries.join(", ")),
            shorter: Some(values.join(", ")),
            thought: "I look each of them up.".to_owned(),
        }
    }

    /// The name behind another one.
    fn next(&self, random: &mut Random) -> Drill {
        let at = random.below(self.names.len() - 1);
        let (name, next) = (&self.names[at], &self.names[at + 1]);
        let ask = random.pick(&["Who comes after", "Who is next after", "Which name follows"]);
        Drill {
            kind: "recall.next",
            question: format!("{ask} {name}?"),
            answer: format!("{next}."),
            shorter: None,
            thought: format!("{name} is followed by {next}."),
        }
    }
}
