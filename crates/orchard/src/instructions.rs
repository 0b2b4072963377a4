//! Texts that follow instructions which a program can check, of the kinds of IFEval (Zhou et al. 2023).
//!
//! The reference is made first, and the numbers and words that the instructions name are taken from it, so it follows them
//! by construction. What is said of a topic is the same wherever it comes up: texts differ by what is asked and not by
//! chance, which only what is asked could be learned from.

#[rustfmt::skip]
mod vocabulary;

use std::collections::HashSet;

use tangelo_core::random::Random;

use crate::names::{self, split_of};
use crate::{Exercise, Split, Subject, asked, said, says};
use vocabulary::*;

/// How often an exercise has several rules.
const COMBINED: f64 = 0.35;

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
    (
        Rule::Words,
        &[
            Rule::Sentences,
            Rule::Bullets,
            Rule::Title,
            Rule::Beginning,
            Rule::Keywords,
            Rule::Ending,
            Rule::Avoid,
            Rule::Commas,
        ],
    ),
    (Rule::Sentences, &[Rule::Bullets, Rule::Title]),
    (Rule::Bullets, &[Rule::Ending, Rule::Beginning, Rule::Quotes]),
    (Rule::Title, &[Rule::Beginning, Rule::Quotes]),
    (Rule::Lowercase, &[Rule::Capitals]),
];

impl Rule {
    fn changes_letters(self) -> bool {
        matches!(self, Rule::Lowercase | Rule::Capitals)
    }

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
    /// What all topics of its sort share.
    sort: &'static str,
    world: &'static World,
}

impl Topic {
    /// `may_have_name`: whether a made-up name may be written in its answer.
    fn new(random: &mut Random, split: Split, may_have_name: bool) -> Topic {
        if random.chance(0.4) && may_have_name {
            let &(sort, pronoun, world) = random.of(&NAMED);
            let name = names::name(random, split);
            let (asked, said) = (format!("{sort} {name}"), name.clone());
            return Topic { asked, said, word: name, pronoun, sort, world };
        }
        let &(asked, pronoun, world) = random.of(&COMMON);
        let word = asked.rsplit(' ').next().unwrap_or(asked);
        let (said, word) = (format!("the {word}"), word.to_owned());
        Topic { asked: asked.to_owned(), said, word, pronoun, sort: asked, world }
    }

    /// What the topic is and does, which is chosen once for every sort of topic: in this world a dog is a dog.
    fn nature(&self) -> Random {
        Random::new(0).named(self.sort)
    }

    /// Its adjectives, the foremost first.
    fn adjectives(&self) -> [&'static str; 8] {
        let mut adjectives = self.world.adjectives;
        self.nature().named("adjectives").shuffle(&mut adjectives);
        adjectives
    }

    /// All that is ever said about it: sentences without a capital at their beginning and without their end, in which
    /// `{s}` is the topic.
    fn lore(&self, has_commas: bool) -> Vec<String> {
        let (mut random, mut deeds) = (self.nature().named("deeds"), self.world.deeds);
        random.shuffle(&mut deeds);
        let [first, second, ..] = self.adjectives();
        let time = random.of(&TIMES);
        let at_a_time = if has_commas {
            format!("{time}, {{s}} {}", deeds[0])
        } else {
            format!("{{s}} {} {time}", deeds[0])
        };
        let object = worded(&mut random, &OBJECTS, &self.said);
        let degree = random.of(&DEGREES);
        let others = [format!("{{s}} is {first}"), at_a_time, object, format!("{{s}} is {degree} {second}")];
        others.into_iter().chain(deeds[1..].iter().map(|deed| format!("{{s}} {deed}"))).collect()
    }

    /// The first so many clauses about it that do not have this word; the first of them names the topic.
    fn clauses(&self, count: usize, has_commas: bool, avoided: Option<&str>) -> Vec<String> {
        let is_allowed = |clause: &String| avoided.is_none_or(|word| !has(clause, word));
        let lore = self.lore(has_commas).into_iter().filter(is_allowed).take(count);
        let pronoun = if avoided == Some(self.pronoun) { &self.said } else { self.pronoun };
        lore.enumerate()
            .map(|(i, clause)| clause.replace("{s}", if i == 0 { &self.said } else { pronoun }))
            .collect()
    }

    /// So many words, and no others than the list of its adjectives makes.
    fn counted(&self, count: usize) -> String {
        let listed = count.saturating_sub(length(&self.said) + 1);
        format!("{} is {}", self.said, self.adjectives()[..listed].join(", "))
    }
}

/// What rules put into a text, made before the rest of it.
struct Parts {
    /// What the first clause begins with.
    lead: Option<Lead>,
    /// Words and a clause that has them.
    keywords: Option<(Vec<String>, String)>,
    ending: Option<String>,
    /// How many clauses about the topic there are beside these.
    clauses: usize,
    avoided: Option<String>,
}

