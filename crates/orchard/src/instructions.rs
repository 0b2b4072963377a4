//! Texts that follow instructions which a program can check, of the kinds of IFEval (Zhou et al. 2023).
//!
//! The text comes first and the numbers and words that the instructions name are taken from it, so the
//! reference follows them by construction.

use std::collections::HashSet;

use tangelo_core::random::Random;

use crate::names::{self, split_of};
use crate::{Exercise, Split, Subject, asked, said, says};
use vocabulary::*;

/// How often an exercise has several rules.
const COMBINED: f64 = 0.35;

/// How many texts are drawn for one that has as many words as wanted.
const TRIES: usize = 64;

/// What an answer must be like; [`Demand::holds`] says what each of them means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Words,
    Sentences,
    Ending,
    Beginning,
    Lowercase,
    Capitals,
    Bullets,
    Keywords,
    Avoid,
    Quotes,
    Commas,
    Title,
    Repeat,
    Options,
}

/// All rules, the kinds of exercises that have one alone, and sentences that ask for it.
const RULES: [(Rule, &str, &[&str]); 14] = [
    (Rule::Words, "instructions.words", &COUNTED),
    (Rule::Sentences, "instructions.sentences", &COUNTED),
    (Rule::Ending, "instructions.ending", &ENDING),
    (Rule::Beginning, "instructions.beginning", &BEGINNING),
    (Rule::Lowercase, "instructions.lowercase", &LOWERCASE),
    (Rule::Capitals, "instructions.capitals", &CAPITALS),
    (Rule::Bullets, "instructions.bullets", &BULLETS),
    (Rule::Keywords, "instructions.keywords", &KEYWORDS),
    (Rule::Avoid, "instructions.avoid", &AVOID),
    (Rule::Quotes, "instructions.quotes", &QUOTES),
    (Rule::Commas, "instructions.commas", &COMMAS),
    (Rule::Title, "instructions.title", &TITLE),
    (Rule::Repeat, "instructions.repeat", &REPEAT),
    (Rule::Options, "instructions.options", &OPTIONS),
];

/// Rules that contradict each other, or that count what the other adds.
const CLASHES: [(Rule, &[Rule]); 5] = [
    (Rule::Words, &[Rule::Sentences, Rule::Bullets, Rule::Title]),
    (Rule::Sentences, &[Rule::Bullets, Rule::Title]),
    (Rule::Bullets, &[Rule::Ending, Rule::Beginning, Rule::Quotes]),
    (Rule::Title, &[Rule::Beginning, Rule::Quotes]),
    (Rule::Lowercase, &[Rule::Capitals]),
];

impl Rule {
    /// Whether one text can follow both without doubt about what is meant.
    fn fits(self, other: Rule) -> bool {
        let clash = |(rule, others): &(Rule, &[Rule])| {
            (*rule == self && others.contains(&other)) || (*rule == other && others.contains(&self))
        };
        match (self, other) {
            _ if self == other => false,
            (Rule::Options, _) | (_, Rule::Options) => false,
            (Rule::Repeat, rule) | (rule, Rule::Repeat) => {
                matches!(rule, Rule::Lowercase | Rule::Capitals | Rule::Quotes)
            }
            _ => !CLASHES.iter().any(clash),
        }
    }
}

/// A rule with the number and the words that it names, if it names any.
#[derive(Debug, Clone)]
struct Demand {
    rule: Rule,
    count: usize,
    words: Vec<String>,
}

impl Demand {
    /// Whether a text follows it.
    fn holds(&self, text: &str) -> bool {
        let first = self.words.first().map(|word| word.to_lowercase()).unwrap_or_default();
        match self.rule {
            Rule::Words => length(text) == self.count,
            Rule::Sentences => sentences(text) == self.count,
            Rule::Ending => text.trim_end_matches('"').to_lowercase().ends_with(&first),
            Rule::Beginning => words(text).first() == Some(&first),
            Rule::Lowercase => text.contains(char::is_alphabetic) && !text.contains(char::is_uppercase),
            Rule::Capitals => text.contains(char::is_alphabetic) && !text.contains(char::is_lowercase),
            Rule::Bullets => bullets(text) == self.count,
            Rule::Keywords => self.words.iter().all(|word| has(text, word)),
            Rule::Avoid => !has(text, &first),
            Rule::Quotes => text.len() > 2 && text.starts_with('"') && text.ends_with('"'),
            Rule::Commas => !text.contains(','),
            Rule::Title => text.lines().any(has_title),
            Rule::Repeat => words(text) == vec![first; self.count],
            Rule::Options => self.words.iter().any(|option| option == text),
        }
    }

