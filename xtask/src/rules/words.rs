//! Words that are promises instead of code, and names that mean something on one machine only.

use crate::rules::Problem;
use crate::tree::Tree;

/// (text, why it may not stand, what to do). The texts are written in two parts so that this file passes.
const BANNED: [(&str, &str, &str); 17] = [
    (concat!("to", "do!"), PROMISE, FINISH),
    (concat!("TO", "DO"), PROMISE, FINISH),
    (concat!("FIX", "ME"), PROMISE, FINISH),
    (concat!("XX", "X:"), PROMISE, FINISH),
    (concat!("un", "implemented!"), PROMISE, FINISH),
    (concat!("not yet ", "implemented"), PROMISE, FINISH),
    (concat!("#[ig", "nore"), "a test nobody runs", "make it pass, or make it print why it is skipped"),
    (concat!("db", "g!("), "a debugging aid", "remove it"),
    (concat!("/wo", "rk/"), MACHINE, RELATIVE),
    (concat!("/t", "mp/"), MACHINE, RELATIVE),
    (concat!("/ho", "me/"), MACHINE, RELATIVE),
    (concat!("/ro", "ot/"), MACHINE, RELATIVE),
    (concat!("crates", ".io"), REGISTRY, UNNAMED),
    (concat!("pypi", ".org"), REGISTRY, UNNAMED),
    (concat!("python", "hosted.org"), REGISTRY, UNNAMED),
    (concat!("npm", "js.org"), REGISTRY, UNNAMED),
    (concat!("conda", ".anaconda"), REGISTRY, UNNAMED),
];
const PROMISE: &str = "a promise instead of code";
const FINISH: &str = "finish it or remove it";
const MACHINE: &str = "a path of one machine";
const RELATIVE: &str = "use a path relative to the repository, or `std::env::temp_dir`";
const REGISTRY: &str = "the host of a package registry";
const UNNAMED: &str = "name the package, not where it is fetched from";

/// Files made by a program, where the words are not ours: the lock file and the goldens.
fn is_generated(path: &str) -> bool {
    path == "Cargo.lock" || (path.starts_with("fixtures/") && path.ends_with(".json"))
}

/// Fails on the words above in any text file.
pub fn banned(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.files.iter().filter(|f| !is_generated(&f.path)) {
        for (i, line) in file.text.lines().enumerate() {
            for (text, why, remedy) in BANNED.iter().filter(|(text, ..)| occurs(line, text)) {
                problems.push(Problem::new(&file.path, i + 1, format!("`{text}` is {why}"), *remedy));
            }
        }
    }
    problems
}

/// Whether `text` stands in `line` and isn't the tail or the middle of a longer word or path.
fn occurs(line: &str, text: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(text).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + text.len()..].chars().next();
        let joins_before =
            before.is_some_and(|c| is_word(c) || (text.starts_with('/') && ".~}<>*".contains(c)));
        let joins_after = text.ends_with(is_word) && after.is_some_and(is_word);
        !joins_before && !joins_after
    })
}

/// Fails on conditional compilation by feature outside the crate of operations.
pub fn features(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, source) in tree.rust_files().filter(|(f, _)| !f.path.starts_with("crates/ops/")) {
        for (i, line) in source.code.lines().enumerate() {
            let squeezed: String = line.split_whitespace().collect();
            let is_conditional = ["cfg(", "cfg!(", "cfg_attr("].iter().any(|c| squeezed.contains(c));
            if is_conditional && squeezed.contains("feature=") {
                let remedy = "choose at run time; only crates/ops may know features";
                problems.push(Problem::new(&file.path, i + 1, "conditional compilation by feature", remedy));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::found;

    #[test]
    fn each_banned_text_is_found_once() {
        for (text, ..) in BANNED {
            let line = format!("fine\na {text} b\n");
            let hits = found(banned, &[("notes.md", &line)]);
            assert!(hits.contains(&("notes.md".into(), 2)), "{text}");
            assert_eq!(found(banned, &[("Cargo.lock", &line), ("fixtures/a.json", &line)]), [], "{text}");
        }
    }

    #[test]
    fn parts_of_longer_words_are_fine() {
        for line in ["mastodon", "AUTODOCS", "target/work/x", "~/home/x", "$ROOT/root/x"] {
            assert_eq!(found(banned, &[("notes.md", line)]), [], "{line}");
        }
    }

    #[test]
    fn features_belong_to_ops() {
        let code = "#[cfg(feature = \"cuda\")]\nfn a() {}\n#[cfg(all(unix, feature = \"b\"))]\n// cfg(feature)\n#[cfg(test)]\n";
        let bad = [("crates/a/src/a.rs".to_string(), 1), ("crates/a/src/a.rs".to_string(), 3)];
        assert_eq!(found(features, &[("crates/a/src/a.rs", code)]), bad);
        assert_eq!(found(features, &[("crates/ops/src/a.rs", code)]), []);
    }
}
