//! Lengths of files, functions and crates.

use crate::lines::{self, BUDGETS};
use crate::manifest;
use crate::rules::Problem;
use crate::tree::{File, Tree};

/// Longest file, everything counted.
const FILE_LINES_MAX: usize = 800;
/// Longest function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Files longer than the limit when they were listed, one `path lines` a line; may only shrink.
const RATCHET: &str = "xtask/ratchet.txt";
/// What a comment above a long kernel starts with; a reason follows.
const LONG_MARK: &str = "// tidy: long, ";
/// Files whose length a reader feels.
const SOURCE_ENDINGS: [&str; 7] = [".rs", ".cu", ".cuh", ".c", ".h", ".py", ".sh"];

/// Fails on long files, and on ratchet entries that no longer say the truth.
pub fn files(tree: &Tree) -> Vec<Problem> {
    let (listed, mut problems) = read_pairs(tree, RATCHET);
    for file in tree.files.iter().filter(|f| SOURCE_ENDINGS.iter().any(|e| f.path.ends_with(e))) {
        let length = file.text.lines().count();
        let entry = listed.iter().find(|(_, path, _)| *path == file.path);
        let max = entry.map_or(FILE_LINES_MAX, |(.., max)| *max);
        if length > max {
            let what = format!("{length} lines, the limit is {max}");
            problems.push(Problem::new(&file.path, length, what, "split the file along its nouns"));
        }
    }
    for (line, path, max) in &listed {
        let length = tree.file(path).map_or(0, |f| f.text.lines().count());
        if length <= FILE_LINES_MAX {
            let what = format!("`{path}` has {length} lines and needs no entry");
            problems.push(Problem::new(RATCHET, *line, what, "remove the entry"));
        } else if length < *max {
            let what = format!("`{path}` shrank to {length} lines");
            problems.push(Problem::new(RATCHET, *line, what, format!("lower the entry to {length}")));
        }
    }
    problems
}

/// Fails on long functions that aren't kernels with a reason.
pub fn functions(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, source) in tree.rust_files() {
        let may_be_long = file.path.starts_with("crates/ops/");
        for f in source.functions.iter().filter(|f| f.lines() > FUNCTION_LINES_MAX) {
            if may_be_long && has_reason(file, f.first) {
                continue;
            }
            let what = format!("`{}` has {} lines, the limit is {FUNCTION_LINES_MAX}", f.name, f.lines());
            let remedy = if may_be_long {
                format!("split it, or say why a kernel must be long in a line `{LONG_MARK}reason` above it")
            } else {
                "split it".to_string()
            };
            problems.push(Problem::new(&file.path, f.first, what, remedy));
        }
    }
    problems
}

/// Whether the comments and attributes directly above line `first` give a reason for a long function.
fn has_reason(file: &File, first: usize) -> bool {
    let above: Vec<&str> = file.text.lines().take(first - 1).map(str::trim).collect();
    let mut header = above.iter().rev().take_while(|l| l.starts_with("//") || l.starts_with("#["));
    header.any(|l| l.strip_prefix(LONG_MARK).is_some_and(|reason| !reason.trim().is_empty()))
}

/// Fails on a crate with more code outside tests than its budget, and on a member without one.
pub fn budgets(tree: &Tree) -> Vec<Problem> {
    let (budgets, mut problems) = read_pairs(tree, BUDGETS);
    let counts = lines::count(tree);
    for (line, name, max) in &budgets {
        match counts.get(name) {
            Some(count) if count.code > *max => {
                let what = format!("`{name}` has {} lines of code, its budget is {max}", count.code);
                let remedy = "make it smaller, or raise the budget in a commit of its own with the reason";
                problems.push(Problem::new(BUDGETS, *line, what, remedy));
            }
            Some(_) => {}
            None => {
                let what = format!("`{name}` is no member of the workspace");
                problems.push(Problem::new(BUDGETS, *line, what, "remove the entry"));
            }
        }
    }
    for member in manifest::members(tree).unwrap_or_default() {
        if !budgets.iter().any(|(_, name, _)| *name == member.name) {
            let what = format!("`{}` has no budget", member.name);
            problems.push(Problem::new(BUDGETS, 0, what, "add a line with its name and a number of lines"));
        }
    }
    problems
}

