//! Which room may use which, read from the `edges` block of ARCHITECTURE.md.
//!
//! A line `formats -> core` lets `formats` depend on `core`; `cli -> *` lets it depend on every member; a third
//! word `dev` limits the edge to tests. Several targets are separated by commas, `#` starts a comment.

use crate::manifest::{self, Use};
use crate::rules::Problem;
use crate::tree::Tree;

const DOCUMENT: &str = "ARCHITECTURE.md";

/// One allowed edge.
#[derive(Debug, PartialEq, Eq)]
struct Edge {
    from: String,
    to: String,
    dev_only: bool,
}

impl Edge {
    fn allows(&self, from: &str, used: &Use) -> bool {
        self.from == from && (self.to == "*" || self.to == used.name) && (used.dev || !self.dev_only)
    }
}

/// Fails on a dependency between members that ARCHITECTURE.md doesn't list.
pub fn check(tree: &Tree) -> Vec<Problem> {
    let Some(document) = tree.file(DOCUMENT) else {
        return vec![Problem::new(DOCUMENT, 0, "the document is missing", "write it with an `edges` block")];
    };
    let edges = match parse(&document.text) {
        Ok(edges) => edges,
        Err(problem) => return vec![problem],
    };
    let members = match manifest::members(tree) {
        Ok(members) => members,
        Err((path, why)) => return vec![Problem::new(&path, 0, why, "make it a valid manifest")],
    };
    let mut problems = Vec::new();
    for member in &members {
        for used in member.uses.iter().filter(|u| !edges.iter().any(|e| e.allows(&member.name, u))) {
            let (from, to, dev) = (&member.name, &used.name, if used.dev { " dev" } else { "" });
            problems.push(Problem::new(
                &format!("{}/Cargo.toml", member.folder),
                used.line,
                format!("`{from}` depends on `{to}`, an edge that {DOCUMENT} does not allow"),
                format!(
                    "move the code, or add `{from} -> {to}{dev}` there in a commit that gives the reason"
                ),
            ));
        }
    }
    let known = |name: &str| name == "*" || members.iter().any(|m| m.name == name);
    for edge in edges.iter().filter(|e| !known(&e.from) || !known(&e.to)) {
        let what = format!("the edge `{} -> {}` names a crate that does not exist", edge.from, edge.to);
        let line =
            document.text.lines().position(|l| l.contains(&edge.from) && l.contains("->")).unwrap_or(0);
        problems.push(Problem::new(DOCUMENT, line + 1, what, "remove it or correct the name"));
    }
    problems
}

/// The edges of the first block fenced as `edges`.
fn parse(text: &str) -> Result<Vec<Edge>, Problem> {
    let is_open = |l: &str| l.trim_start().starts_with("```") && l.trim().trim_matches('`').trim() == "edges";
    let mut lines = text.lines().enumerate().skip_while(|(_, l)| !is_open(l));
    if lines.next().is_none() {
        let remedy = "add a block fenced as ```edges with lines such as `formats -> core`";
        return Err(Problem::new(DOCUMENT, 0, "it has no list of allowed edges", remedy));
    }
    let mut edges = Vec::new();
    for (i, line) in lines.take_while(|(_, l)| !l.trim_start().starts_with("```")) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let parsed = edges_of_line(line).ok_or_else(|| {
            Problem::new(DOCUMENT, i + 1, format!("`{line}` is not an edge"), "write `from -> to`")
        })?;
        edges.extend(parsed);
    }
    Ok(edges)
}

fn edges_of_line(line: &str) -> Option<Vec<Edge>> {
    let (from, rest) = line.split_once("->")?;
    let (targets, dev_only) = match rest.trim().strip_suffix(" dev") {
        Some(targets) => (targets, true),
        None => (rest, false),
    };
    let is_name = |n: &str| !n.is_empty() && !n.contains(char::is_whitespace);
    let from = from.trim();
    let targets = targets.split(',').map(str::trim);
    let edge = |to: &str| {
        let edge = Edge { from: from.into(), to: to.into(), dev_only };
        (is_name(from) && is_name(to)).then_some(edge)
    };
    targets.map(edge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::found;

    const CORE: (&str, &str) = ("crates/core/Cargo.toml", "[package]\nname = \"tangelo-core\"\n");

    fn with(list: &str, dependencies: &str) -> Vec<(String, usize)> {
        let document = format!("# Rooms\n```edges\n{list}\n```\n");
        let manifest = format!("[package]\nname = \"tangelo-a\"\n{dependencies}");
        found(check, &[CORE, ("ARCHITECTURE.md", &document), ("crates/a/Cargo.toml", &manifest)])
    }

    #[test]
    fn only_listed_edges_pass() {
        let uses_core = "[dependencies]\ntangelo-core.workspace = true\n";
        let bad = [("crates/a/Cargo.toml".to_string(), 4)];
        assert_eq!(with("a -> core", uses_core), []);
        assert_eq!(with("a -> *  # everything", uses_core), []);
        assert_eq!(with("core -> a", uses_core), bad);
        assert_eq!(with("", uses_core), bad);
    }

    #[test]
    fn a_dev_edge_allows_tests_only() {
        assert_eq!(with("a -> core dev", "[dev-dependencies]\ntangelo-core.workspace = true\n"), []);
        assert_eq!(with("a -> core dev", "[dependencies]\ntangelo-core.workspace = true\n").len(), 1);
    }

    #[test]
    fn a_list_that_cannot_be_read_is_a_problem() {
        assert_eq!(with("a, core", ""), [("ARCHITECTURE.md".to_string(), 3)]);
        assert_eq!(with("a -> cor", ""), [("ARCHITECTURE.md".to_string(), 3)]);
        assert_eq!(found(check, &[CORE]), [("ARCHITECTURE.md".to_string(), 0)]);
        assert_eq!(
            found(check, &[CORE, ("ARCHITECTURE.md", "# Rooms\n")]),
            [("ARCHITECTURE.md".to_string(), 0)]
        );
    }

    #[test]
    fn a_line_may_name_several_targets() {
        let edges = edges_of_line("a -> b, c").expect("two edges");
        assert_eq!(edges.iter().map(|e| e.to.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(edges_of_line("a -> b c"), None);
    }
}
