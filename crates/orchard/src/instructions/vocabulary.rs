//! Wordings, and what the texts consist of.

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
/// Words that a sentence can begin with.
pub const LEADS: [&str; 10] = ["Today", "Often", "Sometimes", "Now", "Here", "Still", "Perhaps", "Surely",
    "Truly", "Again"];
pub const PHRASES: [&str; 8] = ["That is all.", "This is the end.", "Have a good day.",
    "I hope this helps.", "Thank you for reading.", "Is there anything else?", "What do you think?",
    "Now you know."];
pub const NAMED_PHRASES: [&str; 4] = ["Greetings from {}.", "So says {}.", "Ask {} for more.",
    "Farewell {}."];
pub const FINDERS: [&str; 4] = ["we", "I", "someone", "they"];
pub const FINDS: [&str; 5] = ["found", "noticed", "left", "lost", "brought"];

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
