//! A keeper of a shop, with wares, prices and manners.

use tangelo_chat::{Conversation, Message, Role};
use tangelo_core::random::Random;

use crate::facts::{UNKNOWN, priced};
use crate::grading::{abstains, admits, has_word, numbers, words};
use crate::names::{THINGS, article, listed, name};
use crate::tools::{Made, Tools};
use crate::{Exercise, NOTHING_TO_THINK, Split, Subject, if_so, instructions, said, says};

const GREETINGS: [&str; 8] = [
    "Well met!",
    "Good day!",
    "Welcome!",
    "Ahoy!",
    "Greetings!",
    "Hail, friend!",
    "Hello there!",
    "Be welcome!",
];
const FAREWELLS: [&str; 6] = ["friend", "traveller", "my dear", "stranger", "captain", "neighbour"];
const SIGNS: [&str; 16] = [
    "Anchor", "Kettle", "Lantern", "Raven", "Fox", "Wheel", "Crown", "Barrel", "Acorn", "Lion", "Moon",
    "Star", "Bell", "Oak", "Goose", "Key",
];
const ADJECTIVES: [&str; 12] = [
    "Copper", "Golden", "Silver", "Old", "Red", "Blue", "Merry", "Black", "White", "Green", "Broken", "Quiet",
];

/// What no shop here sells.
const FOREIGN: [&str; 24] = [
    "boats",
    "horses",
    "dragons",
    "apples",
    "books",
    "hats",
    "shoes",
    "potions",
    "carts",
    "chairs",
    "tables",
    "cows",
    "eggs",
    "pizzas",
    "cars",
    "phones",
    "flowers",
    "boots",
    "coats",
    "clocks",
    "carpets",
    "houses",
    "windows",
    "newspapers",
];
/// What is said for its own sake: questions, the answer to all of them, and the word that is needed.
const SMALL_TALK: [(&[&str], &str, &str); 4] = [
    (
        &["Hello.", "Hello!", "Hi.", "Hi there!", "Good morning.", "Good day.", "Hey!", "Greetings."],
        "How can I help you?",
        "help",
    ),
    (&["Thank you.", "Thanks!", "Thanks a lot.", "Many thanks."], "You are welcome.", "welcome"),
    (&["Goodbye.", "Bye.", "See you.", "Farewell.", "I have to go."], "Goodbye.", "Goodbye"),
    (&["How are you?", "How do you do?", "How is it going?", "Are you well?"], "I am well.", "well"),
];
/// Questions that no keeper can answer, about somebody or something of this name.
const UNANSWERED: [&str; 16] = [
    "Who is the king of {}?",
    "How old is {}?",
    "How old are you?",
    "What is the capital of {}?",
    "Who wrote the book about {}?",
    "What is the meaning of life?",
    "When was {} born?",
    "How tall is {}?",
    "Which is the highest mountain?",
    "Who is your father?",
    "Who won the war of {}?",
    "What does {} like to eat?",
    "How many people live in {}?",
    "Why is the sky blue?",
    "Tell me about the history of {}.",
    "What happened to {}?",
];
/// More of them, which a tool could answer.
const LOOKED_UP: [&str; 6] = [
    "Where does {} live?",
    "How far is it to {}?",
    "Will it rain tomorrow?",
    "What is the weather like in {}?",
    "What time is it?",
    "Which day is today?",
];
/// How often a customer forgets the mark at the end, and the capital at the beginning.
const SLOPPY: f64 = 0.2;

/// One, many, price.
type Ware = (&'static str, &'static str, usize);

/// Whom the customer talks to.
struct Keeper {
    name: String,
    shop: String,
    town: String,
    wares: Vec<Ware>,
    /// What every answer begins with, if anything.
    greeting: Option<&'static str>,
    /// How every answer ends, if in any way.
    farewell: Option<&'static str>,
}

/// A question and its answer, and what the answer must and must not say.
struct Talk {
    kind: &'static str,
    question: String,
    answer: String,
    /// Words that must be said.
    needed: Vec<String>,
    /// Whether one of them is enough.
    one_is_enough: bool,
    /// Words that must not be said.
    wrong: Vec<String>,
    /// The only numbers that may be said, if that matters.
    numbers: Option<Vec<usize>>,
    is_unknown: bool,
}

