//! Prose: every module opens with some, every module is reachable, every link leads somewhere.

use crate::rules::Problem;
use crate::tree::Tree;

/// Fails on a Rust file that does not open with `//!`.
pub fn module_prose(tree: &Tree) -> Vec<Problem> {
    let silent =
        |text: &str| !text.lines().find(|l| !l.trim().is_empty()).is_some_and(|l| l.starts_with("//! "));
    let remedy = "say in a `//!` comment what it is and what it does not know";
    let files = tree.rust_files().filter(|(f, _)| silent(&f.text));
    files.map(|(f, _)| Problem::new(&f.path, 1, "the module opens without prose", remedy)).collect()
}

/// Fails on a Rust file that no `mod` declares: the compiler never sees it.
pub fn orphans(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, _) in tree.rust_files() {
        let Some((folder, name)) = file.path.rsplit_once('/') else { continue };
        if is_root(folder, name) {
            continue;
        }
        // A file `a/b/mod.rs` is module `b` of folder `a`; a file `a/b.rs` likewise.
        let (folder, module) = match name {
            "mod.rs" => folder.rsplit_once('/').unwrap_or(("", folder)),
            _ => (folder, name.trim_end_matches(".rs")),
        };
        let parents = [
            format!("{folder}/mod.rs"),
            format!("{folder}/lib.rs"),
            format!("{folder}/main.rs"),
            format!("{folder}.rs"),
        ];
        let declaration = format!("mod {module};");
        let mut declared =
            tree.rust_files().filter(|(f, _)| parents.contains(&f.path) || is_test_root(&f.path, folder));
        if !declared.any(|(_, s)| s.code.contains(&declaration)) {
            let what = format!("no `{declaration}` leads to this file, so it is never compiled");
            problems.push(Problem::new(&file.path, 1, what, "declare the module or delete the file"));
        }
    }
    problems
}

/// Files that cargo finds by itself.
fn is_root(folder: &str, name: &str) -> bool {
    let last = folder.rsplit('/').next().unwrap_or(folder);
    matches!(name, "lib.rs" | "main.rs" | "build.rs")
        || matches!(last, "tests" | "benches" | "examples" | "bin")
}

/// Whether `path` is a test, bench or example program in `folder`, which may declare modules beside itself.
fn is_test_root(path: &str, folder: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(f, name)| f == folder && is_root(f, name))
}

/// Fails on relative links in Markdown files that lead nowhere.
pub fn links(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.files.iter().filter(|f| f.path.ends_with(".md")) {
        let mut in_code = false;
        for (i, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            for target in targets(line).filter(|t| !in_code && !is_external(t)) {
                if let Err(what) = resolve(tree, &file.path, target) {
                    problems.push(Problem::new(&file.path, i + 1, what, "correct or remove the link"));
                }
            }
        }
    }
    problems
}

/// Targets of the inline links of a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, _)| {
        let rest = &line[at + 2..];
        rest.split(')').next().map(|t| t.split_whitespace().next().unwrap_or_default())
    })
}

fn is_external(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

fn resolve(tree: &Tree, from: &str, target: &str) -> Result<(), String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> =
        if path.is_empty() { from.split('/').collect() } else { folder.split('/').collect() };
    for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        match part {
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.retain(|p| !p.is_empty());
    let file = parts.join("/");
    if !tree.exists(&file) {
        return Err(format!("the link `{target}` leads to `{file}`, which does not exist"));
    }
    let headings = |text: &str| text.lines().any(|l| l.starts_with('#') && slug(l) == anchor);
    match tree.file(&file) {
        Some(f) if !anchor.is_empty() && f.path.ends_with(".md") && !headings(&f.text) => {
            Err(format!("the link `{target}` names a heading that `{file}` does not have"))
        }
        _ => Ok(()),
    }
}

/// The anchor of a heading as code hosts make it: lower case, spaces to hyphens, other punctuation dropped.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::found;

    #[test]
    fn modules_open_with_prose() {
        assert_eq!(found(module_prose, &[("a.rs", "//! What it is.\n")]), []);
        assert_eq!(found(module_prose, &[("a.rs", "use x;\n//! Late.\n")]), [("a.rs".into(), 1)]);
        assert_eq!(found(module_prose, &[("a.rs", "")]), [("a.rs".into(), 1)]);
    }

    #[test]
    fn every_file_is_declared() {
        let root = ("crates/a/src/lib.rs", "mod b;\nmod c;\n// mod d;\n");
        let good = [
            root,
            ("crates/a/src/b.rs", "mod e;"),
            ("crates/a/src/c/mod.rs", ""),
            ("crates/a/src/b/e.rs", ""),
        ];
        assert_eq!(found(orphans, &good), []);
        assert_eq!(found(orphans, &[root, ("crates/a/src/d.rs", "")]), [("crates/a/src/d.rs".into(), 1)]);
        let tests = [("crates/a/tests/t.rs", "mod common;"), ("crates/a/tests/common/mod.rs", "")];
        assert_eq!(found(orphans, &tests), []);
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let other = ("docs/b.md", "# Two words, one\n[up](../a.md) [here](#two-words-one)\n");
        let ok = "[b](docs/b.md#two-words-one) [out](https://example.com) [folder](docs)\n```\n[x](y)\n```\n";
        assert_eq!(found(links, &[other, ("a.md", ok)]), []);
        assert_eq!(found(links, &[other, ("a.md", "\n[b](docs/c.md)")]), [("a.md".into(), 2)]);
        assert_eq!(found(links, &[other, ("a.md", "[b](docs/b.md#three)")]), [("a.md".into(), 1)]);
    }
}
