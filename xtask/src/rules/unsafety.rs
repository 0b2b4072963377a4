//! Where the language's guarantees may be set aside: kernels, a memory map and its end, two allocators that count.

use crate::manifest;
use crate::rules::Problem;
use crate::source::Source;
use crate::tree::Tree;

/// The keyword, in two parts so that these rules need no exception for themselves.
const KEYWORD: &str = concat!("un", "safe");

/// (path prefix, most functions with the keyword or `None` for any number, why).
const ALLOWED: [(&str, Option<usize>, &str); 6] = [
    ("crates/ops/", None, "kernels"),
    ("crates/formats/", Some(2), "the memory map and giving back its pages"),
    ("crates/emulator/src/", Some(2), "a library is loaded and its functions called"),
    ("crates/emulator/tests/", None, "the driver's own functions"),
    ("crates/engine/tests/allocations.rs", None, "an allocator is an unsafe trait"),
    ("fuzz/src/alloc.rs", None, "an allocator is an unsafe trait"),
];

/// Fails on the keyword outside the places above.
pub fn keyword(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut used = [0usize; ALLOWED.len()];
    for (file, source) in tree.rust_files() {
        let lines = source.lines_with_word(KEYWORD);
        let place = ALLOWED.iter().position(|(prefix, ..)| file.path.starts_with(prefix));
        let Some(i) = place else {
            let remedy = "move the code to an operation in crates/ops, or do without";
            problems.extend(lines.iter().map(|&l| Problem::new(&file.path, l, "unsafe code", remedy)));
            continue;
        };
        let (_, max, why) = ALLOWED[i];
        for line in users(source, &lines) {
            used[i] += 1;
            if max.is_some_and(|max| used[i] > max) {
                let what = format!("unsafe code beyond the places allowed in this crate ({why})");
                problems.push(Problem::new(&file.path, line, what, "use the function that exists"));
            }
        }
    }
    problems
}

/// One line for each function (innermost) or item outside functions that holds one of `lines`.
fn users(source: &Source, lines: &[usize]) -> Vec<usize> {
    let mut firsts: Vec<usize> = lines
        .iter()
        .map(|&line| {
            let holders = source.functions.iter().filter(|f| (f.first..=f.last).contains(&line));
            holders.map(|f| f.first).max().unwrap_or(line)
        })
        .collect();
    firsts.dedup();
    firsts
}

/// Fails on a crate root without the lint that lets the compiler enforce the rule.
pub fn lint(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in manifest::members(tree).unwrap_or_default() {
        let level = match member.folder.as_str() {
            "crates/ops" => continue,
            "crates/formats" | "crates/emulator" | "fuzz" => "deny",
            _ => "forbid",
        };
        let lint = format!("#![{level}({KEYWORD}_code)]");
        let roots = ["src/lib.rs", "src/main.rs"].map(|r| format!("{}/{r}", member.folder));
        for root in roots.iter().filter_map(|r| tree.file(r)) {
            if !root.text.contains(&lint) {
                let what = format!("the crate root lacks `{lint}`");
                problems.push(Problem::new(&root.path, 1, what, "add it below the module's prose"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::found;

    fn code(template: &str) -> String {
        template.replace("DANGER", KEYWORD)
    }

    #[test]
    fn the_keyword_counts_only_as_code() {
        let bad = code("// DANGER\nlet s = \"DANGER\";\n#![forbid(DANGER_code)]\nDANGER { f() }\n");
        assert_eq!(found(keyword, &[("crates/a/src/lib.rs", &bad)]), [("crates/a/src/lib.rs".into(), 4)]);
        assert_eq!(found(keyword, &[("crates/ops/src/lib.rs", &bad)]), []);
    }

    #[test]
    fn formats_has_two_such_functions() {
        let one = code("fn map() {\n DANGER { a() };\n DANGER { b() }\n}\n");
        assert_eq!(found(keyword, &[("crates/formats/src/map.rs", &one)]), []);
        let paths = ["crates/formats/src/a.rs", "crates/formats/src/b.rs", "crates/formats/src/c.rs"];
        assert_eq!(found(keyword, &paths.map(|path| (path, one.as_str()))), [(paths[2].into(), 1)]);
    }

    #[test]
    fn crate_roots_carry_the_lint() {
        let manifest = ("crates/a/Cargo.toml", "[package]\nname = \"tangelo-a\"\n");
        assert_eq!(found(lint, &[manifest, ("crates/a/src/lib.rs", "//! A.\n")]).len(), 1);
        let good = code("//! A.\n#![forbid(DANGER_code)]\n");
        assert_eq!(found(lint, &[manifest, ("crates/a/src/lib.rs", &good)]), []);
    }
}