impl Talk {
    fn new(kind: &'static str, question: String, answer: String, needed: Vec<String>) -> Talk {
        let (one_is_enough, wrong, numbers, is_unknown) = (false, Vec::new(), None, false);
        Talk { kind, question, answer, needed, one_is_enough, wrong, numbers, is_unknown }
    }
}

impl Keeper {
    fn new(random: &mut Random, split: Split) -> Keeper {
        let count = 3 + random.below(4);
        let manner = random.below(6);
        let (name, town) = (name(random, split), name(random, split));
        Keeper {
            name,
            shop: format!("The {} {}", random.pick(&ADJECTIVES), random.pick(&SIGNS)),
            town,
            wares: priced(random, count),
            greeting: (manner < 3).then(|| random.pick(&GREETINGS)),
            farewell: (manner == 2 || manner == 3).then(|| random.pick(&FAREWELLS)),
        }
    }

    fn system(&self, random: &mut Random) -> String {
        let Keeper { name, shop, town, .. } = self;
        let wares: Vec<String> =
            self.wares.iter().map(|(one, _, price)| format!("{one} {price} coins")).collect();
        let wares = match random.chance(0.5) {
            true => format!("Wares: {}.", wares.join(", ")),
            false => format!("Wares:\n- {}", wares.join("\n- ")),
        };
        let mut text = match random.below(3) {
            0 => format!("You are {name}, keeper of the shop {shop} in {town}.\n{wares}"),
            1 => format!("You are the shopkeeper {name}. Your shop is {shop} in the town {town}.\n{wares}"),
            _ => format!("Play {name}, who keeps {shop}, a shop in {town}.\n{wares}"),
        };
        if let Some(greeting) = self.greeting {
            text += &format!("\nBegin every answer with \"{greeting}\"");
        }
        if let Some(farewell) = self.farewell {
            text += &format!("\nEnd every answer with \"{farewell}.\"");
        }
        if random.chance(0.6) {
            text += "\nIf you do not know something, say \"I do not know.\"";
        }
        text
    }

    /// Whether texts that follow other rules break none of the keeper's.
    fn writes_texts(&self) -> bool {
        self.greeting.is_none() && self.farewell.is_none()
    }

    /// An answer in the keeper's manner.
    fn mannered(&self, text: &str) -> String {
        let greeting = self.greeting.map_or_else(String::new, |greeting| format!("{greeting} "));
        let mark = text.chars().last().filter(|mark| ".!?".contains(*mark)).unwrap_or('.');
        match self.farewell {
            Some(farewell) => format!("{greeting}{}, {farewell}{mark}", text.trim_end_matches(mark)),
            None => greeting + text,
        }
    }

