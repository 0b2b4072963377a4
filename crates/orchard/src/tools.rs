//! Calls of tools: the right one among several, with the right arguments; two at once; none; answers from results.

use serde_json::{Map, Value, json};
use tangelo_chat::{Conversation, Message, Role, Tool, ToolCall};
use tangelo_core::random::Random;

use crate::grading::{abstains, has_phrase, has_word, names_others, numbers, words};
use crate::names::{capital, name, split_of, things};
use crate::{Exercise, Split, Subject, if_so, said, says};

/// What a parameter holds.
#[derive(Clone, Copy)]
enum Kind {
    /// A made-up name.
    Name,
    /// A thing.
    Thing,
    /// A few words.
    Phrase,
    /// A whole number from 2 up to this.
    Number(usize),
    /// One of these.
    OneOf(&'static [&'static str]),
}

/// What a tool is for. Its name is made of a verb and a noun; in texts, `{0}` and so on are the arguments and `{r}` the
/// result.
pub(crate) struct Family {
    verbs: [&'static str; 8],
    nouns: [&'static str; 3],
    description: &'static str,
    /// Each under one of three names.
    parameters: &'static [([&'static str; 3], Kind)],
    requests: &'static [&'static str],
    /// Name and kind of what it returns.
    result: (&'static str, Kind),
    answer: &'static str,
}

const ROOMS: [&str; 6] = ["kitchen", "hall", "cellar", "attic", "bedroom", "garden"];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const COLOURS: [&str; 5] = ["red", "blue", "green", "white", "yellow"];
const DONE: Kind = Kind::OneOf(&["done"]);