    /// A sentence that asks for it.
    fn wording(&self, random: &mut Random) -> String {
        let wordings = RULES.iter().find(|(rule, ..)| *rule == self.rule).map_or(&[][..], |(.., all)| all);
        let number = numeral(random, self.count);
        let plural = if self.count == 1 { "" } else { "s" };
        let gap = match self.rule {
            Rule::Words => format!("{number} word{plural}"),
            Rule::Sentences => format!("{number} sentence{plural}"),
            Rule::Bullets => format!("{number} bullet point{plural}"),
            Rule::Keywords if self.words.len() > 1 => format!("the words {}", names::listed(&self.words)),
            Rule::Keywords => format!("the word {}", names::listed(&self.words)),
            Rule::Options => alternatives(random, &self.words),
            _ => names::listed(&self.words),
        };
        worded(random, wordings, &gap).replace("{n}", &number)
    }
}

/// The share of the demands that a text meets, where being about the topic is one more. A text of fewer than
/// three different words is not about anything.
fn grade(text: &str, demands: &[Demand], topic: Option<&str>) -> f64 {
    let met = demands.iter().filter(|demand| demand.holds(text)).count();
    let Some(topic) = topic else { return met as f64 / demands.len() as f64 };
    let different: HashSet<String> = words(text).into_iter().collect();
    if different.len() < 3 {
        return 0.0;
    }
    let met = met + usize::from(has(text, topic));
    met as f64 / (demands.len() + 1) as f64
}

/// The words of a text in lower case, without punctuation.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// How many words a text has, which whitespace separates.
fn length(text: &str) -> usize {
    text.split_whitespace().count()
}

/// Whether a text has a word, in whatever case.
fn has(text: &str, word: &str) -> bool {
    words(text).contains(&word.to_lowercase())
}

/// How many sentences a text has; the last one may lack its end.
fn sentences(text: &str) -> usize {
    text.split(['.', '!', '?']).filter(|part| part.contains(char::is_alphanumeric)).count()
}

/// How many points a list has.
fn bullets(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("* ")).count()
}

/// Whether a line has something in double angular brackets.
fn has_title(line: &str) -> bool {
    let inner = line.split_once("<<").and_then(|(_, rest)| rest.split_once(">>"));
    inner.is_some_and(|(title, _)| title.contains(char::is_alphanumeric))
}

const NUMERALS: [&str; 13] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
];

/// A small number in digits or, more rarely, as a word.
pub(crate) fn numeral(random: &mut Random, number: usize) -> String {
    match NUMERALS.get(number) {
        Some(word) if random.chance(0.3) => (*word).to_owned(),
        _ => number.to_string(),
    }
}

/// One of several wordings, with this in its gap.
fn worded(random: &mut Random, wordings: &[&str], gap: &str) -> String {
    random.of(wordings).replace("{}", gap)
}

/// `a, b, c`, `"a" or "b" or "c"` and the like.
fn alternatives(random: &mut Random, options: &[String]) -> String {
    let is_quoted = options.iter().any(|option| option.contains(' ')) || random.chance(0.4);
    let quote = if is_quoted { "\"" } else { "" };
    let options: Vec<String> = options.iter().map(|option| format!("{quote}{option}{quote}")).collect();
    let between = *random.of(&[", ", " or ", " / "]);
    options.join(between)
}

/// What a text is about.
struct Topic {
    /// In the request.
    asked: String,
    /// In the answer.
    said: String,
    /// The word that the answer must have.
    word: String,
    /// What stands for it later.
    pronoun: &'static str,
    world: &'static World,
}

impl Topic {
    /// `may_have_name`: whether a made-up name may be written in its answer.
    fn new(random: &mut Random, split: Split, may_have_name: bool) -> Topic {
        if random.chance(0.4) && may_have_name {
            let &(sort, pronoun, world) = random.of(&NAMED);
            let name = names::name(random, split);
            return Topic { asked: format!("{sort} {name}"), said: name.clone(), word: name, pronoun, world };
        }
        let &(asked, pronoun, world) = random.of(&COMMON);
        let word = asked.rsplit(' ').next().unwrap_or(asked);
        Topic { asked: asked.to_owned(), said: format!("the {word}"), word: word.to_owned(), pronoun, world }
    }

    /// Different adjectives.
    fn adjectives(&self, random: &mut Random, count: usize) -> Vec<String> {
        let mut adjectives = self.world.adjectives;
        random.shuffle(&mut adjectives);
        adjectives.into_iter().take(count).map(str::to_owned).collect()
    }

