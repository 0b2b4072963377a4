//! JSON from a sentence.

use serde_json::{Map, Value, json};
use tangelo_core::random::Random;

use crate::instructions::numeral;
use crate::names;
use crate::{Exercise, Split, Subject, asked, said, says};

/// How often a key goes by another name than its usual one.
const RENAMED: f64 = 0.35;
/// How often not all that is said is asked for.
const PARTIAL: f64 = 0.35;
/// How often the keys are asked for in another order.
const SHUFFLED: f64 = 0.5;

const ORDER: [&str; 6] = [
    "{name} buys {count} {thing} for {coins} coins.",
    "{name} pays {coins} coins for {count} {thing}.",
    "For {coins} coins, {name} gets {count} {thing}.",
    "{name} wants {count} {thing}. The price is {coins} coins.",
    "An order from {name}: {count} {thing} for {coins} coins.",
    "The shop sells {count} {thing} to {name} for {coins} coins.",
];
const PERSON: [&str; 6] = [
    "{name} is {age} years old, lives in {town} and works as {article} {trade}.",
    "{name}, {age} years old, is {article} {trade} from {town}.",
    "The {age}-year-old {trade} {name} lives in {town}.",
    "In {town} lives {name}, {article} {trade} of {age} years.",
    "My friend {name} is {article} {trade}. {name} is {age} and comes from {town}.",
    "{name} comes from {town}. At the age of {age}, {name} is {article} {trade}.",
];
const EVENT: [&str; 6] = [
    "The {what} is on {day} at {hour} o'clock in {the}{place}.",
    "On {day} at {hour} o'clock there is {article} {what} in {the}{place}.",
    "Come to the {what} in {the}{place} on {day}. It begins at {hour} o'clock.",
    "{Article} {what} takes place in {the}{place}, on {day} at {hour} o'clock.",
    "In {the}{place}, the {what} begins on {day} at {hour} o'clock.",
    "We meet for the {what} on {day}. Be in {the}{place} at {hour} o'clock.",
];
const LIST: [&str; 6] = [
    "{name} has {things} in the {place}.",
    "{name} keeps {things} in the {place}.",
    "In the {place}, {name} finds {things}.",
    "{name} owns {things}. They are in the {place}.",
    "{name} carries {things} to the {place}.",
    "{name} counts what is in the {place}: {things}.",
];

const TRADES: [&str; 18] = [
    "baker",
    "smith",
    "sailor",
    "weaver",
    "farmer",
    "miller",
    "potter",
    "tailor",
    "carpenter",
    "hunter",
    "painter",
    "teacher",
    "cook",
    "guard",
    "fisher",
    "gardener",
    "inventor",
    "actor",
];
const EVENTS: [&str; 12] = [
    "feast", "dance", "concert", "race", "wedding", "fair", "meeting", "play", "lecture", "auction", "party",
    "contest",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const PLACES: [&str; 12] = [
    "hall", "garden", "harbour", "square", "mill", "tavern", "school", "library", "tower", "barn", "cellar",
    "attic",
];

/// Names that a key may have; the first is its usual one.
type Names = &'static [&'static str];

const BUYER: Names = &["name", "customer", "buyer", "who"];
const THING: Names = &["thing", "item", "ware", "product"];
const COUNT: Names = &["count", "amount", "quantity", "number"];
const COINS: Names = &["coins", "price", "cost", "total"];
const NAME: Names = &["name", "person", "who"];
const AGE: Names = &["age", "years", "years_old"];
const TOWN: Names = &["town", "city", "home", "lives_in"];
const TRADE: Names = &["trade", "job", "work", "profession"];
const WHAT: Names = &["what", "event", "title", "occasion"];
const DAY: Names = &["day", "weekday", "date"];
const HOUR: Names = &["hour", "time", "start", "oclock"];
const PLACE: Names = &["place", "where", "location", "venue"];
const OWNER: Names = &["name", "owner", "person", "who"];
const THINGS: Names = &["items", "things", "list", "wares"];

