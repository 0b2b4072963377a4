//! Ends an answer at a text, wherever the pieces of the answer are cut.
//!
//! Text that may still become a stop string is held back until the next piece decides. The match that begins first
//! wins; the stop string itself is not part of the answer.

/// Watches decoded text for any of several strings.
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

/// What may be shown after a piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Text that is certainly part of the answer.
    pub text: String,
    /// Whether a stop string was found: nothing follows.
    pub stopped: bool,
}

impl StopStrings {
    /// Watches for `stops`; empty strings are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// Takes the next piece of text. After a stop everything is swallowed.
    pub fn push(&mut self, text: &str) -> Passed {
        if self.stopped {
            return Passed { text: String::new(), stopped: true };
        }
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return Passed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let keep_from = self.held.len().saturating_sub(self.undecided());
        let undecided = self.held.split_off(keep_from);
        Passed { text: std::mem::replace(&mut self.held, undecided), stopped: false }
    }

    /// The text held back, at the end of an answer that was not stopped.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of the held text that begin a stop string: the longest such end.
    fn undecided(&self) -> usize {
        let ends = self.held.char_indices().map(|(at, _)| self.held.split_at(at).1);
        let begins = |end: &&str| self.stops.iter().any(|stop| stop.starts_with(end));
        ends.into_iter().find(begins).map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes through in pieces cut at `cuts`, and whether it stopped.
    fn run(stops: &[&str], text: &str, cuts: &[usize]) -> (String, bool) {
        let mut watch = StopStrings::new(stops.iter().map(|s| s.to_string()));
        let (mut out, mut from, mut stopped) = (String::new(), 0, false);
        for &to in cuts.iter().chain([&text.len()]) {
            let passed = watch.push(&text[from..to]);
            assert!(!stopped || passed.text.is_empty(), "nothing follows a stop");
            out += &passed.text;
            stopped = passed.stopped;
            from = to;
        }
        (out + &watch.finish(), stopped)
    }

    #[test]
    fn every_cut_gives_the_same() {
        for (stops, text, want, want_stopped) in [
            (&["END"][..], "one END two", "one ", true),
            (&["END"], "one EN", "one EN", false),
            (&["aab"], "aaab", "a", true),
            (&["b", "ab"], "xaby", "x", true),
            (&["\n\n", "Straße"], "Die Straße\n\n", "Die ", true),
            (&["ßx"], "aßßx", "aß", true),
            (&[], "anything", "anything", false),
            (&[""], "anything", "anything", false),
            (&["日本"], "日日本", "日", true),
        ] {
            let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            assert_eq!(
                run(stops, text, &boundaries),
                (want.to_string(), want_stopped),
                "{text} by characters"
            );
            for &first in &boundaries {
                for &second in boundaries.iter().filter(|&&b| b >= first) {
                    let got = run(stops, text, &[first, second]);
                    assert_eq!(got, (want.to_string(), want_stopped), "{text} at {first}, {second}");
                }
            }
        }
    }

    #[test]
    fn only_what_may_become_a_stop_is_held_back() {
        let mut watch = StopStrings::new(["END".to_string()]);
        assert_eq!(watch.push("one E").text, "one ");
        assert_eq!(watch.push("vening").text, "Evening");
    }
}