    /// A sentence without a capital at its beginning and without its end.
    fn clause(&self, random: &mut Random, subject: &str, style: Style) -> String {
        let clause = match random.below(6) {
            0 | 1 => format!("{subject} {}", random.of(&self.world.deeds)),
            2 => worded(random, &OBJECTS, &self.said),
            3 => format!("{subject} is {} {}", random.of(&DEGREES), random.of(&self.world.adjectives)),
            4 => format!("{subject} is {}", random.of(&self.world.adjectives)),
            _ => {
                let count = 2 + usize::from(style.has_commas && random.chance(0.5));
                format!("{subject} is {}", names::listed(&self.adjectives(random, count)))
            }
        };
        if length(&clause) > 2 && (style.is_brief || !random.chance(0.4)) {
            return clause;
        }
        let time = random.of(&TIMES);
        if style.has_commas && random.chance(0.4) {
            format!("{time}, {clause}")
        } else {
            format!("{clause} {time}")
        }
    }

    /// Different clauses, of which the first names the topic.
    fn clauses(&self, random: &mut Random, count: usize, style: Style) -> Vec<String> {
        let mut clauses: Vec<String> = Vec::new();
        while clauses.len() < count {
            let names_it = clauses.is_empty() || random.chance(0.5);
            let clause = self.clause(random, if names_it { &self.said } else { self.pronoun }, style);
            if !clauses.contains(&clause) {
                clauses.push(clause);
            }
        }
        clauses
    }
}

/// What clauses may have.
#[derive(Debug, Clone, Copy)]
struct Style {
    has_commas: bool,
    is_brief: bool,
}

/// What rules put into a text, made before the rest of it.
struct Parts {
    /// The first word and what joins it to the first clause.
    lead: Option<(String, String)>,
    /// Words and a clause that has them.
    keywords: Option<(Vec<String>, String)>,
    ending: Option<String>,
}

impl Parts {
    fn new(random: &mut Random, split: Split, rules: &[Rule], topic: &Topic) -> Parts {
        let lead = rules.contains(&Rule::Beginning).then(|| lead(random, split));
        let most = match () {
            () if rules.contains(&Rule::Words) => 1,
            () if rules.contains(&Rule::Commas) => 2,
            () => 3,
        };
        let keywords = rules.contains(&Rule::Keywords).then(|| keywords(random, split, topic, most));
        let ending = rules.contains(&Rule::Ending).then(|| ending(random, split));
        Parts { lead, keywords, ending }
    }

    /// How many clauses and sentences there are at least.
    fn least(&self) -> usize {
        1 + usize::from(self.ending.is_some())
    }

    /// The clauses of a text of so many sentences, without the ending.
    fn clauses(&self, random: &mut Random, topic: &Topic, count: usize, style: Style) -> Vec<String> {
        let others = usize::from(self.keywords.is_some()) + usize::from(self.ending.is_some());
        let style = Style { has_commas: style.has_commas && self.lead.is_none(), ..style };
        let mut clauses = topic.clauses(random, count.saturating_sub(others), style);
        if let Some((_, clause)) = &self.keywords {
            clauses.insert(random.below(clauses.len() + 1), clause.clone());
        }
        if let (Some((word, join)), Some(first)) = (&self.lead, clauses.first_mut()) {
            *first =
                if join.is_empty() { format!("{word} {first}") } else { format!("{word} {join} {first}") };
        }
        clauses.iter().map(|clause| names::capital(clause)).collect()
    }

    /// A text of so many sentences.
    fn text(&self, random: &mut Random, topic: &Topic, count: usize, style: Style) -> String {
        let clauses = self.clauses(random, topic, count, style);
        let ended = |clause| format!("{clause}{}", if random.chance(0.15) { '!' } else { '.' });
        let sentences: Vec<String> = clauses.into_iter().map(ended).chain(self.ending.clone()).collect();
        sentences.join(" ")
    }

    /// A text of about so many words; most often exactly.
    fn text_of_words(&self, random: &mut Random, topic: &Topic, count: usize, style: Style) -> String {
        let mut text = String::new();
        for _ in 0..TRIES {
            let sentences = self.least() + random.below(1 + count / 6);
            text = self.text(random, topic, sentences, style);
            if length(&text) == count {
                break;
            }
        }
        text
    }

    /// A text for these rules, before its title, case and quotation marks.
    fn body(&self, random: &mut Random, topic: &Topic, rules: &[Rule]) -> String {
        let style = Style { has_commas: !rules.contains(&Rule::Commas), is_brief: false };
        let brief = Style { is_brief: true, ..style };
        if rules.contains(&Rule::Bullets) {
            let count = 2 + random.below(3);
            let clauses = self.clauses(random, topic, count, brief);
            return clauses.iter().map(|clause| format!("* {clause}")).collect::<Vec<_>>().join("\n");
        }
        let is_bare = self.keywords.is_none() && self.ending.is_none();
        let (counts_words, counts_sentences) =
            (rules.contains(&Rule::Words), rules.contains(&Rule::Sentences));
        if counts_words && is_bare {
            let count = 3 + random.below(6);
            return self.text_of_words(random, topic, count, style);
        }
        let more = match () {
            () if counts_sentences => random.below(4),
            () if counts_words => 0,
            () => random.below(2),
        };
        let count = (self.least() + more).min(4);
        self.text(random, topic, count, if counts_words || count > 3 { brief } else { style })
    }
}