/// `{}` are the keys.
const REQUESTS: [&str; 6] = [
    "Give this as JSON with {}.",
    "Write it as a JSON object with {}.",
    "Turn this into JSON. Use {}.",
    "Answer only with a JSON object that has {}, in this order.",
    "As JSON, please, with {}.",
    "I need a JSON object of this. It has {}.",
];
/// How the objects in a list are asked for.
const NESTED: [&str; 4] = [
    "{list} is a list of objects with {inner}.",
    "For {list}, give a list of objects with {inner}.",
    "{list} holds a list of objects that have {inner}.",
    "In {list}, list objects with {inner}.",
];

/// Something that is said, and what can be asked of it.
struct Statement {
    kind: &'static str,
    text: String,
    fields: Vec<(Names, Value)>,
    /// Further wishes about the answer.
    wish: Option<String>,
}

/// One of several templates with its gaps filled.
fn filled(random: &mut Random, templates: &[&str], gaps: &[(&str, &str)]) -> String {
    let template = (*random.of(templates)).to_owned();
    gaps.iter().fold(template, |text, (gap, word)| text.replace(&format!("{{{gap}}}"), word))
}

/// A count and a thing, as they are written.
fn some_things(random: &mut Random, (one, many): (&'static str, &'static str)) -> (usize, &'static str) {
    let count = if random.chance(0.7) { 1 + random.below(9) } else { 1 + random.below(40) };
    (count, if count == 1 { one } else { many })
}

fn order(random: &mut Random, split: Split) -> Statement {
    let name = names::name(random, split);
    let things = *random.of(&names::THINGS);
    let (count, thing) = some_things(random, things);
    let coins = 2 + random.below(98);
    let gaps = [
        ("name", name.as_str()),
        ("count", &numeral(random, count)),
        ("thing", thing),
        ("coins", &numeral(random, coins)),
    ];
    let text = filled(random, &ORDER, &gaps);
    let fields =
        vec![(BUYER, json!(name)), (COUNT, json!(count)), (THING, json!(thing)), (COINS, json!(coins))];
    Statement { kind: "structured.order", text, fields, wish: None }
}

fn person(random: &mut Random, split: Split) -> Statement {
    let (name, town) = (names::name(random, split), names::name(random, split));
    let trade = *random.of(&TRADES);
    let age = 13 + random.below(75);
    let gaps = [
        ("name", name.as_str()),
        ("town", &town),
        ("age", &age.to_string()),
        ("article", names::article(trade)),
        ("trade", trade),
    ];
    let text = filled(random, &PERSON, &gaps);
    let fields = vec![(NAME, json!(name)), (AGE, json!(age)), (TOWN, json!(town)), (TRADE, json!(trade))];
    Statement { kind: "structured.person", text, fields, wish: None }
}

fn event(random: &mut Random, split: Split) -> Statement {
    let (what, day) = (*random.of(&EVENTS), *random.of(&DAYS));
    let hour = 1 + random.below(12);
    let (the, place) = match random.chance(0.5) {
        true => ("the ", random.of(&PLACES).to_string()),
        false => ("", names::name(random, split)),
    };
    let article = names::article(what);
    let gaps = [
        ("what", what),
        ("day", day),
        ("hour", &numeral(random, hour)),
        ("the", the),
        ("place", &place),
        ("article", article),
        ("Article", &names::capital(article)),
    ];
    let text = filled(random, &EVENT, &gaps);
    let fields = vec![(WHAT, json!(what)), (DAY, json!(day)), (HOUR, json!(hour)), (PLACE, json!(place))];
    Statement { kind: "structured.event", text, fields, wish: None }
}

