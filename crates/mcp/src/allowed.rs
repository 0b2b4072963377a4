//! Which tools may be called without asking.

use crate::tool::McpTool;

/// Names of tools that may be called without asking anybody, beside those that a server's configuration allows.
///
/// A name may have stars, which stand for any characters: `*` allows everything, `git_*` what begins with `git_`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    patterns: Vec<String>,
}

impl Allowed {
    /// Only what the configuration allows.
    pub fn none() -> Allowed {
        Allowed::default()
    }

    /// These as well, by the names that the model sees.
    pub fn new(patterns: impl IntoIterator<Item = String>) -> Allowed {
        Allowed { patterns: patterns.into_iter().collect() }
    }

    /// Allows one tool more: exactly this one, since no name of a tool has a star in it.
    pub fn add(&mut self, tool: &McpTool) {
        self.patterns.push(tool.name().to_owned());
    }

    /// Whether this tool may be called without asking.
    pub fn allows(&self, tool: &McpTool) -> bool {
        tool.is_allowed() || matches_any(&self.patterns, tool.name())
    }
}

/// Whether one of the patterns stands for the name.
pub(crate) fn matches_any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// Whether a pattern, in which a star stands for any characters, stands for the name. What lies between two stars is
/// looked for from the left; taking the first place leaves the most for the others, so nothing has to be tried twice.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match name.find(part).and_then(|at| name.get(at + part.len()..)) {
            Some(after) => name = after,
            None => return false,
        }
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, expected) in [
            ("read", "read", true),
            ("read", "read_file", false),
            ("read", "Read", false),
            ("*", "", true),
            ("*", "anything", true),
            ("read_*", "read_file", true),
            ("read_*", "read", false),
            ("*_file", "read_file", true),
            ("*_file", "read_files", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "ace", true),
            ("a*c*e", "abde", false),
            ("a*a", "a", false),
            ("a*b*b", "ab", false),
            ("a**b", "ab", true),
            ("*b*b*", "b", false),
            ("*ab*ab", "abxab", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