/// A word to begin with: a common one, or a name and what it thinks.
fn lead(random: &mut Random, split: Split) -> (String, String) {
    if random.chance(0.5) {
        return (random.of(&LEADS).to_string(), String::new());
    }
    (names::name(random, split), random.of(&OPINIONS).to_string())
}

/// Things and perhaps a name, and a clause that has them in this order.
fn keywords(random: &mut Random, split: Split, topic: &Topic, most: usize) -> (Vec<String>, String) {
    let count = 1 + random.below(most);
    let mut keywords: Vec<String> =
        names::things(random, count).into_iter().map(|(thing, _)| thing.to_owned()).collect();
    let things: Vec<String> =
        keywords.iter().map(|thing| format!("{} {thing}", names::article(thing))).collect();
    let mut finder = random.of(&FINDERS).to_string();
    if random.chance(0.3) {
        finder = names::name(random, split);
        keywords.insert(0, finder.clone());
    }
    let (find, near) = (random.of(&FINDS), topic.world.near);
    (keywords, format!("{finder} {find} {} {near} {}", names::listed(&things), topic.said))
}

/// A phrase to end with.
fn ending(random: &mut Random, split: Split) -> String {
    if random.chance(0.6) {
        return random.of(&PHRASES).to_string();
    }
    let name = names::name(random, split);
    worded(random, &NAMED_PHRASES, &name)
}

/// A word that other texts about the topic have, but not this one; most often one that many have.
fn avoided(random: &mut Random, topic: &Topic, text: &str) -> String {
    let used = words(text);
    for _ in 0..TRIES {
        let mut others: Vec<String> = FREQUENT.map(str::to_owned).to_vec();
        if random.chance(0.3) {
            others = words(&topic.clause(random, &topic.said, Style { has_commas: false, is_brief: false }));
        }
        let word = random.of(&others);
        if !used.contains(word) {
            return word.clone();
        }
    }
    "never".to_owned()
}

/// The text with the title, case and quotation marks that these rules ask for.
fn dressed(random: &mut Random, text: String, title: Option<&Topic>, rules: &[Rule]) -> String {
    let mut text = text;
    if let Some(topic) = title.filter(|_| rules.contains(&Rule::Title)) {
        let title = names::capital(&worded(random, &TITLES, &topic.said));
        text = format!("<<{title}>>\n{text}");
    }
    if rules.contains(&Rule::Lowercase) {
        text = text.to_lowercase();
    }
    if rules.contains(&Rule::Capitals) {
        text = text.to_uppercase();
    }
    if rules.contains(&Rule::Quotes) {
        text = format!("\"{text}\"");
    }
    text
}

/// One rule, or two or three that fit each other.
fn rules(random: &mut Random) -> Vec<Rule> {
    let mut order = RULES.map(|(rule, ..)| rule);
    random.shuffle(&mut order);
    let mut left = 1;
    if random.chance(COMBINED) {
        left += 1 + usize::from(random.chance(0.4));
    }
    let mut rules: Vec<Rule> = Vec::new();
    for rule in order {
        if left > 0 && rules.iter().all(|other| other.fits(rule)) {
            rules.push(rule);
            left -= 1;
        }
    }
    rules
}

/// What a rule demands, so that this text meets it.
fn demand(random: &mut Random, rule: Rule, topic: &Topic, parts: &Parts, text: &str) -> Demand {
    let count = match rule {
        Rule::Words => length(text),
        Rule::Sentences => sentences(text),
        Rule::Bullets => bullets(text),
        _ => 0,
    };
    let words = match rule {
        Rule::Ending => parts.ending.iter().cloned().collect(),
        Rule::Beginning => parts.lead.iter().map(|(word, _)| word.clone()).collect(),
        Rule::Keywords => parts.keywords.as_ref().map_or_else(Vec::new, |(words, _)| words.clone()),
        Rule::Avoid => vec![avoided(random, topic, text)],
        _ => Vec::new(),
    };
    Demand { rule, count, words }
}