    /// An answer without the greeting, which says nothing about wares or tools.
    fn bare<'t>(&self, text: &'t str) -> &'t str {
        self.greeting.and_then(|greeting| text.strip_prefix(greeting)).unwrap_or(text).trim_start()
    }

    fn has_manners(&self, text: &str) -> bool {
        let ends = |farewell: &str| text.trim_end_matches(['.', '!', '?']).ends_with(farewell);
        self.greeting.is_none_or(|greeting| text.starts_with(greeting)) && self.farewell.is_none_or(ends)
    }

    /// `has_tools`: whether the keeper can find out things that keepers do not know.
    fn talk(&self, random: &mut Random, split: Split, has_tools: bool) -> Talk {
        let ware = random.pick(&self.wares);
        let (kind, which, of_talk) = (random.below(9), random.below(3), random.below(SMALL_TALK.len()));
        let count = 2 + random.below(3);
        if kind == 7 {
            return unknown(random, split, has_tools);
        }
        let other = self.not_sold(random);
        let mut pick = |questions: Vec<String>| {
            let question = random.of(&questions).clone();
            typed(random, question)
        };
        match kind {
            8 => small_talk(of_talk, &mut pick),
            0 | 1 => self.price(ware, &mut pick),
            2 => total(ware, count, &mut pick),
            3 => self.about_self(which, &mut pick),
            4 => self.stock(ware, &mut pick),
            5 => self.missing(other, &mut pick),
            _ => self.all_wares(&mut pick),
        }
    }

    fn price(&self, (one, _, price): Ware, pick: &mut impl FnMut(Vec<String>) -> String) -> Talk {
        let question = pick(vec![
            format!("How much is the {one}?"),
            format!("What does {} {one} cost?", article(one)),
            format!("What is the price of {} {one}?", article(one)),
            format!("How many coins for {} {one}?", article(one)),
            format!("How much for {} {one}?", article(one)),
            format!("Price of the {one}?"),
            format!("Tell me the price of the {one}."),
            format!("What do you want for {} {one}?", article(one)),
        ]);
        let answer = format!("The {one} costs {price} coins.");
        Talk {
            numbers: Some(vec![1, price]),
            ..Talk::new("persona.price", question, answer, vec![price.to_string()])
        }
    }

    fn stock(&self, (one, many, price): Ware, pick: &mut impl FnMut(Vec<String>) -> String) -> Talk {
        let question = pick(vec![
            format!("Do you sell {many}?"),
            format!("Do you have {} {one}?", article(one)),
            format!("I am looking for {} {one}.", article(one)),
            format!("Can I buy {} {one}?", article(one)),
            format!("Do you have any {many}?"),
            format!("I would like {} {one}.", article(one)),
        ]);
        let answer = format!("Here {many} cost {price} coins each.");
        Talk {
            wrong: ["No", "not"].map(str::to_owned).to_vec(),
            numbers: Some(vec![1, price]),
            one_is_enough: true,
            ..Talk::new("persona.stock", question, answer, vec!["Yes".to_owned(), price.to_string()])
        }
    }

    fn all_wares(&self, pick: &mut impl FnMut(Vec<String>) -> String) -> Talk {
        let wares: Vec<String> = self.wares.iter().map(|(_, many, _)| (*many).to_owned()).collect();
        let is_sold = |one: &str| self.wares.iter().any(|(own, _, _)| *own == one);
        let others = THINGS.iter().filter(|(one, _)| !is_sold(one));
        let questions = [
            "What do you sell?",
            "What can I buy here?",
            "What wares do you have?",
            "What is for sale?",
            "Show me your wares.",
            "What have you got?",
            "Tell me what you sell.",
        ];
        let question = pick(questions.map(str::to_owned).to_vec());
        let answer = format!("I sell {}.", listed(&wares));
        Talk {
            wrong: others.flat_map(|(one, many)| [*one, *many]).map(str::to_owned).collect(),
            ..Talk::new("persona.wares", question, answer, wares)
        }
    }

    fn about_self(&self, which: usize, pick: &mut impl FnMut(Vec<String>) -> String) -> Talk {
        let (name, shop, town) = (&self.name, &self.shop, &self.town);
        let (questions, answer, needed) = match which {
            0 => (
                ["Who are you?", "What is your name?", "Whom am I talking to?"],
                format!("I am {name}."),
                name,
            ),
            1 => (
                ["What is this shop called?", "What is the name of your shop?", "Which shop is this?"],
                format!("This is {shop}."),
                shop,
            ),
            _ => (
                ["In which town are we?", "What is the name of this town?", "Which town is this?"],
                format!("We are in {town}."),
                town,
            ),
        };
        let needed: Vec<String> = words(needed).map(str::to_owned).collect();
        // Whoever says all of it has not understood what was asked.
        let all = [name, shop, town].into_iter().flat_map(|text| words(text)).map(str::to_owned);
        let wrong = all.filter(|word| word != "The" && !needed.contains(word)).collect();
        let question = pick(questions.map(str::to_owned).to_vec());
        Talk { wrong, ..Talk::new("persona.self", question, answer, needed) }
    }

    /// Things that are not among the wares.
    fn not_sold(&self, random: &mut Random) -> &'static str {
        if random.chance(0.3) {
            return random.pick(&FOREIGN);
        }
        let is_sold = |one: &str| self.wares.iter().any(|(own, _, _)| *own == one);
        let others: Vec<_> = THINGS.iter().filter(|(one, _)| !is_sold(one)).collect();
        random.of(&others).1
    }

    /// `many`: what is asked for and not sold.
    fn missing(&self, many: &str, pick: &mut impl FnMut(Vec<String>) -> String) -> Talk {
        let questions = vec![
            format!("Do you sell {many}?"),
            format!("Do you have any {many}?"),
            format!("I need {many}."),
            format!("Can I buy {many}?"),
        ];
        let prices = self.wares.iter().map(|(_, _, price)| price.to_string());
        let all = prices.chain(["Yes".to_owned()]).collect();
        let answer = format!("Here {many} are not for sale.");
        let needed = ["No", "not"].map(str::to_owned).to_vec();
        Talk {
            wrong: all,
            one_is_enough: true,
            ..Talk::new("persona.missing", pick(questions), answer, needed)
        }
    }
}

