//! A small closed world with exercises whose answers can be checked exactly.
//!
//! Everything follows from a seed. Exercises for learning and for examination share no name of a person, a place or a thing
//! that is made up ([`names`]) and come from streams of their own, so what is examined has not been seen, except for the few
//! states of nim. A grader looks at nothing but the answer; the same graders serve as rewards.

#![forbid(unsafe_code)]

mod choices;
mod facts;
mod games;
mod grading;
mod instructions;
pub mod names;
mod persona;
mod puzzles;
mod recall;
mod structured;
mod tools;

pub use games::{Game, Move};

use tangelo_chat::{Conversation, Message, Role};
use tangelo_core::random::Random;

/// What an exercise is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// To learn from.
    Train,
    /// To be examined with.
    Test,
}

/// What an exercise is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Texts that follow instructions which a program can check.
    Instructions,
    /// JSON from a sentence.
    Structured,
    /// Calls of tools: one, several, none, and answers from results.
    Tools,
    /// Questions about facts in the context, or not in it.
    Facts,
    /// A keeper of a shop with wares, prices and manners.
    Persona,
    /// The next move of a small game.
    Games,
    /// Arithmetic, lists and chains of facts, with a line of thought or without.
    Puzzles,
    /// What was said before, said again.
    Recall,
    /// Which tool is for what is asked.
    Choices,
}

impl Subject {
    /// All of them.
    pub const ALL: [Subject; 9] = [
        Subject::Instructions,
        Subject::Structured,
        Subject::Tools,
        Subject::Facts,
        Subject::Persona,
        Subject::Games,
        Subject::Puzzles,
        Subject::Recall,
        Subject::Choices,
    ];

    /// Its name in recipes and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Subject::Instructions => "instructions",
            Subject::Structured => "structured",
            Subject::Tools => "tools",
            Subject::Facts => "facts",
            Subject::Persona => "persona",
            Subject::Games => "games",
            Subject::Puzzles => "puzzles",
            Subject::Recall => "recall",
            Subject::Choices => "choices",
        }
    }

    /// Inverse of [`Subject::name`].
    pub fn from_name(name: &str) -> Option<Subject> {
        Subject::ALL.into_iter().find(|subject| subject.name() == name)
    }
}

/// Says how good an answer is: 1 if it is exactly right, 0 if it is wrong, between if it is right in part.
pub type Grader = Box<dyn Fn(&Message) -> f64 + Send + Sync>;

/// A conversation that waits for an answer, a right answer, and the grader of any.
pub struct Exercise {
    /// What it is about.
    pub subject: Subject,
    /// Finer than the subject, for reports, such as `tools.parallel`.
    pub kind: &'static str,
    /// Ends where the assistant is to answer.
    pub conversation: Conversation,
    /// Whether the answer begins with a line of thought.
    pub thinks: bool,
    /// A right answer.
    pub answer: Message,
    /// Grades any answer.
    pub grader: Grader,
}

/// Exercise number `index` of a subject. The same arguments make the same exercise.
pub fn exercise(subject: Subject, split: Split, seed: u64, index: u64) -> Exercise {
    let of_split = match split {
        Split::Train => "train",
        Split::Test => "test",
    };
    let stream = Random::new(seed).named(of_split).named(subject.name());
    let mut random = stream.named(&index.to_string());
    let mut exercise = match subject {
        Subject::Instructions => instructions::exercise(&mut random, split),
        Subject::Structured => structured::exercise(&mut random, split),
        Subject::Tools => tools::exercise(&mut random, split),
        Subject::Facts => facts::exercise(&mut random, split),
        Subject::Persona => persona::exercise(&mut random, split),
        Subject::Games => games::exercise(&mut random, split),
        Subject::Puzzles => puzzles::exercise(&mut random, split),
        Subject::Recall => recall::exercise(&mut random, split),
        Subject::Choices => choices::exercise(&mut random, split),
    };
    // Where there is nothing to think about, that is thought, so that every subject can be asked both ways.
    if exercise.answer.reasoning_content.is_none()
        && matches!(subject, Subject::Instructions | Subject::Structured | Subject::Games)
        && random.chance(THOUGHTLESS_SHARE)
    {
        exercise.thinks = true;
        exercise.answer.reasoning_content = Some(NOTHING_TO_THINK.to_owned());
    }
    exercise
}

/// The line of thought of exercises that need none, and how many of them have it.
const NOTHING_TO_THINK: &str = "I can answer this at once.";
const THOUGHTLESS_SHARE: f64 = 0.25;

/// A message of the assistant that only says something.
fn says(text: impl Into<String>) -> Message {
    Message::new(Role::Assistant, text)
}

/// A conversation of one question, behind a system message if there is one.
fn asked(system: Option<String>, question: impl Into<String>) -> Conversation {
    let system = system.map(|text| Message::new(Role::System, text));
    let messages = system.into_iter().chain([Message::new(Role::User, question)]).collect();
    Conversation { messages, tools: Vec::new() }
}

/// What an answer says, without what surrounds it.
fn said(answer: &Message) -> &str {
    answer.content.as_deref().unwrap_or_default().trim()
}

/// 1 if so, else 0.
fn if_so(is_right: bool) -> f64 {
    f64::from(u8::from(is_right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_answers_are_right_and_empty_ones_are_not() {
        for subject in Subject::ALL {
            for split in [Split::Train, Split::Test] {
                for index in 0..500 {
                    let exercise = exercise(subject, split, 7, index);
                    let what = || {
                        format!(
                            "{} {index}: {:?} {:?}",
                            exercise.kind, exercise.conversation, exercise.answer
                        )
                    };
                    assert_eq!((exercise.grader)(&exercise.answer), 1.0, "{}", what());
                    assert!((exercise.grader)(&says("")) < 1.0, "{}", what());
                    let is_asked_for_yes = exercise.kind == "persona.stock";
                    assert!(is_asked_for_yes || (exercise.grader)(&says("Yes.")) < 1.0, "{}", what());
                    assert!(exercise.kind.starts_with(subject.name()), "{}", exercise.kind);
                    assert!(exercise.conversation.messages.last().is_some_and(|m| m.role != Role::Assistant));
                    assert_eq!(exercise.thinks, exercise.answer.reasoning_content.is_some(), "{}", what());
                }
            }
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_exercise_and_another_does_not() {
        for subject in Subject::ALL {
            let text = |seed, index| {
                let exercise = exercise(subject, Split::Train, seed, index);
                format!("{:?} {:?}", exercise.conversation, exercise.answer)
            };
            assert_eq!(text(1, 5), text(1, 5));
            let others = (0..20).filter(|&i| text(1, i) != text(2, i)).count();
            assert!(others > 15, "{subject:?}");
        }
    }
}
