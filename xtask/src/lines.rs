//! Where the code is: lines per member of the workspace, and the budgets they must keep.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::tree::Tree;

/// Where the budgets are written, one `member lines` a line.
pub const BUDGETS: &str = "xtask/budgets.txt";

/// Lines of one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Rust files.
    pub files: usize,
    /// Lines holding code outside tests.
    pub code: usize,
    /// Lines holding code in tests: files named `tests.rs` or below `tests/`, and `#[cfg(test)]` items.
    pub tests: usize,
    /// Lines holding only a comment.
    pub comments: usize,
    /// Lines of the longest file, everything counted.
    pub longest: usize,
}

/// The member a path belongs to: `core` for `crates/core/src/lib.rs`, `xtask` for `xtask/src/main.rs`.
pub fn member_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("crates/").unwrap_or(path);
    rest.split_once('/').map(|(name, _)| name)
}

/// Counts every member.
pub fn count(tree: &Tree) -> BTreeMap<String, Count> {
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    for (file, source) in tree.rust_files() {
        let Some(member) = member_of(&file.path) else { continue };
        let count = counts.entry(member.to_string()).or_default();
        let code = source.code_lines();
        let is_test = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
        let tests = if is_test { code } else { source.test_lines() };
        let not_blank = file.text.lines().filter(|l| !l.trim().is_empty()).count();
        count.files += 1;
        count.code += code - tests;
        count.tests += tests;
        count.comments += not_blank - code;
        count.longest = count.longest.max(file.text.lines().count());
    }
    counts
}

/// Parses `name number` lines; `#` starts a comment.
///
/// # Errors
/// The first line (from 1) that is neither blank, a comment nor a pair.
pub fn pairs(text: &str) -> Result<Vec<(usize, String, usize)>, usize> {
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] => {}
            [name, number] => {
                found.push((i + 1, name.to_string(), number.parse().map_err(|_| i + 1)?));
            }
            _ => return Err(i + 1),
        }
    }
    Ok(found)
}

/// The table printed by `xtask lines`.
pub fn table(tree: &Tree) -> String {
    let budgets = tree.file(BUDGETS).and_then(|f| pairs(&f.text).ok()).unwrap_or_default();
    let mut out = String::new();
    let mut total = Count::default();
    let mut row = |name: &str, c: &Count, budget: &str| {
        let ratio = c.tests as f64 / c.code.max(1) as f64;
        writeln!(
            out,
            "{name:<10} {:>6} {:>8} {:>8} {ratio:>10.2} {:>9} {:>8} {budget:>8}",
            c.files, c.code, c.tests, c.comments, c.longest
        )
        .expect("writing to a string cannot fail");
    };
    let counts = count(tree);
    for (name, c) in &counts {
        let budget = budgets.iter().find(|(_, n, _)| n == name).map(|(_, _, max)| max.to_string());
        row(name, c, budget.as_deref().unwrap_or("-"));
        total.files += c.files;
        total.code += c.code;
        total.tests += c.tests;
        total.comments += c.comments;
        total.longest = total.longest.max(c.longest);
    }
    row("total", &total, "");
    let title = ["member", "files", "code", "tests", "tests/code", "comments", "longest", "budget"];
    let [a, b, c, d, e, f, g, h] = title;
    format!("{a:<10} {b:>6} {c:>8} {d:>8} {e:>10} {f:>9} {g:>8} {h:>8}\n{out}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_tests_and_comments_are_told_apart() {
        let tree = Tree::from_pairs(&[
            ("crates/a/src/lib.rs", "//! Doc.\n\nfn a() {}\n#[cfg(test)]\nmod tests {\n}\n"),
            ("crates/a/tests/all.rs", "//! Doc.\nfn b() {}\n"),
            ("xtask/src/main.rs", "fn main() {}\n"),
            ("README.md", "not code\n"),
        ]);
        let counts = count(&tree);
        assert_eq!(counts["a"], Count { files: 2, code: 1, tests: 4, comments: 2, longest: 6 });
        assert_eq!(counts["xtask"].code, 1);
        assert_eq!(counts.len(), 2);
        let table = table(&tree);
        assert_eq!(table.lines().count(), 4, "{table}");
        assert!(table.lines().last().is_some_and(|l| l.starts_with("total")));
    }

    #[test]
    fn pair_files_are_parsed_or_refused() {
        assert_eq!(pairs("# note\ncore 400 # why\n\n"), Ok(vec![(2, "core".to_string(), 400)]));
        assert_eq!(pairs("core 400\ncore many\n"), Err(2));
        assert_eq!(pairs("a b c\n"), Err(1));
    }
}