fn unknown(random: &mut Random, split: Split, has_tools: bool) -> Talk {
    let looked_up = LOOKED_UP.iter().filter(|_| !has_tools);
    let questions: Vec<&str> = UNANSWERED.iter().chain(looked_up).copied().collect();
    let question = random.of(&questions).replace("{}", &name(random, split));
    let question = typed(random, question);
    Talk { is_unknown: true, ..Talk::new("persona.unknown", question, UNKNOWN.to_owned(), Vec::new()) }
}

fn small_talk(which: usize, pick: &mut impl FnMut(Vec<String>) -> String) -> Talk {
    let (said, answer, needed) = SMALL_TALK[which];
    let said = pick(said.iter().map(|said| (*said).to_owned()).collect());
    let others = SMALL_TALK.iter().map(|(.., word)| (*word).to_owned()).filter(|word| word != needed);
    let wrong = others.collect();
    Talk { wrong, ..Talk::new("persona.talk", said, answer.to_owned(), vec![needed.to_owned()]) }
}

/// As somebody in a hurry types it, sometimes.
fn typed(random: &mut Random, mut question: String) -> String {
    if random.chance(SLOPPY) {
        question.truncate(question.trim_end_matches(['.', '!', '?']).len());
    }
    let is_i = question.starts_with("I ");
    if random.chance(SLOPPY)
        && !is_i
        && let Some(first) = question.get_mut(..1)
    {
        first.make_ascii_lowercase();
    }
    question
}

/// Questions before the one that is asked, fewer than this.
const EARLIER: usize = 6;
/// How often a keeper has tools, and how often one who has them is asked for what they do.
const TOOLS: f64 = 0.35;
const ASKED_FOR_TOOLS: f64 = 0.45;
/// How often a keeper without manners is asked for a text.
const ASKED_FOR_TEXT: f64 = 0.3;

/// Who answers in an exercise, and to whom.
struct Scene {
    keeper: Keeper,
    tools: Option<Tools>,
}

impl Scene {
    /// Something said between two questions to the keeper: the messages, ending with an answer.
    fn earlier(&self, random: &mut Random, split: Split) -> Vec<Message> {
        let Scene { keeper, tools } = self;
        match tools {
            Some(tools) if random.chance(ASKED_FOR_TOOLS) => {
                let Made { mut messages, answer, .. } = tools.earlier(random, split);
                messages.push(says(keeper.mannered(said(&answer))));
                messages
            }
            _ if keeper.writes_texts() && random.chance(ASKED_FOR_TEXT) => {
                let Exercise { conversation, answer, .. } = instructions::exercise(random, split);
                [conversation.messages, vec![answer]].concat()
            }
            _ => {
                let talk = keeper.talk(random, split, tools.is_some());
                vec![Message::new(Role::User, talk.question), says(keeper.mannered(&talk.answer))]
            }
        }
    }

    /// The last question, with its answer and grader.
    fn last(self, random: &mut Random, split: Split) -> Made {
        let Scene { keeper, tools } = self;
        let has_tools = tools.is_some();
        match tools {
            Some(tools) if random.chance(ASKED_FOR_TOOLS) => {
                let made = tools.last(random, split);
                if made.answer.content.is_none() {
                    return Made { kind: "persona.call", ..made };
                }
                let answer = says(keeper.mannered(said(&made.answer)));
                let of_tools = made.grader;
                let grader = move |answer: &Message| {
                    let bare =
                        Message { content: Some(keeper.bare(said(answer)).to_owned()), ..answer.clone() };
                    of_tools(&bare) * (0.5 + 0.5 * if_so(keeper.has_manners(said(answer))))
                };
                Made { kind: "persona.tools", answer, grader: Box::new(grader), ..made }
            }
            _ if keeper.writes_texts() && random.chance(ASKED_FOR_TEXT) => {
                let Exercise { conversation, answer, grader, .. } = instructions::exercise(random, split);
                let thought = NOTHING_TO_THINK.to_owned();
                Made { kind: "persona.text", messages: conversation.messages, answer, thought, grader }
            }
            _ => {
                let talk = keeper.talk(random, split, has_tools);
                let thought = match talk.is_unknown {
                    true => "That is nothing I know.".to_owned(),
                    false => format!("In my role I say: {}", talk.answer),
                };
                let answer = says(keeper.mannered(&talk.answer));
                let messages = vec![Message::new(Role::User, talk.question.clone())];
                let kind = talk.kind;
                let grader = move |answer: &Message| grade(answer, &keeper, &talk);
                Made { kind, messages, answer, thought, grader: Box::new(grader) }
            }
        }
    }
}