fn list(random: &mut Random, split: Split) -> Statement {
    let name = names::name(random, split);
    let place = *random.of(&PLACES);
    let number_of_things = 2 + random.below(2);
    let drawn = names::things(random, number_of_things);
    let things: Vec<_> = drawn.into_iter().map(|thing| some_things(random, thing)).collect();
    let written: Vec<String> =
        things.iter().map(|&(count, thing)| format!("{} {thing}", numeral(random, count))).collect();
    let gaps = [("name", name.as_str()), ("place", place), ("things", &names::listed(&written))];
    let text = filled(random, &LIST, &gaps);
    let mut inner = [(key(random, THING), true), (key(random, COUNT), false)];
    if random.chance(SHUFFLED) {
        inner.reverse();
    }
    let object = |&(count, thing): &(usize, &str)| -> Value {
        let value = |is_thing| if is_thing { json!(thing) } else { json!(count) };
        Value::Object(inner.iter().map(|&(key, is_thing)| (key.to_owned(), value(is_thing))).collect())
    };
    let values: Value = things.iter().map(object).collect();
    let inner = inner.map(|(key, _)| key.to_owned());
    let wish = filled(random, &NESTED, &[("inner", &names::listed(&inner))]);
    let fields = vec![(THINGS, values), (OWNER, json!(name)), (PLACE, json!(place))];
    Statement { kind: "structured.list", text, fields, wish: Some(wish) }
}

/// A name of a key.
fn key(random: &mut Random, names: Names) -> &'static str {
    match names {
        [] => "key",
        [usual, others @ ..] if others.is_empty() || !random.chance(RENAMED) => usual,
        [_, others @ ..] => others[random.below(others.len())],
    }
}

/// The keys and values that are asked for. A list is always among them; of the others there may be fewer.
fn wanted(random: &mut Random, statement: &Statement) -> Map<String, Value> {
    let mut fields = statement.fields.clone();
    if random.chance(PARTIAL) {
        let (fixed, least) = if statement.wish.is_some() { (1, 1) } else { (0, 2) };
        random.shuffle(&mut fields[fixed..]);
        fields.truncate(least + random.below(fields.len() - least));
    }
    if random.chance(SHUFFLED) {
        random.shuffle(&mut fields);
    }
    fields.into_iter().map(|(names, value)| (key(random, names).to_owned(), value)).collect()
}

/// `the keys a, b and c`, the keys plain or in quotation marks.
fn keys_listed(random: &mut Random, keys: &Map<String, Value>) -> String {
    let quote = *random.of(&["", "", "\""]);
    let listed: Vec<String> = keys.keys().map(|key| format!("{quote}{key}{quote}")).collect();
    let key = if listed.len() == 1 { "key" } else { "keys" };
    format!("the {key} {}", names::listed(&listed))
}

/// The statement and the request, most often in this order.
fn question(random: &mut Random, statement: &Statement, wanted: &Map<String, Value>) -> String {
    let mut request = random.of(&REQUESTS).replace("{}", &keys_listed(random, wanted));
    if let Some(wish) = &statement.wish {
        let list = wanted.iter().find(|(_, value)| value.is_array()).map_or("", |(key, _)| key);
        let wish = wish.replace("{list}", list);
        request = format!("{request} {wish}");
    }
    if random.chance(0.7) {
        format!("{} {request}", statement.text)
    } else {
        format!("{request}\n{}", statement.text)
    }
}

/// JSON on one line with a space behind colons and commas.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| format!("{}: {}", json!(key), spaced(value));
            format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// A text without the fence of a block of code around it.
fn unfenced(text: &str) -> &str {
    let inner = text.strip_prefix("```").and_then(|text| text.strip_suffix("```"));
    inner.map_or(text, |text| text.strip_prefix("json").unwrap_or(text)).trim()
}

/// The share of keys whose values are right, or 0 if there are other keys than these.
fn grade(text: &str, wanted: &Map<String, Value>, is_ordered: bool) -> f64 {
    let Ok(Value::Object(given)) = serde_json::from_str(unfenced(text)) else { return 0.0 };
    if given.len() != wanted.len() || given.keys().any(|key| !wanted.contains_key(key)) {
        return 0.0;
    }
    if is_ordered && !given.keys().eq(wanted.keys()) {
        return 0.0;
    }
    let right = wanted.iter().filter(|(key, value)| given.get(*key) == Some(value)).count();
    right as f64 / wanted.len() as f64
}