const FAMILIES: [Family; 14] = [
    Family {
        verbs: ["get", "read", "show", "check", "find", "ask", "look_up", "fetch"],
        nouns: ["weather", "forecast", "temperature"],
        description: "Gets the weather of a town.",
        parameters: &[(["town", "city", "place"], Kind::Name)],
        requests: &[
            "What is the weather in {0}?",
            "How is the weather in {0}?",
            "Tell me the weather of {0}.",
            "Check the weather in {0}.",
            "Is it cold in {0}?",
        ],
        result: ("degrees", Kind::Number(35)),
        answer: "In {0} it is {r} degrees.",
    },
    Family {
        verbs: ["send", "write", "post", "deliver", "pass", "mail", "text", "hand"],
        nouns: ["message", "note", "letter"],
        description: "Sends a message to a person.",
        parameters: &[
            (["person", "name", "who"], Kind::Name),
            (["text", "message", "content"], Kind::Phrase),
        ],
        requests: &[
            "Send {0} the message {1}.",
            "Write {0} a message: {1}.",
            "Tell {0} this: {1}.",
            "Send a letter to {0} that says {1}.",
            "Write to {0}: {1}.",
        ],
        result: ("status", DONE),
        answer: "The message to {0} is {r}.",
    },
    Family {
        verbs: ["set", "add", "make", "start", "new", "create", "put", "plan"],
        nouns: ["alarm", "wake_up", "reminder"],
        description: "Sets an alarm for an hour of a day.",
        parameters: &[
            (["hour", "time", "clock"], Kind::Number(23)),
            (["day", "weekday", "date"], Kind::OneOf(&DAYS)),
        ],
        requests: &[
            "Set an alarm for {0} on {1}.",
            "Wake me at {0} on {1}.",
            "I need an alarm on {1} at {0}.",
        ],
        result: ("status", DONE),
        answer: "The alarm for {0} on {1} is {r}.",
    },
    Family {
        verbs: ["get", "find", "look_up", "ask", "check", "show", "read", "fetch"],
        nouns: ["price", "cost", "item_price"],
        description: "Gets the price of a thing.",
        parameters: &[(["item", "thing", "article"], Kind::Thing)],
        requests: &[
            "What is the price of the {0}?",
            "How much does the {0} cost?",
            "Look up the price of the {0}.",
        ],
        result: ("coins", Kind::Number(90)),
        answer: "The {0} costs {r} coins.",
    },
    Family {
        verbs: ["buy", "order", "purchase", "take", "acquire", "request", "pay", "shop"],
        nouns: ["item", "goods", "ware"],
        description: "Buys some of a thing.",
        parameters: &[
            (["item", "thing", "article"], Kind::Thing),
            (["count", "number", "amount"], Kind::Number(20)),
        ],
        requests: &["Buy {1} of the {0}.", "Order the {0}, {1} times.", "Get me {1} of the {0}."],
        result: ("coins", Kind::Number(200)),
        answer: "{1} of the {0} cost {r} coins.",
    },
    Family {
        verbs: ["switch", "set", "turn", "change", "control", "flip", "put", "toggle"],
        nouns: ["light", "lamp", "room_light"],
        description: "Switches the light of a room.",
        parameters: &[
            (["room", "place", "where"], Kind::OneOf(&ROOMS)),
            (["state", "value", "to"], Kind::OneOf(&["on", "off"])),
        ],
        requests: &[
            "Switch the light in the {0} {1}.",
            "Turn {1} the light in the {0}.",
            "Light {1} in the {0}, please.",
        ],
        result: ("status", DONE),
        answer: "The light in the {0} is {1}.",
    },
    Family {
        verbs: ["paint", "colour", "brush", "change", "make", "do", "renew", "finish"],
        nouns: ["room", "walls", "room_colour"],
        description: "Paints a room in a colour.",
        parameters: &[
            (["room", "place", "where"], Kind::OneOf(&ROOMS)),
            (["colour", "paint", "shade"], Kind::OneOf(&COLOURS)),
        ],
        requests: &["Paint the {0} {1}.", "Make the {0} {1}.", "I want the {0} in {1}."],
        result: ("status", DONE),
        answer: "The {0} is {1} now.",
    },
    Family {
        verbs: ["find", "look_for", "locate", "search", "seek", "track", "trace", "spot"],
        nouns: ["person", "someone", "people"],
        description: "Finds out where a person is.",
        parameters: &[(["person", "name", "who"], Kind::Name)],
        requests: &["Where is {0}?", "Find {0}.", "I am looking for {0}."],
        result: ("place", Kind::Name),
        answer: "{0} is in {r}.",
    },
    Family {
        verbs: ["book", "reserve", "rent", "hire", "get", "take", "keep", "arrange"],
        nouns: ["inn", "night", "inn_room"],
        description: "Books a room in an inn for some nights.",
        parameters: &[
            (["inn", "house", "hotel"], Kind::Name),
            (["nights", "days", "stay"], Kind::Number(14)),
        ],
        requests: &[
            "Book a room in {0} for {1} nights.",
            "I stay {1} nights in {0}: book a room.",
            "Reserve {1} nights in {0}.",
        ],
        result: ("coins", Kind::Number(200)),
        answer: "{1} nights in {0} cost {r} coins.",
    },
    Family {
        verbs: ["start", "set", "run", "begin", "new", "create", "launch", "add"],
        nouns: ["timer", "countdown", "stopwatch"],
        description: "Starts a timer of some minutes.",
        parameters: &[(["minutes", "length", "duration"], Kind::Number(90))],
        requests: &[
            "Start a timer of {0} minutes.",
            "Tell me when {0} minutes are over.",
            "Set a timer for {0} minutes.",
        ],
        result: ("status", DONE),
        answer: "The timer of {0} minutes is {r}.",
    },
    Family {
        verbs: ["play", "start", "sing", "hear", "perform", "stream", "put_on", "queue"],
        nouns: ["song", "music", "tune"],
        description: "Plays a song of a singer.",
        parameters: &[(["singer", "artist", "voice"], Kind::Name)],
        requests: &["Play a song of {0}.", "I want to hear {0} sing.", "Put on a song of {0}."],
        result: ("song", Kind::Name),
        answer: "The song is {r}.",
    },
    Family {
        verbs: ["count", "get", "check", "read", "show", "look_up", "fetch", "ask"],
        nouns: ["stock", "inventory", "supply"],
        description: "Counts how many of a thing are left.",
        parameters: &[(["item", "thing", "article"], Kind::Thing)],
        requests: &["How many of the {0} are left?", "Count the stock of the {0}.", "Is there any {0} left?"],
        result: ("count", Kind::Number(90)),
        answer: "{r} of the {0} are left.",
    },
    Family {
        verbs: ["open", "unlock", "move", "control", "swing", "use", "set", "operate"],
        nouns: ["door", "gate", "room_door"],
        description: "Opens or closes the door of a room.",
        parameters: &[
            (["room", "place", "where"], Kind::OneOf(&ROOMS)),
            (["action", "command", "what"], Kind::OneOf(&["open", "close"])),
        ],
        requests: &[
            "Please {1} the door of the {0}.",
            "The door of the {0}: {1} it.",
            "Can you {1} the {0} door?",
        ],
        result: ("status", DONE),
        answer: "The door of the {0} is {r}.",
    },
    Family {
        verbs: ["get", "measure", "find", "plan", "look_up", "compute", "show", "check"],
        nouns: ["travel_time", "route", "distance"],
        description: "Gets the hours of travel between two towns.",
        parameters: &[(["start", "from", "origin"], Kind::Name), (["end", "to", "goal"], Kind::Name)],
        requests: &[
            "How far is it from {0} to {1}?",
            "How long is the way from {0} to {1}?",
            "I go from {0} to {1}. How long is that?",
        ],
        result: ("hours", Kind::Number(60)),
        answer: "From {0} to {1} it takes {r} hours.",
    },
];