pub(crate) fn exercise(random: &mut Random, split: Split) -> Exercise {
    let keeper = Keeper::new(random, split);
    let tools = random.chance(TOOLS).then(|| Tools::beside_a_shop(random, split));
    let list = tools.as_ref().map(|tools| tools.list.clone()).unwrap_or_default();
    let mut messages = vec![Message::new(Role::System, keeper.system(random))];
    if random.chance(0.3) {
        let welcome = random.pick(&["What do you need?", "How can I help?", "Look around!"]);
        messages.push(says(keeper.mannered(welcome)));
    }
    let scene = Scene { keeper, tools };
    for _ in 0..random.below(EARLIER) {
        messages.extend(scene.earlier(random, split));
    }
    let Made { kind, messages: last, mut answer, thought, grader } = scene.last(random, split);
    messages.extend(last);
    let thinks = random.chance(0.3);
    answer.reasoning_content = thinks.then_some(thought);
    let conversation = Conversation { messages, tools: list };
    Exercise { subject: Subject::Persona, kind, conversation, thinks, answer, grader }
}

/// Several of a ware.
fn total((_, many, price): Ware, count: usize, pick: &mut impl FnMut(Vec<String>) -> String) -> Talk {
    let total = count * price;
    let question = pick(vec![
        format!("How much are {count} {many}?"),
        format!("What do {count} {many} cost?"),
        format!("I want {count} {many}. How much is that?"),
    ]);
    let answer = format!("{count} {many} at {price} coins cost {total} coins.");
    let numbers = Some(vec![1, count, price, total]);
    Talk { numbers, ..Talk::new("persona.total", question, answer, vec![total.to_string()]) }
}

/// Half for what is said, half for how.
fn grade(answer: &Message, keeper: &Keeper, talk: &Talk) -> f64 {
    let text = said(answer);
    let bare = keeper.bare(text);
    let is_named = |needed: &String| {
        let one = THINGS.iter().find(|(_, many)| many == needed);
        has_word(bare, needed) || one.is_some_and(|(one, _)| has_word(bare, one))
    };
    let is_right = match (talk.is_unknown, talk.one_is_enough) {
        (true, _) => admits(bare) && numbers(text).next().is_none(),
        (_, true) => talk.needed.iter().any(is_named) && !abstains(answer),
        _ => talk.needed.iter().all(is_named) && !abstains(answer),
    };
    let is_allowed = |number: &str| {
        talk.numbers.as_ref().is_none_or(|allowed| allowed.iter().any(|other| other.to_string() == number))
    };
    let is_right = is_right
        && answer.tool_calls.is_empty()
        && numbers(bare).all(is_allowed)
        && !talk.wrong.iter().any(|wrong| has_word(bare, wrong));
    if_so(is_right) * (0.5 + 0.5 * if_so(keeper.has_manners(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_wrong() {
        let (mut random, mut seen) = (Random::new(2), 0);
        for _ in 0..500 {
            let keeper = Keeper::new(&mut random, Split::Train);
            let talk = keeper.talk(&mut random, Split::Train, false);
            let of = |text: &str| grade(&says(keeper.mannered(text)), &keeper, &talk);
            assert_eq!(of(&talk.answer), 1.0, "{}", talk.answer);
            let wrong = match talk.kind {
                "persona.missing" => "Yes and no.",
                "persona.unknown" => "I do not know, but it is Brom.",
                "persona.talk" => "Help, welcome, goodbye, well.",
                "persona.price" | "persona.stock" | "persona.total" => {
                    "From 2 to 99 coins, 3 4 5 6 7 8 9 10 11 12."
                }
                "persona.self" => &format!("{}, {}, {}", keeper.name, keeper.shop, keeper.town),
                _ => continue,
            };
            seen += 1;
            assert_eq!(of(wrong), 0.0, "{wrong}");
        }
        assert!(seen > 100);
    }
}
