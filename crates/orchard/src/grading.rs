//! What graders look for in answers.

use tangelo_chat::Message;

use crate::said;

/// Longest way to say that something is not known, in words.
const ADMISSION_WORDS: usize = 12;

/// Words with a capital that name nobody.
const NO_NAMES: [&str; 26] = [
    "A", "An", "And", "Answer", "At", "He", "Her", "Here", "His", "I", "In", "Is", "It", "Its", "No", "Of",
    "On", "She", "That", "The", "There", "They", "This", "To", "We", "Yes",
];

/// The words of a text, without what stands around them.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// The numbers in a text.
pub(crate) fn numbers(text: &str) -> impl Iterator<Item = &str> {
    words(text).filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a text has this word, in letters of any size.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    words(text).any(|other| other.to_lowercase() == word.to_lowercase())
}

/// Whether a text has one of these, in letters of any size and with apostrophes of any shape.
pub(crate) fn has_phrase(text: &str, phrases: &[&str]) -> bool {
    let text = text.to_lowercase().replace('\u{2019}', "'");
    phrases.iter().any(|phrase| text.contains(phrase))
}

/// Whether a text names somebody, or a place, that none of the known texts does.
pub(crate) fn names_others<'a>(text: &str, known: impl Iterator<Item = &'a str> + Clone) -> bool {
    let is_name = |word: &&str| word.starts_with(char::is_uppercase) && !NO_NAMES.contains(word);
    words(text).filter(is_name).any(|name| !known.clone().any(|known| has_word(known, name)))
}

/// Whether an answer says that the answer is not known.
pub(crate) fn abstains(answer: &Message) -> bool {
    not_known(said(answer))
}

/// Whether a text says that, and nothing that might be an answer after all.
pub(crate) fn admits(text: &str) -> bool {
    let hedges = ["but", "maybe", "perhaps", "probably"];
    not_known(text)
        && words(text).count() <= ADMISSION_WORDS
        && !hedges.iter().any(|hedge| has_word(text, hedge))
}

fn not_known(text: &str) -> bool {
    has_phrase(text, &["don't know", "not know"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_the_words_that_sentences_begin_with() {
        let known = ["Where is Brom?"];
        let of = |text: &str| names_others(text, known.into_iter());
        assert!(!of("The smith Brom is here. It is late."));
        assert!(of("Brom and Kroth are here."));
        assert!(of("Kroth"));
    }
}
