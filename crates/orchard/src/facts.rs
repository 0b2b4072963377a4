//! Questions about a handful of facts: some of the answers are there, others are not.

use tangelo_chat::{Message, Role};
use tangelo_core::random::Random;

use crate::grading::{abstains, admits, has_word, names_others, numbers};
use crate::names::{name_unlike, names, things};
use crate::{Exercise, Split, Subject, asked, if_so, said, says};

/// Questions in a conversation, at most.
const QUESTIONS: usize = 6;

/// What is said where an answer is not known, by somebody and of something.
pub(crate) const UNKNOWN: &str = "I do not know.";
const NOT_KNOWN: &str = "not known";

/// Trades, colours, foods and materials.
const TRADES: [&str; 12] = [
    "baker", "smith", "miller", "weaver", "hunter", "potter", "sailor", "tailor", "healer", "farmer",
    "mason", "fisher",
];
const COLOURS: [&str; 10] =
    ["red", "blue", "green", "white", "black", "yellow", "brown", "grey", "golden", "silver"];
const FOODS: [&str; 12] =
    ["bread", "cheese", "soup", "apples", "plums", "fish", "honey", "nuts", "rice", "beans", "cake", "pears"];

/// How a kind of fact is stated, asked and answered. `{e}` is whom it is about, `{v}` the value, `{t}` a thing.
struct Relation {
    facts: &'static [&'static str],
    questions: &'static [&'static str],
    /// What is asked for; an answer names it, and then says what it is or that it is not known.
    asked: &'static str,
    value: Value,
}

/// Where a value comes from.
#[derive(Clone, Copy)]
enum Value {
    Name,
    Of(&'static [&'static str]),
    Below(usize),
}

const RELATIONS: [Relation; 8] = [
    Relation {
        facts: &["The capital of {e} is {v}.", "{e} has the capital {v}."],
        questions: &[
            "What is the capital of {e}?",
            "Which town is the capital of {e}?",
            "Name the capital of {e}.",
        ],
        asked: "The capital of {e}",
        value: Value::Name,
    },
    Relation {
        facts: &["{e} lives in {v}.", "The home of {e} is {v}."],
        questions: &["Where does {e} live?", "In which town does {e} live?", "Where is the home of {e}?"],
        asked: "The home of {e}",
        value: Value::Name,
    },
    Relation {
        facts: &["{e} works as a {v}.", "The trade of {e} is {v}."],
        questions: &["What is the trade of {e}?", "What does {e} work as?", "Which trade does {e} have?"],
        asked: "The trade of {e}",
        value: Value::Of(&TRADES),
    },
    Relation {
        facts: &["{e} is {v} years old.", "The age of {e} is {v}."],
        questions: &["How old is {e}?", "What is the age of {e}?", "Tell me the age of {e}."],
        asked: "The age of {e}",
        value: Value::Below(90),
    },
    Relation {
        facts: &["{e} likes {v}.", "The favourite food of {e} is {v}."],
        questions: &[
            "What does {e} like?",
            "What is the favourite food of {e}?",
            "Which food does {e} like?",
        ],
        asked: "The favourite food of {e}",
        value: Value::Of(&FOODS),
    },
    Relation {
        facts: &["The colour of the {t} of {e} is {v}.", "{e} has a {t} that is {v}."],
        questions: &["What colour is the {t} of {e}?", "Which colour does the {t} of {e} have?"],
        asked: "The colour of the {t} of {e}",
        value: Value::Of(&COLOURS),
    },
    Relation {
        facts: &["The number of {t}s of {e} is {v}.", "The {t}s that {e} owns are {v}."],
        questions: &["How many {t}s does {e} own?", "What is the number of {t}s of {e}?"],
        asked: "The number of {t}s of {e}",
        value: Value::Below(60),
    },
    Relation {
        facts: &["{e} is married to {v}.", "The spouse of {e} is {v}."],
        questions: &["Whom is {e} married to?", "Who is the spouse of {e}?"],
        asked: "The spouse of {e}",
        value: Value::Name,
    },
];

/// Things that have a colour, and others that are counted: who has a red lamp would have at least one.
const COLOURED: [&str; 5] = ["lamp", "map", "ring", "ladder", "drum"];
const COUNTED: [&str; 5] = ["bell", "candle", "basket", "hammer", "bottle"];

/// A fact that can be stated, asked and answered.
struct Fact {
    relation: usize,
    entity: String,
    thing: &'static str,
    value: String,
}