/// The exercise of a request and what is demanded, in some order. The answer must be about the topic if there
/// is one.
fn finished(
    random: &mut Random,
    request: Option<String>,
    demands: Vec<Demand>,
    topic: Option<String>,
    text: String,
) -> Exercise {
    let mut sentences: Vec<String> = demands.iter().map(|demand| demand.wording(random)).collect();
    random.shuffle(&mut sentences);
    if let Some(request) = request {
        let place = if random.chance(0.75) { 0 } else { sentences.len() };
        sentences.insert(place, request);
    }
    let alone = RULES.iter().find(|(rule, ..)| demands.len() == 1 && *rule == demands[0].rule);
    Exercise {
        subject: Subject::Instructions,
        kind: alone.map_or("instructions.combined", |(_, kind, _)| kind),
        conversation: asked(None, sentences.join(" ")),
        thinks: false,
        answer: says(text),
        grader: Box::new(move |answer| grade(said(answer), &demands, topic.as_deref())),
    }
}

/// A word several times.
fn repeating(random: &mut Random, split: Split, rules: &[Rule]) -> Exercise {
    let word = match random.below(3) {
        0 => names::name(random, split),
        1 => random.of(&names::THINGS).0.to_owned(),
        _ => Topic::new(random, split, true).word,
    };
    let count = 2 + random.below(4);
    let text = dressed(random, vec![word.as_str(); count].join(" "), None, rules);
    let demand = |&rule: &Rule| {
        let is_this = rule == Rule::Repeat;
        let words = is_this.then(|| word.clone()).into_iter().collect();
        Demand { rule, count: if is_this { count } else { 0 }, words }
    };
    finished(random, None, rules.iter().map(demand).collect(), None, text)
}

/// A question with the answers that are allowed; each of them is right.
fn choosing(random: &mut Random, split: Split) -> Exercise {
    let topic = Topic::new(random, split, true);
    let owned = |options: [&str; 3]| options.map(str::to_owned).to_vec();
    let count = 2 + random.below(3);
    let (question, mut options) = match random.below(5) {
        0 | 1 => (random.of(&WHETHER), owned(*random.of(&WHETHER_OPTIONS))),
        2 => (random.of(&HOW_OFTEN), owned(*random.of(&HOW_OFTEN_OPTIONS))),
        3 => (random.of(&WHO), names::names(random, split, count)),
        _ => (random.of(&WHICH), topic.adjectives(random, count)),
    };
    random.shuffle(&mut options);
    let adjective = *random.of(&topic.world.adjectives);
    let request = question.replace("{t}", &topic.said).replace("{a}", adjective);
    let answer = random.of(&options).clone();
    let demands = vec![Demand { rule: Rule::Options, count: 1, words: options }];
    finished(random, Some(request), demands, None, answer)
}

/// A text about a topic.
fn describing(random: &mut Random, split: Split, rules: &[Rule]) -> Exercise {
    // A name in other letters is nothing that can be copied, so it is left to the rules that ask for one.
    let changes_letters = rules.iter().any(|rule| matches!(rule, Rule::Lowercase | Rule::Capitals));
    let topic = Topic::new(random, split, !changes_letters);
    let parts = Parts::new(random, split, rules, &topic);
    let body = parts.body(random, &topic, rules);
    let text = dressed(random, body, Some(&topic), rules);
    let demands = rules.iter().map(|&rule| demand(random, rule, &topic, &parts, &text)).collect();
    let request = worded(random, &REQUESTS, &topic.asked);
    finished(random, Some(request), demands, Some(topic.word), text)
}

/// A request for a text with one to three rules. None is both for learning and for examination.
pub fn exercise(random: &mut Random, split: Split) -> Exercise {
    loop {
        let exercise = candidate(random, split);
        if split_of(exercise.conversation.messages[0].content.as_deref().unwrap_or_default()) == split {
            return exercise;
        }
    }
}

fn candidate(random: &mut Random, split: Split) -> Exercise {
    let rules = rules(random);
    match rules.as_slice() {
        [Rule::Options] => choosing(random, split),
        rules if rules.contains(&Rule::Repeat) => repeating(random, split, rules),
        rules => describing(random, split, rules),
    }
}

