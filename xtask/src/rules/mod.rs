//! The list of rules and what a broken one looks like.

use std::fmt;

use crate::tree::Tree;

mod docs;
mod edges;
mod ops;
mod sizes;
mod unsafety;
mod words;

/// One place where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File, from the root.
    pub path: String,
    /// Line from 1; 0 if the problem is the file as a whole.
    pub line: usize,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    fn new(path: &str, line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem { path: path.into(), line, what: what.into(), remedy: remedy.into() }
    }
}

/// A rule: its name, as shown in messages, and the function that finds where it is broken.
pub struct Rule {
    /// Short name.
    pub name: &'static str,
    check: fn(&Tree) -> Vec<Problem>,
}

/// All rules, in the order of the messages.
pub static RULES: &[Rule] = &[
    Rule { name: "edges", check: edges::check },
    Rule { name: "unsafe", check: unsafety::keyword },
    Rule { name: "unsafe-lint", check: unsafety::lint },
    Rule { name: "file-length", check: sizes::files },
    Rule { name: "function-length", check: sizes::functions },
    Rule { name: "budget", check: sizes::budgets },
    Rule { name: "words", check: words::banned },
    Rule { name: "features", check: words::features },
    Rule { name: "ops-folders", check: ops::folders },
    Rule { name: "module-prose", check: docs::module_prose },
    Rule { name: "orphans", check: docs::orphans },
    Rule { name: "links", check: docs::links },
];

/// A broken rule, ready to print: `path:line: rule: what; remedy.`
#[derive(Debug)]
pub struct Message {
    rule: &'static str,
    problem: Problem,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, line, what, remedy } = &self.problem;
        write!(f, "{path}:{line}: {}: {what}; {remedy}.", self.rule)
    }
}

/// Every broken rule of the tree.
pub fn check(tree: &Tree) -> Vec<Message> {
    let messages = |rule: &Rule| {
        let name = rule.name;
        (rule.check)(tree).into_iter().map(move |problem| Message { rule: name, problem })
    };
    RULES.iter().flat_map(messages).collect()
}

/// Lines at which a rule finds problems in a made-up tree, for the tests of rules.
#[cfg(test)]
fn found(rule: fn(&Tree) -> Vec<Problem>, pairs: &[(&str, &str)]) -> Vec<(String, usize)> {
    rule(&Tree::from_pairs(pairs)).into_iter().map(|p| (p.path, p.line)).collect()
}