impl Fact {
    /// `others`: what is said beside it.
    fn new(random: &mut Random, split: Split, entity: String, others: &[Fact]) -> Fact {
        let relation = random.below(RELATIONS.len());
        let value = match RELATIONS[relation].value {
            Value::Name => name_unlike(random, split, others.iter().flat_map(Fact::words).chain([&entity])),
            Value::Of(words) => random.pick(words).to_owned(),
            Value::Below(most) => (2 + random.below(most - 2)).to_string(),
        };
        let things = if matches!(RELATIONS[relation].value, Value::Below(_)) { &COUNTED } else { &COLOURED };
        Fact { relation, entity, thing: random.pick(things), value }
    }

    /// Whom it is about, and the value.
    fn words(&self) -> [&String; 2] {
        [&self.entity, &self.value]
    }

    fn relation(&self) -> &'static Relation {
        &RELATIONS[self.relation]
    }

    fn fill(&self, pattern: &str) -> String {
        pattern.replace("{e}", &self.entity).replace("{v}", &self.value).replace("{t}", self.thing)
    }

    /// Whether two facts are asked for by the same question.
    fn is_about_the_same(&self, other: &Fact) -> bool {
        let has_thing = self.relation().asked.contains("{t}");
        self.relation == other.relation
            && self.entity == other.entity
            && (!has_thing || self.thing == other.thing)
    }
}

/// Facts, some about the same people, none asked for by the same question.
fn facts(random: &mut Random, split: Split, count: usize) -> Vec<Fact> {
    let entities = names(random, split, 2 + count / 2);
    let mut facts: Vec<Fact> = Vec::new();
    while facts.len() < count {
        let entity = random.of(&entities).clone();
        let fact = Fact::new(random, split, entity, &facts);
        if !facts.iter().any(|other| fact.is_about_the_same(other) || fact.value == other.value) {
            facts.push(fact);
        }
    }
    facts
}

/// A question that is not answered by the facts: about somebody else, or about something else of somebody.
fn unanswered(random: &mut Random, split: Split, facts: &[Fact]) -> Fact {
    loop {
        let entity = match random.chance(0.5) {
            true => name_unlike(random, split, facts.iter().flat_map(Fact::words)),
            false => random.of(facts).entity.clone(),
        };
        let fact = Fact::new(random, split, entity, facts);
        if !facts.iter().any(|other| fact.is_about_the_same(other)) {
            return fact;
        }
    }
}

/// Something asked about facts.
struct Question {
    text: String,
    /// What is asked for.
    asked: String,
    /// What that is.
    answer: String,
    /// The number of the fact that holds the answer, if one does.
    known: Option<usize>,
    relation: usize,
}

impl Question {
    fn new(random: &mut Random, split: Split, facts: &[Fact]) -> Question {
        let known = random.chance(0.6).then(|| random.below(facts.len()));
        let other;
        let fact = match known {
            Some(at) => &facts[at],
            None => {
                other = unanswered(random, split, facts);
                &other
            }
        };
        Question {
            text: fact.fill(random.pick(fact.relation().questions)),
            asked: fact.fill(fact.relation().asked),
            answer: known.map_or_else(|| NOT_KNOWN.to_owned(), |at| facts[at].value.clone()),
            known,
            relation: fact.relation,
        }
    }

    /// Says it, or that it is not known: which of the two is found where the value would stand, so there is one thing to
    /// look for.
    fn answered(&self) -> String {
        format!("{} is {}.", self.asked, self.answer)
    }
}

pub(crate) fn exercise(random: &mut Random, split: Split) -> Exercise {
    let count = 3 + random.below(6);
    let facts = facts(random, split, count);
    let stated: Vec<String> =
        facts.iter().map(|fact| fact.fill(random.pick(fact.relation().facts))).collect();
    let questions: Vec<Question> =
        (0..=random.below(QUESTIONS)).map(|_| Question::new(random, split, &facts)).collect();
    let mut conversation = conversation(random, &stated, &questions[0].text);
    for pair in questions.windows(2) {
        conversation.messages.push(says(pair[0].answered()));
        conversation.messages.push(Message::new(Role::User, pair[1].text.clone()));
    }
    let last = &questions[questions.len() - 1];
    let known = last.known;
    let mut answer = says(last.answered());
    let thinks = random.chance(0.35);
    answer.reasoning_content = thinks.then(|| format!("I look it up. {}", last.answered()));
    let value = known.map(|at| facts[at].value.clone());
    // Whoever says several of the words that an answer can be has not answered.
    let choices = match RELATIONS[last.relation].value {
        Value::Of(words) => words,
        Value::Name | Value::Below(_) => &[],
    };
    let others =
        facts.iter().map(|fact| fact.value.clone()).chain(choices.iter().map(|word| (*word).to_owned()));
    let others: Vec<String> = others.filter(|other| Some(other) != value.as_ref()).collect();
    let key = Key { value, others, said: [last.text.clone(), last.answered()] };
    Exercise {
        subject: Subject::Facts,
        kind: if known.is_some() { "facts.present" } else { "facts.absent" },
        conversation,
        thinks,
        answer,
        grader: Box::new(move |answer| key.grade(answer)),
    }
}

