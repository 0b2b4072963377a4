//! Stop strings: texts that end an answer and are not part of it.
//!
//! The answer arrives in pieces cut anywhere. Text is passed on as soon as no stop string can begin in it; what may still
//! become one is held back, less than the longest of them. The string that is complete first wins; of several that end
//! with the same character, the longest, since it begins first. So the result depends on the text and not on the cuts.

/// Looks for stop strings in the text of one answer.
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    /// The end of the text so far, if a stop string may begin there.
    held: String,
    /// Which stop string was found.
    found: Option<usize>,
}

impl StopStrings {
    /// A matcher for these strings. Empty ones are left out: they would end every answer before it begins.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new(), found: None }
    }

    /// Takes the next piece and returns the text that is certainly part of the answer, and whether the answer is over.
    /// After that, nothing is part of it.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        if self.found.is_some() {
            return (String::new(), true);
        }
        self.held.push_str(text);
        let (passed, held) = match self.first_complete() {
            Some((place, stop)) => {
                self.found = Some(stop);
                (self.held.get(..place), None)
            }
            None => {
                let place = self.held.len().saturating_sub(self.undecided());
                (self.held.get(..place), self.held.get(place..))
            }
        };
        let (passed, held) = (passed.unwrap_or_default().to_owned(), held.unwrap_or_default().to_owned());
        self.held = held;
        (passed, self.found.is_some())
    }

    /// Ends the text: what was held back did not become a stop string, so it is part of the answer.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The stop string that ended the answer.
    pub fn found(&self) -> Option<&str> {
        self.found.and_then(|stop| self.stops.get(stop)).map(String::as_str)
    }

    /// Where the stop string that is complete first begins, in bytes, and which it is.
    fn first_complete(&self) -> Option<(usize, usize)> {
        let found = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            let place = self.held.find(stop.as_str())?;
            Some((place.saturating_add(stop.len()), place, index))
        });
        found.min().map(|(_, place, index)| (place, index))
    }

    /// Bytes of the longest end of the text that begins a stop string. It starts at a character, because a stop
    /// string does.
    fn undecided(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0).min(self.held.len());
        let begins = |len: &usize| {
            let place = self.held.len().saturating_sub(*len);
            self.held.get(place..).is_some_and(|end| self.stops.iter().any(|stop| stop.starts_with(end)))
        };
        (1..=longest).rev().find(begins).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(stops: &[&str]) -> StopStrings {
        StopStrings::new(stops.iter().map(|stop| (*stop).to_owned()))
    }

    /// The text passed on, and the stop string found, for text in these pieces.
    fn pass(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut matcher = matcher(stops);
        let mut text = String::new();
        for piece in pieces {
            let (passed, is_over) = matcher.push(piece);
            text += &passed;
            assert_eq!(is_over, matcher.found().is_some());
        }
        text += &matcher.finish();
        (text, matcher.found().map(str::to_owned))
    }

    #[test]
    fn every_pair_of_cuts_gives_the_same() {
        let cases: [(&[&str], &str, &str, Option<&str>); 9] = [
            (&["END"], "one END two", "one ", Some("END")),
            (&["END"], "EN ENEN", "EN ENEN", None),
            (&["aab"], "aaaab", "aa", Some("aab")),
            (&["abcde", "cd"], "xabcdef", "xab", Some("cd")),
            (&["cd", "abcd"], "xabcd", "x", Some("abcd")),
            (
                &["\u{1f34a}\n", "\u{20ac}"],
                "a\u{1f34a}b\u{1f34a}\n\u{20ac}",
                "a\u{1f34a}b",
                Some("\u{1f34a}\n"),
            ),
            (&["", "b"], "ab", "a", Some("b")),
            (&[], "anything", "anything", None),
            (&["\n\n"], "a\n", "a\n", None),
        ];
        for (stops, text, passed, found) in cases {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            for (i, &first) in places.iter().enumerate() {
                for &second in &places[i..] {
                    let pieces = [&text[..first], &text[first..second], &text[second..]];
                    assert_eq!(pass(stops, &pieces), (passed.into(), found.map(str::to_owned)), "{pieces:?}");
                }
            }
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            assert_eq!(pass(stops, &letters).0, passed);
        }
    }

    #[test]
    fn nothing_is_held_back_without_need() {
        let mut matcher = matcher(&["STOP", "TOPS"]);
        assert_eq!(matcher.push("abc"), ("abc".into(), false));
        assert_eq!(matcher.push("dST"), ("d".into(), false));
        assert_eq!(matcher.push("x"), ("STx".into(), false));
        assert_eq!(matcher.push("TOP"), (String::new(), false));
        assert_eq!(matcher.push("STOP"), (String::new(), true));
        assert_eq!(matcher.found(), Some("TOPS"));
        assert_eq!((matcher.push("more"), matcher.finish()), ((String::new(), true), String::new()));
    }
}