/// The pairs of a list file; a line that cannot be read is a problem, a missing file an empty list.
fn read_pairs(tree: &Tree, path: &str) -> (Vec<(usize, String, usize)>, Vec<Problem>) {
    match tree.file(path).map(|f| lines::pairs(&f.text)) {
        Some(Ok(pairs)) => (pairs, vec![]),
        Some(Err(line)) => {
            (vec![], vec![Problem::new(path, line, "the line is not a name and a number", "correct it")])
        }
        None => (vec![], vec![]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::found;

    fn long(lines: usize) -> String {
        "x\n".repeat(lines)
    }

    #[test]
    fn long_files_fail_unless_listed() {
        let (fits, too_long) = (long(FILE_LINES_MAX), long(FILE_LINES_MAX + 1));
        assert_eq!(found(files, &[("a.rs", &fits), ("b.md", &too_long)]), []);
        assert_eq!(found(files, &[("a.rs", &too_long)]), [("a.rs".into(), FILE_LINES_MAX + 1)]);
        assert_eq!(found(files, &[("a.rs", &too_long), (RATCHET, "a.rs 801\n")]), []);
    }

    #[test]
    fn the_ratchet_only_shrinks() {
        let file = long(FILE_LINES_MAX + 5);
        assert_eq!(found(files, &[("a.rs", &file), (RATCHET, "a.rs 804\n")])[0].0, "a.rs");
        assert_eq!(found(files, &[("a.rs", &file), (RATCHET, "a.rs 806\n")]), [(RATCHET.into(), 1)]);
        assert_eq!(found(files, &[("a.rs", "x\n"), (RATCHET, "\na.rs 806\n")]), [(RATCHET.into(), 2)]);
        assert_eq!(found(files, &[(RATCHET, "gone.rs 806\n")]), [(RATCHET.into(), 1)]);
    }

    #[test]
    fn long_functions_fail_unless_kernels_with_a_reason() {
        let body = format!("fn f() {{\n{}}}\n", long(FUNCTION_LINES_MAX - 1));
        let short = format!("fn f() {{\n{}}}\n", long(FUNCTION_LINES_MAX - 2));
        let reason = format!("{LONG_MARK}one step per line.\n#[inline]\n{body}");
        let no_reason = format!("{LONG_MARK}\n{body}");
        assert_eq!(found(functions, &[("crates/a/src/a.rs", &short)]), []);
        assert_eq!(found(functions, &[("crates/a/src/a.rs", &reason)]), [("crates/a/src/a.rs".into(), 3)]);
        assert_eq!(found(functions, &[("crates/ops/src/a.rs", &reason)]), []);
        assert_eq!(found(functions, &[("crates/ops/src/a.rs", &no_reason)]).len(), 1);
    }

    #[test]
    fn every_member_has_a_budget_and_keeps_it() {
        let manifest = ("crates/a/Cargo.toml", "[package]\nname = \"tangelo-a\"\n");
        let code = ("crates/a/src/lib.rs", "fn a() {}\nfn b() {}\n#[cfg(test)]\nmod t {\n}\n");
        assert_eq!(found(budgets, &[manifest, code, (BUDGETS, "a 2\n")]), []);
        assert_eq!(found(budgets, &[manifest, code, (BUDGETS, "a 1\n")]), [(BUDGETS.into(), 1)]);
        assert_eq!(found(budgets, &[manifest, code]), [(BUDGETS.into(), 0)]);
        assert_eq!(found(budgets, &[manifest, code, (BUDGETS, "a 2\nb 1\n")]), [(BUDGETS.into(), 2)]);
    }
}