/// A statement that is to be written as JSON.
pub fn exercise(random: &mut Random, split: Split) -> Exercise {
    let statement = match random.below(4) {
        0 => order(random, split),
        1 => person(random, split),
        2 => event(random, split),
        _ => list(random, split),
    };
    let wanted = wanted(random, &statement);
    let question = question(random, &statement, &wanted);
    let is_ordered = question.contains("in this order");
    Exercise {
        subject: Subject::Structured,
        kind: statement.kind,
        conversation: asked(None, question),
        thinks: false,
        answer: says(spaced(&Value::Object(wanted.clone()))),
        grader: Box::new(move |answer| grade(said(answer), &wanted, is_ordered)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn drawn(split: Split, count: u64) -> impl Iterator<Item = Exercise> {
        let stream = Random::new(12);
        (0..count).map(move |i| exercise(&mut stream.named(&i.to_string()), split))
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn grades_are_the_share_of_right_values() {
        let wanted = object(json!({"name": "Mara", "count": 3}));
        let cases = [
            (r#"{"name": "Mara", "count": 3}"#, 1.0),
            (" {\"count\":3,\n\"name\":\"Mara\"} ", 1.0),
            ("```json\n{\"name\": \"Mara\", \"count\": 3}\n```", 1.0),
            ("```\n{\"name\": \"Mara\", \"count\": 3}\n```", 1.0),
            (r#"{"name": "Mara", "count": 4}"#, 0.5),
            (r#"{"name": "Mara", "count": "3"}"#, 0.5),
            (r#"{"name": "mara", "count": 3.0}"#, 0.0),
            (r#"{"name": "Mara"}"#, 0.0),
            (r#"{"name": "Mara", "count": 3, "coins": 1}"#, 0.0),
            (r#"{"customer": "Mara", "count": 3}"#, 0.0),
            (r#"[{"name": "Mara", "count": 3}]"#, 0.0),
            (r#"Here: {"name": "Mara", "count": 3}"#, 0.0),
            (r#"{"name": "Mara", "count": 3"#, 0.0),
            ("```", 0.0),
            ("", 0.0),
        ];
        for (text, right) in cases {
            assert_eq!(grade(text, &wanted, false), right, "{text}");
        }
        assert_eq!(grade(cases[0].0, &wanted, true), 1.0);
        assert_eq!(grade(cases[1].0, &wanted, true), 0.0, "another order than that asked for");
    }

    #[test]
    fn json_is_written_with_spaces() {
        let value = json!({"a": "x \"y\"", "b": [{"c": 1}, {"c": 2}], "d": null});
        assert_eq!(spaced(&value), r#"{"a": "x \"y\"", "b": [{"c": 1}, {"c": 2}], "d": null}"#);
        assert_eq!(serde_json::from_str::<Value>(&spaced(&value)).unwrap(), value);
    }

    #[test]
    fn every_kind_occurs() {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        drawn(Split::Train, 2000).for_each(|exercise| *counts.entry(exercise.kind).or_default() += 1);
        for name in ["structured.order", "structured.person", "structured.event", "structured.list"] {
            assert!(counts.get(name).is_some_and(|&count| count > 300), "{name} {counts:?}");
        }
        assert_eq!(counts.len(), 4);
    }

    #[test]
    fn references_are_right_and_short_and_spoiled_ones_are_not_right() {
        for split in [Split::Train, Split::Test] {
            for exercise in drawn(split, 3000) {
                let question = exercise.conversation.messages[0].content.as_deref().unwrap();
                let answer = said(&exercise.answer);
                let what = format!("{}: {question} => {answer}", exercise.kind);
                assert_eq!((exercise.grader)(&exercise.answer), 1.0, "{what}");
                assert!(question.split_whitespace().count() < 60, "{what}");
                assert!(answer.split_whitespace().count() < 40, "{what}");
                assert!(!question.contains(['{', '}']), "{what}");
                let given: Value = serde_json::from_str(answer).unwrap();
                let places: Vec<_> = object(given).keys().map(|key| question.find(key.as_str())).collect();
                assert!(places.iter().all(Option::is_some), "{what}");
                let spoiled = [
                    String::new(),
                    format!("{answer} That is all."),
                    answer.replacen(": ", ": 1", 1),
                    answer.replacen('{', "{\"other\": 1, ", 1),
                    answer.to_uppercase(),
                ];
                for spoiled in spoiled {
                    assert!((exercise.grader)(&says(spoiled.clone())) < 1.0, "{what} {spoiled}");
                }
            }
        }
    }
}