/// A word, and what joins it to a clause.
struct Lead {
    word: String,
    join: &'static str,
}

impl Parts {
    fn new(random: &mut Random, split: Split, rules: &[Rule], topic: &Topic) -> Parts {
        let has = |rule| rules.contains(&rule);
        // A name in other letters is nothing that can be copied.
        let may_name = !rules.iter().any(|rule| rule.changes_letters());
        let lead = has(Rule::Beginning).then(|| lead(random, split, may_name));
        let most = if has(Rule::Commas) { 2 } else { 3 };
        let keywords = has(Rule::Keywords).then(|| keywords(random, split, topic, most, may_name));
        let ending = has(Rule::Ending).then(|| ending(random, split, may_name));
        let others = usize::from(keywords.is_some()) + usize::from(ending.is_some());
        let clauses = match () {
            () if has(Rule::Bullets) => (2 + random.below(3)).saturating_sub(others),
            () if has(Rule::Sentences) => (1 + random.below(4)).saturating_sub(others),
            () => 2_usize.saturating_sub(others),
        };
        // Where a word leads, or no keywords stand near the topic, there is a clause for it.
        let clauses = clauses.max(usize::from(keywords.is_none() || lead.is_some()));
        let mut parts = Parts { lead, keywords, ending, clauses, avoided: None };
        if has(Rule::Avoid) {
            parts.avoided = Some(parts.avoided(random, topic, rules));
        }
        parts
    }

    /// A word that the text would have, if it can do without.
    fn avoided(&self, random: &mut Random, topic: &Topic, rules: &[Rule]) -> String {
        let mut candidates = words(&self.body(topic, rules, None));
        random.shuffle(&mut candidates);
        let can_do_without = |word: &&String| {
            let is_met = |text: &str| !has(text, word) && has(text, &topic.word);
            let count = self.sentences(topic, rules, Some(word.as_str())).len();
            count == self.sentences(topic, rules, None).len()
                && is_met(&self.body(topic, rules, Some(word.as_str())))
        };
        candidates.iter().find(can_do_without).cloned().unwrap_or_else(|| "never".to_owned())
    }

    /// Sentences without their ends, and without the ending.
    fn sentences(&self, topic: &Topic, rules: &[Rule], avoided: Option<&str>) -> Vec<String> {
        let has_commas = !rules.contains(&Rule::Commas) && self.lead.is_none();
        let mut clauses = topic.clauses(self.clauses, has_commas, avoided);
        if let (Some(Lead { word, join }), Some(first)) = (&self.lead, clauses.first_mut()) {
            *first = format!("{word} {join}{first}");
        }
        clauses.extend(self.keywords.iter().map(|(_, clause)| clause.clone()));
        clauses.iter().map(|clause| names::capital(clause)).collect()
    }

    /// A text for these rules, before its title, case and quotation marks.
    fn body(&self, topic: &Topic, rules: &[Rule], avoided: Option<&str>) -> String {
        let sentences = self.sentences(topic, rules, avoided);
        if rules.contains(&Rule::Bullets) {
            return sentences.iter().map(|clause| format!("* {clause}")).collect::<Vec<_>>().join("\n");
        }
        let ended = sentences.into_iter().map(|sentence| format!("{sentence}."));
        ended.chain(self.ending.clone()).collect::<Vec<_>>().join(" ")
    }
}

/// A word to begin with: a common one, or a name and what it says.
fn lead(random: &mut Random, split: Split, may_name: bool) -> Lead {
    if random.chance(0.5) || !may_name {
        return Lead { word: random.of(&LEADS).to_string(), join: "" };
    }
    Lead { word: names::name(random, split), join: "says that " }
}

/// Things and perhaps a name, and a clause that has them in this order.
fn keywords(
    random: &mut Random,
    split: Split,
    topic: &Topic,
    most: usize,
    may_name: bool,
) -> (Vec<String>, String) {
    let count = 1 + random.below(most);
    let mut keywords: Vec<String> =
        names::things(random, count).into_iter().map(|(thing, _)| thing.to_owned()).collect();
    let things: Vec<String> =
        keywords.iter().map(|thing| format!("{} {thing}", names::article(thing))).collect();
    let mut nature = topic.nature().named("keywords");
    let (mut finder, find) = (nature.of(&FINDERS).to_string(), nature.of(&FINDS));
    if may_name && random.chance(0.3) {
        finder = names::name(random, split);
        keywords.insert(0, finder.clone());
    }
    (keywords, format!("{finder} {find} {} {} {}", names::listed(&things), topic.world.near, topic.said))
}