/// Requests before the one that is asked about, fewer than this; more to learn from, since tools are long and answers short.
const fn earlier(split: Split) -> usize {
    match split {
        Split::Train => 8,
        Split::Test => 4,
    }
}

/// How often two requests are for different tools, where there are several.
const OF_TWO_TOOLS: f64 = 0.75;

/// How many tools must be known by their names.
const WITHOUT_DESCRIPTION: f64 = 0.05;

/// What is said where no tool fits.
pub(crate) const NONE: &str = "I cannot do that, because none of my tools is for it.";

impl Kind {
    fn value(self, random: &mut Random, split: Split) -> Value {
        match self {
            Kind::Name => json!(name(random, split)),
            Kind::Thing => json!(things(random, 1).first().map_or("rope", |thing| thing.0)),
            Kind::Phrase => json!(phrase(random, split)),
            Kind::Number(most) => json!(2 + random.below(most - 1)),
            Kind::OneOf(words) => json!(random.pick(words)),
        }
    }

    fn schema(self) -> Value {
        match self {
            Kind::Name | Kind::Thing | Kind::Phrase => json!({"type": "string"}),
            Kind::Number(_) => json!({"type": "integer"}),
            Kind::OneOf(words) => json!({"type": "string", "enum": words}),
        }
    }
}

/// What messages say: `{n}` is a name, `{t}` a thing.
const PHRASES: [&str; 16] = [
    "{t}",
    "hello",
    "thank you",
    "come home",
    "I am late",
    "see you at the {t}",
    "{n} is here",
    "bring the {t}",
    "the {t} is ready",
    "meet me in {n}",
    "we need a {t}",
    "wait for {n}",
    "I found your {t}",
    "all is well in {n}",
    "do not forget the {t}",
    "{n} wants to see you",
];

fn phrase(random: &mut Random, split: Split) -> String {
    let phrase = random.pick(&PHRASES).replace("{n}", &name(random, split));
    phrase.replace("{t}", things(random, 1)[0].0)
}

