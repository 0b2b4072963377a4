//! Pages for people: sections, labels in one column, numbers aligned.

use indicatif::HumanBytes;

/// Width of the column of labels.
const LABEL: usize = 18;
/// Width that lists are broken at.
const WIDTH: usize = 100;

/// A page under construction.
#[derive(Clone, Debug)]
pub struct Page(String);

impl Page {
    /// A page with a title.
    pub fn new(title: &str) -> Page {
        Page(format!("{title}\n"))
    }

    /// The whole page.
    pub fn text(self) -> String {
        self.0
    }

    /// Begins a section.
    pub fn section(&mut self, title: &str) {
        self.0.push_str(&format!("\n{title}\n"));
    }

    /// A label and its value.
    pub fn line(&mut self, label: &str, value: &str) {
        self.0.push_str(&format!("  {label:LABEL$}{value}\n"));
    }

    /// A sentence, on as many lines as it needs.
    pub fn sentence(&mut self, label: &str, sentence: &str) {
        let words: Vec<&str> = sentence.split_whitespace().collect();
        self.wrapped(label, &words, "");
    }

    /// Items separated by commas, on as many lines as they need.
    pub fn list(&mut self, label: &str, items: &[String]) {
        self.wrapped(label, items, ",");
    }

    fn wrapped(&mut self, label: &str, items: &[impl AsRef<str>], separator: &str) {
        let mut line = String::new();
        let mut label = label;
        for (i, item) in items.iter().enumerate() {
            let item = item.as_ref();
            let separator = if i + 1 < items.len() { separator } else { "" };
            if !line.is_empty() && LABEL + line.chars().count() + item.chars().count() + 4 > WIDTH {
                self.line(label, &line);
                (line, label) = (String::new(), "");
            }
            let space = if line.is_empty() { "" } else { " " };
            line.push_str(&format!("{space}{item}{separator}"));
        }
        self.line(label, &line);
    }
}

/// A number of things.
pub fn count(n: usize, thing: &str) -> String {
    format!("{n} {}", plural(n, thing))
}

/// The word for `n` things.
pub fn plural(n: usize, thing: &str) -> String {
    if n == 1 { thing.to_string() } else { format!("{thing}s") }
}

/// Bytes in the largest unit that keeps them above one.
pub fn size(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// A number in groups of three digits.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (3_973_556_832, "3,973,556,832")] {
            assert_eq!(grouped(n), text);
        }
    }

    #[test]
    fn long_lists_are_broken() {
        let mut page = Page(String::new());
        let items: Vec<String> = (0..60).map(|i| i.to_string()).collect();
        page.list("label", &items);
        assert_eq!(page.0.lines().count(), 3);
        assert!(page.0.lines().all(|line| line.len() <= WIDTH));
        assert_eq!(page.0.split_whitespace().skip(1).collect::<String>(), items.join(","));
        let mut page = Page(String::new());
        page.sentence("label", &items.join(" "));
        assert_eq!(page.0.lines().count(), 3);
        assert!(page.0.lines().all(|line| line.len() <= WIDTH));
        assert_eq!(page.0.split_whitespace().skip(1).collect::<Vec<_>>(), items);
    }
}