/// Wordings and what the texts consist of.
#[rustfmt::skip]
mod vocabulary {
    /// Sentences that ask for a rule; `{}` is the number or the words that it names.
    pub const COUNTED: [&str; 6] = ["Use exactly {}.", "Your answer must have exactly {}.",
        "Answer in exactly {}.", "It must be {}, no more and no less.", "I want {} and not one more.",
        "Make it {} long."];
    pub const ENDING: [&str; 5] = ["End with \"{}\"", "Finish with exactly this: {}",
        "The last words must be: {}", "At the very end, write \"{}\"", "Let your answer end with: {}"];
    pub const BEGINNING: [&str; 5] = ["Begin with the word {}.", "The first word must be \"{}\".",
        "Start with {}.", "Let {} be the first word.", "Your answer must begin with \"{}\"."];
    pub const LOWERCASE: [&str; 5] = ["Use only lowercase letters.", "Write everything in lower case.",
        "Do not use any capital letters.", "No capital letters, please.", "All letters must be small."];
    pub const CAPITALS: [&str; 5] = ["Use only capital letters.", "Write everything in capitals.",
        "Do not use any lowercase letters.", "All caps, please.", "Every letter must be a capital."];
    pub const BULLETS: [&str; 5] = ["Use exactly {}, each on a line that begins with *.",
        "Write it as {}, with * before each.", "Give {}. Each line begins with *.",
        "It must be a list of {} marked with *.", "Answer in {} like this: * point"];
    pub const KEYWORDS: [&str; 5] = ["Use {}.", "Your answer must contain {}.", "Include {}.",
        "Do not forget to use {}.", "Make sure that it has {} in it."];
    pub const AVOID: [&str; 5] = ["Do not use the word {}.", "Never say \"{}\".", "Leave out the word {}.",
        "The word \"{}\" is forbidden.", "Avoid the word {}."];
    pub const QUOTES: [&str; 5] = ["Put the whole answer in double quotation marks.",
        "Wrap everything in double quotes.", "Your answer must begin and end with a double quotation mark.",
        "Write \" before and after the whole answer.", "All of it must stand in double quotation marks."];
    pub const COMMAS: [&str; 5] = ["Do not use commas.", "Use no commas.", "Write it without any comma.",
        "No commas are allowed.", "There must not be a comma in it."];
    pub const TITLE: [&str; 5] = ["Give it a title in double angular brackets, such as <<title>>.",
        "Put a title like <<this>> first.", "It needs a title between << and >>.",
        "Write a <<title>> above it, in double angular brackets.", "Add a title wrapped in << >>."];
    pub const REPEAT: [&str; 6] = ["Write the word {} {n} times and nothing else.",
        "Repeat the word \"{}\" exactly {n} times.", "Say {} {n} times, without any other word.",
        "I want to read \"{}\" {n} times and nothing more.", "Your answer must be the word {} {n} times.",
        "Only write {}, but {n} times."];
    pub const OPTIONS: [&str; 5] = ["Answer with exactly one of these: {}.",
        "Choose one and write nothing else: {}.", "Your whole answer must be one of {}.",
        "Pick one of the following: {}.", "Say only {}."];

    /// Requests for a text.
    pub const REQUESTS: [&str; 6] = ["Write about {}.", "Tell me about {}.", "Write a short text about {}.",
        "Say something about {}.", "Describe {}.", "Please write something about {}."];