/// A request that a family is for.
pub(crate) fn asked_for(random: &mut Random, split: Split, families: &[&'static Family]) -> Request {
    let family = random.pick(families);
    Declared::new(random, split, family).request(random, split, 0)
}

/// A tool of a family under one of its names, and its parameters.
pub(crate) struct Declared {
    family: &'static Family,
    pub name: String,
    parameters: Vec<(&'static str, Kind)>,
}

/// A wish that one tool grants.
pub(crate) struct Request {
    pub text: String,
    call: ToolCall,
    values: Vec<Value>,
}

impl Declared {
    fn new(random: &mut Random, split: Split, family: &'static Family) -> Declared {
        let parameters = family.parameters.iter().map(|(names, kind)| (random.pick(names), *kind)).collect();
        Declared { family, name: tool_name(random, split, family), parameters }
    }

    /// What it is for, if that is said.
    pub fn description(&self, random: &mut Random) -> Option<&'static str> {
        (!random.chance(WITHOUT_DESCRIPTION)).then_some(self.family.description)
    }

    fn tool(&self, random: &mut Random) -> Option<Tool> {
        let properties: Map<String, Value> =
            self.parameters.iter().map(|(name, kind)| ((*name).to_owned(), kind.schema())).collect();
        let names: Vec<&str> = self.parameters.iter().map(|(name, _)| *name).collect();
        let mut function = json!({"name": self.name, "description": self.description(random),
            "parameters": {"type": "object", "properties": properties, "required": names}});
        if let Some(function) = function.as_object_mut() {
            function.retain(|_, value| !value.is_null());
        }
        Tool::new(json!({"type": "function", "function": function}), 0).ok()
    }

    fn result(&self, random: &mut Random, split: Split) -> Value {
        self.family.result.1.value(random, split)
    }

    /// What the tool returns.
    fn response(&self, request: &Request, result: &Value) -> Message {
        let mut response = Message::new(Role::Tool, json!({ self.family.result.0: result }).to_string());
        response.tool_call_id.clone_from(&request.call.id);
        response
    }

    pub fn request(&self, random: &mut Random, split: Split, number: usize) -> Request {
        let parameters = &self.parameters;
        let values: Vec<Value> = parameters.iter().map(|(_, kind)| kind.value(random, split)).collect();
        let arguments =
            parameters.iter().zip(&values).map(|((name, _), value)| ((*name).to_owned(), value.clone()));
        let call = ToolCall {
            id: Some(format!("call_{number}")),
            name: self.name.clone(),
            arguments: arguments.collect(),
        };
        Request { text: fill(random.pick(self.family.requests), &values, None), call, values }
    }
}

/// A name that none of the other split has, such as `get_weather`, `weather_get` or `getWeather`.
fn tool_name(random: &mut Random, split: Split, family: &Family) -> String {
    loop {
        let (verb, noun) = (random.pick(&family.verbs), random.pick(&family.nouns));
        let name = match random.below(4) {
            0 => format!("{noun}_{verb}"),
            1 => verb.to_owned() + &noun.split('_').map(capital).collect::<String>(),
            _ => format!("{verb}_{noun}"),
        };
        if split_of(&name) == split {
            return name;
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn fill(pattern: &str, values: &[Value], result: Option<&Value>) -> String {
    let mut text = pattern.to_owned();
    for (i, value) in values.iter().enumerate() {
        text = text.replace(&format!("{{{i}}}"), &plain(value));
    }
    result.map_or(text.clone(), |result| text.replace("{r}", &plain(result)))
}

/// So many tools, each under one of its names, and what none of them is for.
pub(crate) fn some(random: &mut Random, split: Split, count: usize) -> (Vec<Declared>, Vec<&'static Family>) {
    let mut families: Vec<&'static Family> = FAMILIES.iter().collect();
    random.shuffle(&mut families);
    let spare = families.split_off(count);
    (families.into_iter().map(|family| Declared::new(random, split, family)).collect(), spare)
}

pub(crate) fn exercise(random: &mut Random, split: Split) -> Exercise {
    let count = 2 + random.below(3);
    let (declared, spare) = some(random, split, count);
    let tools: Vec<Tool> = declared.iter().filter_map(|declared| declared.tool(random)).collect();
    let thinks = random.chance(0.3);
    let mut messages = Vec::new();
    for _ in 0..random.below(earlier(split)) {
        let made = match random.below(3) {
            0 => none(random, split, &spare),
            1 => with_results(random, split, &declared),
            _ => with_result(random, split, &declared),
        };
        messages.extend(made.messages);
        messages.push(made.answer);
    }
    let made = match random.below(10) {
        0..3 => none(random, split, &spare),
        3..6 => parallel(random, split, &declared),
        6 => with_result(random, split, &declared),
        _ => single(random, split, &declared),
    };
    let Made { kind, messages: last, mut answer, thought, grader } = made;
    messages.extend(last);
    answer.reasoning_content = thinks.then_some(thought);
    Exercise {
        subject: Subject::Tools,
        kind,
        conversation: Conversation { messages, tools },
        thinks,
        answer,
        grader,
    }
}

/// A request, what happened since, and the answer that is wanted.
pub(crate) struct Made {
    pub kind: &'static str,
    /// Ends where the assistant is to answer.
    pub messages: Vec<Message>,
    pub answer: Message,
    pub thought: String,
    pub grader: crate::Grader,
}

/// Tools of somebody who has other things to talk about: none that is about wares.
pub(crate) struct Tools {
    declared: Vec<Declared>,
    /// What none of them is for.
    spare: Vec<&'static Family>,
    /// As they are given to the model.
    pub list: Vec<Tool>,
}

impl Tools {
    /// One tool or two.
    pub fn beside_a_shop(random: &mut Random, split: Split) -> Tools {
        let is_apart = |family: &&Family| family.parameters.iter().all(|(names, _)| names[0] != "item");
        let mut families: Vec<&'static Family> = FAMILIES.iter().filter(is_apart).collect();
        random.shuffle(&mut families);
        let spare = families.split_off(1 + random.below(2));
        let declared: Vec<Declared> =
            families.into_iter().map(|family| Declared::new(random, split, family)).collect();
        let list = declared.iter().filter_map(|declared| declared.tool(random)).collect();
        Tools { declared, spare, list }
    }

    /// A request that has been granted, or that none of the tools is for.
    pub fn earlier(&self, random: &mut Random, split: Split) -> Made {
        match random.below(3) {
            0 => none(random, split, &self.spare),
            _ => with_result(random, split, &self.declared),
        }
    }

    /// A request, or one with its result.
    pub fn last(&self, random: &mut Random, split: Split) -> Made {
        match random.below(6) {
            0 | 1 => none(random, split, &self.spare),
            2 => with_result(random, split, &self.declared),
            _ => single(random, split, &self.declared),
        }
    }
}

fn single(random: &mut Random, split: Split, declared: &[Declared]) -> Made {
    let chosen = random.of(declared);
    let request = chosen.request(random, split, 0);
    calls("tools.single", request.text, vec![request.call])
}

fn parallel(random: &mut Random, split: Split, declared: &[Declared]) -> Made {
    let (text, requests) = two(random, split, declared);
    calls("tools.parallel", text, requests.map(|(_, request)| request.call).into())
}

/// Two requests, and both in one text.
pub(crate) fn two<'a>(
    random: &mut Random,
    split: Split,
    declared: &'a [Declared],
) -> (String, [(&'a Declared, Request); 2]) {
    let first = random.below(declared.len());
    let other = (first + 1 + random.below(declared.len().max(2) - 1)) % declared.len();
    let second = if random.chance(OF_TWO_TOOLS) { other } else { first };
    let requests = [(first, 0), (second, 1)]
        .map(|(at, number)| (&declared[at], declared[at].request(random, split, number)));
    let link = random.pick(&[" ", " And: ", " Also: ", "\n"]);
    (format!("{}{link}{}", requests[0].1.text, requests[1].1.text), requests)
}

/// Two requests that have been granted, and the answer to both.
fn with_results(random: &mut Random, split: Split, declared: &[Declared]) -> Made {
    let (text, requests) = two(random, split, declared);
    let mut called = says("");
    called.content = None;
    let (mut responses, mut answers) = (Vec::new(), Vec::new());
    for (declared, request) in &requests {
        let result = declared.result(random, split);
        responses.push(declared.response(request, &result));
        answers.push(fill(declared.family.answer, &request.values, Some(&result)));
    }
    called.tool_calls = requests.map(|(_, request)| request.call).into();
    let answer = says(answers.join(" "));
    let wanted = answer.content.clone();
    Made {
        kind: "tools.result",
        messages: [vec![Message::new(Role::User, text), called], responses].concat(),
        answer,
        thought: "The results are there.".to_owned(),
        grader: Box::new(move |answer| if_so(answer.content == wanted)),
    }
}

fn calls(kind: &'static str, text: String, calls: Vec<ToolCall>) -> Made {
    let mut answer = says("");
    answer.content = None;
    let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    let thought = format!("I call {}.", names.join(" and "));
    answer.tool_calls = calls.clone();
    let grader = Box::new(move |answer: &Message| grade_calls(answer, &calls));
    Made { kind, messages: vec![Message::new(Role::User, text)], answer, thought, grader }
}

/// Whether a text begins with saying that something cannot be done.
pub(crate) fn declines(text: &str) -> bool {
    let first = text.split(['.', '!', '?', ';']).next().unwrap_or_default();
    has_phrase(
        first,
        &[
            "cannot",
            "can't",
            "can not",
            "unable",
            "no tool",
            "none of",
            "not have",
            "don't have",
            "no function",
        ],
    )
}

/// `spare`: what no tool is for.
fn none(random: &mut Random, split: Split, spare: &[&'static Family]) -> Made {
    let request = asked_for(random, split, spare);
    let asked = request.text.clone();
    Made {
        kind: "tools.none",
        messages: vec![Message::new(Role::User, request.text)],
        answer: says(NONE),
        thought: "None of the tools fits.".to_owned(),
        grader: Box::new(move |answer| {
            let is_of_request = |number: &str| words(&asked).any(|word| word == number);
            let declines = declines(said(answer)) || abstains(answer);
            if_so(answer.tool_calls.is_empty() && declines && numbers(said(answer)).all(is_of_request))
        }),
    }
}

fn with_result(random: &mut Random, split: Split, declared: &[Declared]) -> Made {
    let declared = random.of(declared);
    let request = declared.request(random, split, 0);
    let result = declared.result(random, split);
    let response = declared.response(&request, &result);
    let mut called = says("");
    called.content = None;
    called.tool_calls = vec![request.call];
    let answer = fill(declared.family.answer, &request.values, Some(&result));
    let result = plain(&result);
    // What has been done may be said by its arguments; anything else must be said itself.
    let is_said = |value: &String| words(&answer).any(|word| word == value);
    let needed: Vec<String> = match result.as_str() {
        "done" => request.values.iter().map(plain).filter(is_said).collect(),
        _ => vec![result.clone()],
    };
    let known: Vec<String> = request.values.iter().map(plain).chain([result.clone()]).collect();
    let asked = request.text.clone();
    let right = [asked.clone(), answer.clone(), result.clone()];
    Made {
        kind: "tools.result",
        messages: vec![Message::new(Role::User, request.text), called, response],
        thought: format!("The result is {result}."),
        answer: says(answer),
        grader: Box::new(move |answer| {
            let text = said(answer);
            let is_right = !needed.is_empty() && needed.iter().all(|value| has_word(text, value));
            // Where nothing but success is reported, saying so is enough.
            let is_enough = is_right || result == "done" && has_word(text, "done");
            let is_other = |number: &str| !known.iter().any(|value| has_word(value, number));
            let is_denied = ["not", "failed"].iter().any(|no| has_word(text, no) && !has_word(&asked, no));
            let is_plain = !text.contains('{')
                && !is_denied
                && !numbers(text).any(is_other)
                && !names_others(text, right.iter().map(String::as_str));
            if_so(answer.tool_calls.is_empty() && is_enough && is_plain)
        }),
    }
}

/// 1 for exactly these calls, in any order; the share of right ones, if there are not more, is worth half.
fn grade_calls(answer: &Message, wanted: &[ToolCall]) -> f64 {
    let is_same = |a: &ToolCall, b: &ToolCall| a.name == b.name && a.arguments == b.arguments;
    let mut left: Vec<&ToolCall> = answer.tool_calls.iter().collect();
    let mut right = 0;
    for call in wanted {
        if let Some(at) = left.iter().position(|other| is_same(other, call)) {
            left.swap_remove(at);
            right += 1;
        }
    }
    match left.is_empty() && right == wanted.len() {
        true => 1.0,
        false if answer.tool_calls.len() <= wanted.len() => 0.5 * right as f64 / wanted.len() as f64,
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_tool_has_names_for_learning_and_others_for_examination() {
        let mut random = Random::new(4);
        for family in &FAMILIES {
            let mut names =
                |split| (0..200).map(|_| tool_name(&mut random, split, family)).collect::<HashSet<String>>();
            let (learned, examined) = (names(Split::Train), names(Split::Test));
            assert!(
                learned.is_disjoint(&examined) && learned.len() > 30 && examined.len() > 5,
                "{learned:?}"
            );
        }
    }

    #[test]
    fn results_are_said_and_neither_denied_nor_read_out() {
        let mut random = Random::new(6);
        let declared = Declared::new(&mut random, Split::Train, &FAMILIES[0]);
        let made = with_result(&mut random, Split::Train, std::slice::from_ref(&declared));
        let response = made.messages[2].content.clone().expect("a result");
        let degrees: String = response.chars().filter(char::is_ascii_digit).collect();
        let of = |text: String| (made.grader)(&says(text));
        assert_eq!(of(format!("It is {degrees} degrees.")), 1.0);
        assert_eq!(of(format!("It is not {degrees} degrees.")), 0.0);
        assert_eq!(of(format!("It is {degrees} or 777 degrees.")), 0.0);
        assert_eq!(of(response.clone()), 0.0);
        assert_eq!(of(format!("In Kroth it is {degrees} degrees.")), 0.0);
    }

    #[test]
    fn what_cannot_be_done_is_said_first() {
        assert!(declines(NONE) && declines("I can\u{2019}t look that up."));
        assert!(!declines("The alarm is set for 7 on Monday. You cannot miss it."));
    }

    #[test]
    fn two_requests_are_most_often_for_two_tools_and_both_are_answered() {
        let mut random = Random::new(7);
        let declared: Vec<Declared> =
            FAMILIES[..3].iter().map(|family| Declared::new(&mut random, Split::Train, family)).collect();
        let mut different = 0;
        for _ in 0..200 {
            let made = with_results(&mut random, Split::Train, &declared);
            let [_, called, results @ ..] = &made.messages[..] else {
                panic!("a request, calls and results")
            };
            let ids =
                |messages: &[Message]| messages.iter().map(|m| m.tool_call_id.clone()).collect::<Vec<_>>();
            let of_calls: Vec<_> = called.tool_calls.iter().map(|call| call.id.clone()).collect();
            assert_eq!(of_calls, ids(results));
            assert_eq!((made.grader)(&made.answer), 1.0);
            different += usize::from(called.tool_calls[0].name != called.tool_calls[1].name);
        }
        assert!((120..180).contains(&different), "{different}");
    }

    #[test]
    fn calls_are_compared_whole() {
        let call = |name: &str, value: Value| ToolCall {
            id: None,
            name: name.to_owned(),
            arguments: Map::from_iter([("a".to_owned(), value)]),
        };
        let answer = |calls: Vec<ToolCall>| Message { tool_calls: calls, ..says("") };
        let wanted = [call("x", json!(5)), call("y", json!("z"))];
        assert_eq!(grade_calls(&answer(vec![wanted[1].clone(), wanted[0].clone()]), &wanted), 1.0);
        assert_eq!(grade_calls(&answer(vec![wanted[0].clone()]), &wanted), 0.25);
        assert_eq!(grade_calls(&answer(vec![call("x", json!("5")), wanted[1].clone()]), &wanted), 0.25);
        assert_eq!(grade_calls(&answer(vec![wanted[0].clone(); 3]), &wanted), 0.0);
    }
}
