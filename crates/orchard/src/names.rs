//! Words of the world: made-up names, of which those for learning and those for examination are apart, and common words.

use tangelo_core::random::Random;

use crate::Split;

const ONSETS: [&str; 28] = [
    "b", "br", "c", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pr", "qu", "r", "s",
    "sh", "st", "t", "th", "tr", "v", "w", "z",
];
const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ai", "ea", "oo"];
const CODAS: [&str; 16] = ["", "", "", "l", "n", "r", "s", "m", "k", "d", "th", "nd", "rk", "sk", "x", "st"];

/// What names of the rest of the world have besides.
const OTHER_ONSETS: [&str; 12] = ["", "", "", "", "ch", "bl", "cl", "gl", "kr", "pl", "sp", "y"];
const OTHER_VOWELS: [&str; 6] = ["y", "ie", "au", "ou", "ee", "oe"];
const OTHER_CODAS: [&str; 14] =
    ["nn", "ll", "tt", "ck", "b", "g", "p", "t", "rt", "ng", "rl", "ns", "ld", "rg"];

/// How many names to learn from are not made like those of this world, so that any can be copied.
const FROM_ELSEWHERE: f64 = 0.15;

/// One name in so many is for examination.
const TEST_SHARE: usize = 4;

/// What a name, or another text that an exercise is made of, is for; every fourth is kept for examination.
pub(crate) fn split_of(text: &str) -> Split {
    if Random::new(0).named(text).below(TEST_SHARE) == 0 { Split::Test } else { Split::Train }
}

/// A made-up name of two or three syllables, with a capital.
pub fn name(random: &mut Random, split: Split) -> String {
    loop {
        let name = match split == Split::Train && random.chance(FROM_ELSEWHERE) {
            true => name_from_elsewhere(random),
            false => name_of_this_world(random),
        };
        if split_of(&name) == split {
            return capital(&name);
        }
    }
}

fn name_of_this_world(random: &mut Random) -> String {
    let syllables = 2 + usize::from(random.chance(0.3));
    let mut name = String::new();
    for _ in 0..syllables {
        name += random.pick(&ONSETS);
        name += random.pick(&VOWELS);
    }
    name + random.pick(&CODAS)
}

/// One to three syllables, which may begin without a consonant and end with several.
fn name_from_elsewhere(random: &mut Random) -> String {
    let either = |random: &mut Random, one: &[&'static str], other: &[&'static str]| match random.chance(0.5)
    {
        true => *random.of(one),
        false => *random.of(other),
    };
    let syllables = 1 + random.below(3);
    let mut name = String::new();
    for _ in 0..syllables {
        name += either(random, &ONSETS, &OTHER_ONSETS);
        name += either(random, &VOWELS, &OTHER_VOWELS);
        name += either(random, &CODAS, &OTHER_CODAS);
    }
    name
}

/// Made-up names that are told apart by their beginnings and by their ends.
pub fn names(random: &mut Random, split: Split, count: usize) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    while names.len() < count {
        let name = name_unlike(random, split, names.iter());
        names.push(name);
    }
    names
}

/// A made-up name that neither begins nor ends like one of these, as far as that can be had.
pub fn name_unlike<'a>(
    random: &mut Random,
    split: Split,
    others: impl Iterator<Item = &'a String> + Clone,
) -> String {
    let mut tries = 0..TRIES;
    loop {
        let name = name(random, split);
        let is_like = if tries.next().is_some() { are_alike } else { str::eq };
        if !others.clone().any(|other| is_like(&name, other)) {
            return name;
        }
    }
}

/// How many names are drawn for one that is unlike others.
const TRIES: usize = 100;

/// Whether two names begin or end with the same two letters.
fn are_alike(one: &str, other: &str) -> bool {
    one.get(..2) == other.get(..2)
        || one.get(one.len().saturating_sub(2)..) == other.get(other.len().saturating_sub(2)..)
}

/// The word with its first letter large.
pub fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Things that are sold, carried and counted, and their plurals.
pub const THINGS: [(&str, &str); 40] = [
    ("rope", "ropes"),
    ("lamp", "lamps"),
    ("map", "maps"),
    ("knife", "knives"),
    ("bell", "bells"),
    ("candle", "candles"),
    ("drum", "drums"),
    ("key", "keys"),
    ("mirror", "mirrors"),
    ("needle", "needles"),
    ("basket", "baskets"),
    ("blanket", "blankets"),
    ("bottle", "bottles"),
    ("bucket", "buckets"),
    ("compass", "compasses"),
    ("cloak", "cloaks"),
    ("flute", "flutes"),
    ("hammer", "hammers"),
    ("helmet", "helmets"),
    ("hook", "hooks"),
    ("ladder", "ladders"),
    ("lantern", "lanterns"),
    ("mug", "mugs"),
    ("net", "nets"),
    ("pan", "pans"),
    ("pillow", "pillows"),
    ("plate", "plates"),
    ("pouch", "pouches"),
    ("quill", "quills"),
    ("ring", "rings"),
    ("saddle", "saddles"),
    ("saw", "saws"),
    ("scarf", "scarves"),
    ("shield", "shields"),
    ("shovel", "shovels"),
    ("spoon", "spoons"),
    ("sword", "swords"),
    ("tent", "tents"),
    ("torch", "torches"),
    ("whistle", "whistles"),
];

/// Different things.
pub fn things(random: &mut Random, count: usize) -> Vec<(&'static str, &'static str)> {
    let mut order: Vec<usize> = (0..THINGS.len()).collect();
    random.shuffle(&mut order);
    order.into_iter().take(count).map(|i| THINGS[i]).collect()
}

/// `a` or `an` before a word.
pub fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// `a, b and c`.
pub fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_context_begin_and_end_otherwise() {
        let mut random = Random::new(5);
        for _ in 0..200 {
            let names = names(&mut random, Split::Train, 8);
            for (i, one) in names.iter().enumerate() {
                assert!(names[..i].iter().all(|other| !are_alike(one, other)), "{names:?}");
            }
        }
        // More than there are beginnings: then they are different at least.
        let many = names(&mut random, Split::Train, 400);
        assert!((0..400).all(|i| !many[..i].contains(&many[i])));
    }

    #[test]
    fn names_for_learning_and_for_examination_are_apart() {
        let mut random = Random::new(3);
        let train = names(&mut random, Split::Train, 3000);
        let test = names(&mut random, Split::Test, 1000);
        assert!(test.iter().all(|name| !train.contains(name)));
        assert!(train.iter().all(|name| name.chars().next().is_some_and(char::is_uppercase)));
    }

    #[test]
    fn lists_read_well() {
        let of = |words: &[&str]| listed(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            [of(&[]), of(&["a"]), of(&["a", "b"]), of(&["a", "b", "c"])],
            ["", "a", "a and b", "a, b and c"]
        );
    }
}