    /// What a text of some sort of topic says.
    pub struct World {
        /// What the topic is.
        pub adjectives: [&'static str; 8],
        /// What it does.
        pub deeds: [&'static str; 10],
        /// Where things are that are close to it.
        pub near: &'static str,
    }
    static PLACE: World = World {
        near: "in",
        adjectives: ["big", "small", "old", "quiet", "busy", "lovely", "clean", "famous"],
        deeds: ["shines", "sleeps", "welcomes everyone", "feels like home", "has many visitors",
            "smells of fresh bread", "stands near the river", "has a tall tower", "sells good soup",
            "makes us happy"],
    };
    static NATURE: World = World {
        near: "near",
        adjectives: ["wide", "deep", "cold", "wild", "calm", "old", "dark", "beautiful"],
        deeds: ["shines", "waits", "looks peaceful", "hides old secrets", "feeds many birds", "gives us food",
            "changes its colour", "makes a soft sound", "lies behind the hills", "stretches far away"],
    };
    static WEATHER: World = World {
        near: "in",
        adjectives: ["cold", "soft", "heavy", "strong", "gentle", "strange", "grey", "loud"],
        deeds: ["comes", "stops", "fills the valley", "brings cold air", "slows the horses",
            "wakes the farmers", "sounds like music", "makes children laugh", "comes from the north",
            "changes the whole day"],
    };
    static BEING: World = World {
        near: "beside",
        adjectives: ["kind", "brave", "tired", "happy", "small", "clever", "quiet", "hungry"],
        deeds: ["rests", "smiles", "runs fast", "likes warm bread", "carries a basket", "dreams of summer",
            "looks for friends", "waits by the door", "knows the way home", "walks along the road"],
    };

    /// Topics as they are asked for, and what stands for them later.
    pub static COMMON: [(&str, &str, &World); 24] = [("a shop", "it", &PLACE), ("a market", "it", &PLACE),
        ("an inn", "it", &PLACE), ("a harbour", "it", &PLACE), ("a village", "it", &PLACE),
        ("a garden", "it", &PLACE), ("the sea", "it", &NATURE), ("a river", "it", &NATURE),
        ("a forest", "it", &NATURE), ("a mountain", "it", &NATURE), ("a lake", "it", &NATURE),
        ("a meadow", "it", &NATURE), ("rain", "it", &WEATHER), ("snow", "it", &WEATHER),
        ("the wind", "it", &WEATHER), ("fog", "it", &WEATHER), ("a storm", "it", &WEATHER),
        ("a dog", "it", &BEING), ("a cat", "it", &BEING), ("a horse", "it", &BEING), ("a king", "he", &BEING),
        ("a queen", "she", &BEING), ("a baker", "he", &BEING), ("a sailor", "she", &BEING)];

    /// Topics that a name follows.
    pub static NAMED: [(&str, &str, &World); 8] = [("a town called", "it", &PLACE),
        ("a village called", "it", &PLACE), ("an island called", "it", &NATURE),
        ("a lake called", "it", &NATURE), ("a dog called", "it", &BEING), ("a horse called", "it", &BEING),
        ("a girl called", "she", &BEING), ("a man called", "he", &BEING)];

    /// Sentences in which something is done to the topic.
    pub const OBJECTS: [&str; 8] = ["people like {}", "everyone talks about {}", "we often think of {}",
        "children draw {}", "an old song tells of {}", "my friend loves {}", "travellers remember {}",
        "nobody forgets {}"];
    pub const DEGREES: [&str; 4] = ["very", "quite", "rather", "really"];
    pub const TIMES: [&str; 8] = ["today", "now", "every day", "all year", "at night", "in spring",
        "in the morning", "on cold days"];
    /// Words that many texts have.
    pub const FREQUENT: [&str; 6] = ["is", "and", "the", "it", "in", "very"];
    /// Words that a sentence can begin with.
    pub const LEADS: [&str; 10] = ["Today", "Often", "Sometimes", "Now", "Here", "Still", "Perhaps", "Surely",
        "Truly", "Again"];
    /// What follows a name at the beginning.
    pub const OPINIONS: [&str; 4] = ["says that", "thinks that", "knows that", "writes that"];
    pub const PHRASES: [&str; 8] = ["That is all.", "This is the end.", "Have a good day.",
        "I hope this helps.", "Thank you for reading.", "Is there anything else?", "What do you think?",
        "Now you know."];
    pub const NAMED_PHRASES: [&str; 4] = ["Greetings from {}.", "So says {}.", "Ask {} for more.",
        "Farewell {}."];
    pub const FINDERS: [&str; 4] = ["we", "I", "someone", "they"];
    pub const FINDS: [&str; 5] = ["found", "noticed", "left", "lost", "brought"];
    pub const TITLES: [&str; 4] = ["{}", "about {}", "all about {}", "a word about {}"];

    /// Questions about whether the topic `{t}` is `{a}`, and what may be answered.
    pub const WHETHER: [&str; 4] = ["Is {t} {a}?", "Would you say that {t} is {a}?", "Do you find {t} {a}?",
        "Do people call {t} {a}?"];
    pub const WHETHER_OPTIONS: [[&str; 3]; 5] = [["yes", "no", "maybe"], ["certainly", "hardly", "perhaps"],
        ["true", "false", "unknown"], ["My answer is yes.", "My answer is no.", "My answer is maybe."],
        ["I agree", "I disagree", "I do not know"]];
    pub const HOW_OFTEN: [&str; 3] = ["How often do you think of {t}?", "How often do people talk about {t}?",
        "How often is {t} {a}?"];
    pub const HOW_OFTEN_OPTIONS: [[&str; 3]; 4] = [["often", "rarely", "never"],
        ["always", "sometimes", "never"], ["every day", "every week", "every year"],
        ["once", "twice", "many times"]];
    pub const WHO: [&str; 4] = ["Who knows {t} best?", "Who told you about {t}?",
        "Who shall write about {t}?", "Who likes {t}?"];
    pub const WHICH: [&str; 3] = ["Which word fits {t}?", "Which word describes {t} best?",
        "What is {t} like?"];
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn drawn(split: Split, count: u64) -> impl Iterator<Item = Exercise> {
        let stream = Random::new(11);
        (0..count).map(move |i| exercise(&mut stream.named(&i.to_string()), split))
    }

    fn demanded(rule: Rule, count: usize, words: &[&str]) -> Demand {
        Demand { rule, count, words: words.iter().map(|&word| word.to_owned()).collect() }
    }

    #[test]
    fn rules_tell_texts_that_follow_them() {
        let of = demanded;
        let cases = [
            (of(Rule::Words, 4, &[]), "The sea is calm.", "The sea is very calm."),
            (of(Rule::Words, 3, &[]), "a  b\nc", "a b, c d"),
            (of(Rule::Sentences, 2, &[]), "One. Two!", "One. Two. Three?"),
            (of(Rule::Sentences, 1, &[]), "Really?!", "Yes. No"),
            (of(Rule::Ending, 0, &["That is all."]), "The sea. THAT IS ALL.", "That is all. The sea."),
            (of(Rule::Ending, 0, &["That is all."]), "\"A sea. That is all.\"", "\"That is all\""),
            (of(Rule::Beginning, 0, &["Today"]), "\"today it rains\"", "It rains today"),
            (of(Rule::Beginning, 0, &["Now"]), "Now, it rains", "Nowhere it rains"),
            (of(Rule::Lowercase, 0, &[]), "the sea, 3 times", "the Sea"),
            (of(Rule::Lowercase, 0, &[]), "a", "3 4"),
            (of(Rule::Capitals, 0, &[]), "THE SEA: 3!", "THE SEa"),
            (of(Rule::Bullets, 2, &[]), "* one\n* two", "* one\n*two"),
            (of(Rule::Bullets, 2, &[]), "<<T>>\n* one\n* two", "* one\n* two\n* three"),
            (of(Rule::Keywords, 0, &["rope", "Mara"]), "MARA: a rope.", "Mara has ropes"),
            (of(Rule::Avoid, 0, &["sea"]), "The seaside is quiet", "I like the Sea."),
            (of(Rule::Quotes, 0, &[]), "\"The sea.\"", "\"The sea\"."),
            (of(Rule::Commas, 0, &[]), "The sea; the sun", "The sea, the sun"),
            (of(Rule::Title, 0, &[]), "<<The sea>>\nIt is calm", "<The sea>\nIt is <<>> calm"),
            (of(Rule::Repeat, 3, &["rain"]), "Rain, rain, rain!", "rain rain rain again"),
            (of(Rule::Options, 1, &["yes", "no"]), "no", "No."),
        ];
        for (demand, right, wrong) in cases {
            assert!(demand.holds(right), "{demand:?} {right}");
            assert!(!demand.holds(wrong), "{demand:?} {wrong}");
        }
    }

    #[test]
    fn grades_count_the_topic_and_refuse_empty_texts() {
        let demands = [demanded(Rule::Commas, 0, &[]), demanded(Rule::Lowercase, 0, &[])];
        let grade = |text| grade(text, &demands, Some("sea"));
        assert_eq!(grade("the sea is calm"), 1.0);
        assert_eq!(grade("The sea is calm"), 2.0 / 3.0);
        assert_eq!(grade("the lake is calm"), 2.0 / 3.0);
        assert_eq!(["the sea", "sea sea sea sea", ""].map(grade), [0.0; 3]);
    }

    #[test]
    fn rules_fit_both_ways_and_combine() {
        for (a, ..) in RULES {
            assert!(!a.fits(a) && RULES.iter().all(|&(b, ..)| a.fits(b) == b.fits(a)), "{a:?}");
        }
        let mut random = Random::new(5);
        let drawn: Vec<Vec<Rule>> = (0..2000).map(|_| rules(&mut random)).collect();
        assert!(drawn.iter().all(|rules| (1..=3).contains(&rules.len())));
        let combined = drawn.iter().filter(|rules| rules.len() > 1).count();
        assert!((550..800).contains(&combined), "{combined}");
    }

    #[test]
    fn every_kind_occurs() {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        drawn(Split::Train, 2000).for_each(|exercise| *counts.entry(exercise.kind).or_default() += 1);
        for name in RULES.iter().map(|(_, name, _)| *name).chain(["instructions.combined"]) {
            assert!(counts.get(name).is_some_and(|&count| count > 50), "{name} {counts:?}");
        }
    }

    #[test]
    fn references_are_right_and_short_and_spoiled_ones_are_not_right() {
        for split in [Split::Train, Split::Test] {
            for exercise in drawn(split, 3000) {
                let question = exercise.conversation.messages[0].content.as_deref().unwrap();
                let answer = said(&exercise.answer);
                let what = format!("{}: {question} => {answer}", exercise.kind);
                assert_eq!((exercise.grader)(&exercise.answer), 1.0, "{what}");
                assert!(length(question) < 60 && length(answer) < 40, "{what}");
                assert!(!question.contains(['{', '}']) && !answer.contains(['{', '}']), "{what}");
                for spoiled in ["", "Yes.", "It is what it is, so it is.", "No, never."] {
                    assert!((exercise.grader)(&says(spoiled)) < 1.0, "{what}");
                }
            }
        }
    }
}