/// The facts in the system message or before the question.
fn conversation(random: &mut Random, stated: &[String], question: &str) -> tangelo_chat::Conversation {
    let list = match random.chance(0.5) {
        true => stated.iter().map(|fact| format!("- {fact}\n")).collect::<String>(),
        false => stated.join(" ") + "\n",
    };
    let rule = random.pick(&[
        "Answer from these facts only. If they do not say it, say that it is not known.",
        "Use only these facts. Say that it is not known if the answer is not among them.",
    ]);
    match random.below(3) {
        0 => asked(Some(format!("{rule}\n{list}").trim_end().to_owned()), question),
        1 => asked(None, format!("{rule}\n{list}{question}")),
        _ => asked(None, format!("Facts:\n{list}\n{question}")),
    }
}

/// What an answer is graded by.
struct Key {
    /// `None` of what is not known.
    value: Option<String>,
    /// Other values of the facts, and other words that an answer can be.
    others: Vec<String>,
    /// The question, and what is right to say.
    said: [String; 2],
}

impl Key {
    fn grade(&self, answer: &Message) -> f64 {
        let text = said(answer);
        let is_other = self.others.iter().any(|other| has_word(text, other))
            || names_others(text, self.said.iter().map(String::as_str));
        let is_one_sentence = !text.trim_end_matches(['.', '!']).contains(['.', '!', '?']);
        let is_right = match &self.value {
            Some(value) => {
                let is_one = numbers(text).all(|number| number == value);
                has_word(text, value) && is_one && !has_word(text, "not") && !abstains(answer)
            }
            None => admits(text) && is_one_sentence,
        };
        if_so(is_right && !is_other)
    }
}

/// A thing with its price, for the shop.
pub(crate) fn priced(random: &mut Random, count: usize) -> Vec<(&'static str, &'static str, usize)> {
    things(random, count).into_iter().map(|(one, many)| (one, many, 2 + random.below(11))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_or_the_admission_counts() {
        let of = |text: &str, value: Option<&str>| {
            let (value, others) = (value.map(str::to_owned), ["Tosk", "12"].map(str::to_owned).to_vec());
            let right = format!("The capital of Arlen is {}.", value.as_deref().unwrap_or(NOT_KNOWN));
            Key { value, others, said: ["What is the capital of Arlen?".to_owned(), right] }
                .grade(&says(text))
        };
        assert_eq!(of("The capital of Arlen is Brom.", Some("Brom")), 1.0);
        assert_eq!(of("Brom", Some("Brom")), 1.0);
        assert_eq!(of("Brom or Tosk.", Some("Brom")), 0.0);
        assert_eq!(of("Bromm.", Some("Brom")), 0.0);
        assert_eq!(of("It is Brom, the capital.", Some("Brom")), 1.0);
        assert_eq!(of("Brom or Kroth.", Some("Brom")), 0.0);
        assert_eq!(of("The capital of Arlen is not Brom.", Some("Brom")), 0.0);
        assert_eq!(of("The capital of Arlen is not known, it is Kroth.", None), 0.0);
        assert_eq!(of("I do not know, maybe Brom.", Some("Brom")), 0.0);
        assert_eq!(of("2 3 4", Some("3")), 0.0);
        assert_eq!(of("I do not know, but it is Kroth.", None), 0.0);
        assert_eq!(of("I do not know.", None), 1.0);
        assert_eq!(of("I don't know that.", None), 1.0);
        assert_eq!(of("I don\u{2019}t know that.", None), 1.0);
        assert_eq!(of("The capital of Arlen is not known.", None), 1.0);
        assert_eq!(of("The capital of Arlen is not known.", Some("Brom")), 0.0);
        assert_eq!(of("It is Brom.", None), 0.0);
        assert_eq!(of("I do not know. 12?", None), 0.0);
        assert_eq!(of("I do not know. It is Kroth.", None), 0.0);
        assert_eq!(of("brom.", Some("Brom")), 1.0);
    }
}