/// A phrase to end with.
fn ending(random: &mut Random, split: Split, may_name: bool) -> String {
    if random.chance(0.6) || !may_name {
        return random.of(&PHRASES).to_string();
    }
    let name = names::name(random, split);
    worded(random, &NAMED_PHRASES, &name)
}

/// The text with the title, case and quotation marks that these rules ask for.
fn dressed(text: String, title: Option<&Topic>, rules: &[Rule]) -> String {
    let mut text = text;
    if let Some(topic) = title.filter(|_| rules.contains(&Rule::Title)) {
        text = format!("<<{}>>\n{text}", names::capital(&topic.said));
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
fn demand(rule: Rule, parts: &Parts, text: &str) -> Demand {
    let count = match rule {
        Rule::Words => length(text),
        Rule::Sentences => sentences(text),
        Rule::Bullets => bullets(text),
        _ => 0,
    };
    let words = match rule {
        Rule::Ending => parts.ending.iter().cloned().collect(),
        Rule::Beginning => parts.lead.iter().map(|lead| lead.word.clone()).collect(),
        Rule::Keywords => parts.keywords.as_ref().map_or_else(Vec::new, |(words, _)| words.clone()),
        Rule::Avoid => parts.avoided.iter().cloned().collect(),
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
    let may_name = !rules.iter().any(|rule| rule.changes_letters());
    let word = match random.below(3) {
        0 if may_name => names::name(random, split),
        1 => Topic::new(random, split, may_name).word,
        _ => random.of(&names::THINGS).0.to_owned(),
    };
    let count = 2 + random.below(4);
    let text = dressed(vec![word.as_str(); count].join(" "), None, rules);
    let demand = |&rule: &Rule| {
        let is_this = rule == Rule::Repeat;
        let words = is_this.then(|| word.clone()).into_iter().collect();
        Demand { rule, count: if is_this { count } else { 0 }, words }
    };
    finished(random, None, rules.iter().map(demand).collect(), None, text)
}

/// A question with the answers that are allowed; each of them is right, and the first is given.
fn choosing(random: &mut Random, split: Split) -> Exercise {
    let topic = Topic::new(random, split, true);
    let owned = |options: [&str; 3]| options.map(str::to_owned).to_vec();
    let count = 2 + random.below(3);
    let (question, mut options) = match random.below(5) {
        0 | 1 => (random.of(&WHETHER), owned(*random.of(&WHETHER_OPTIONS))),
        2 => (random.of(&HOW_OFTEN), owned(*random.of(&HOW_OFTEN_OPTIONS))),
        3 => (random.of(&WHO), names::names(random, split, count)),
        _ => {
            let mut adjectives = topic.world.adjectives.map(str::to_owned);
            random.shuffle(&mut adjectives);
            (random.of(&WHICH), adjectives[..count].to_vec())
        }
    };
    random.shuffle(&mut options);
    let adjective = *random.of(&topic.world.adjectives);
    let request = question.replace("{t}", &topic.said).replace("{a}", adjective);
    let answer = options[0].clone();
    let demands = vec![Demand { rule: Rule::Options, count: 1, words: options }];
    finished(random, Some(request), demands, None, answer)
}

/// A text about a topic.
fn describing(random: &mut Random, split: Split, rules: &[Rule]) -> Exercise {
    let topic = Topic::new(random, split, !rules.iter().any(|rule| rule.changes_letters()));
    let parts = Parts::new(random, split, rules, &topic);
    let body = match rules.contains(&Rule::Words) {
        true => names::capital(&topic.counted(4 + random.below(5))) + ".",
        false => parts.body(&topic, rules, parts.avoided.as_deref()),
    };
    let text = dressed(body, Some(&topic), rules);
    let demands = rules.iter().map(|&rule| demand(rule, &parts, &text)).collect();
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
    fn what_is_forbidden_would_have_been_said() {
        let mut random = Random::new(8);
        let (mut said, count) = (0, 300);
        for _ in 0..count {
            let topic = Topic::new(&mut random, Split::Train, true);
            let parts = Parts::new(&mut random, Split::Train, &[Rule::Avoid], &topic);
            let avoided = parts.avoided.as_deref().expect("a word");
            let text = parts.body(&topic, &[Rule::Avoid], Some(avoided));
            assert!(
                !has(&text, avoided) && has(&text, &topic.word) && sentences(&text) == 2,
                "{avoided}: {text}"
            );
            said += usize::from(has(&parts.body(&topic, &[Rule::Avoid], None), avoided));
        }
        assert_eq!(said, count);
    }

    #[test]
    fn words_are_counted_with_the_topic() {
        let mut random = Random::new(9);
        for count in 4..=8 {
            let topic = Topic::new(&mut random, Split::Train, true);
            assert_eq!(length(&topic.counted(count)), count, "{}", topic.counted(count));
        }
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
