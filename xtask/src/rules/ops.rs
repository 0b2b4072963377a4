//! An operation with more than one implementation owes a scalar reference, and every operation owes tests.

use std::collections::BTreeSet;

use crate::rules::Problem;
use crate::tree::Tree;

/// Where the operations live, one folder each.
const FOLDER: &str = "crates/ops/src/";
/// What a folder with a choice of implementations contains: a list of them by instruction set, or the macro that
/// makes one.
const CHOICES: [&str; 2] = ["static IMPLS", "over_lanes! {"];
/// Folders that hold what operations are made of: their twins stand in other files than `reference.rs`.
const PLUMBING: [&str; 4] = ["device", "lanes", "math", "quant"];

/// A folder that is no operation: programs that only call what is tested elsewhere.
const PROGRAMS: &str = "bin";

/// Fails on a folder with a choice of implementations but no `reference.rs`, and on any folder without a test.
pub fn folders(tree: &Tree) -> Vec<Problem> {
    let inside = tree.files.iter().filter_map(|f| f.path.strip_prefix(FOLDER));
    let names: BTreeSet<&str> = inside.filter_map(|p| p.split_once('/').map(|(name, _)| name)).collect();
    let mut problems = Vec::new();
    for name in names.into_iter().filter(|name| *name != PROGRAMS) {
        let folder = format!("{FOLDER}{name}");
        let is_tested = tree.rust_files().any(|(file, source)| {
            file.path.starts_with(&format!("{folder}/")) && source.code.contains("#[test]")
        });
        let is_chosen = tree.rust_files().any(|(file, source)| {
            file.path.starts_with(&format!("{folder}/")) && CHOICES.iter().any(|c| source.code.contains(c))
        });
        if is_chosen && !PLUMBING.contains(&name) && !tree.exists(&format!("{folder}/reference.rs")) {
            let remedy = "write the scalar definition in reference.rs first";
            problems.push(Problem::new(&folder, 0, format!("`{name}` has no reference"), remedy));
        }
        if !is_tested {
            let remedy = "test every implementation against the reference in tests.rs";
            problems.push(Problem::new(&folder, 0, format!("`{name}` has no tests"), remedy));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::found;

    #[test]
    fn an_operation_has_a_reference_and_tests() {
        let test = "#[test]\nfn a() {}\n";
        let choice = "pub static IMPLS: &[Impl<Kernel>] = &[];\n";
        let folder = |name: &str| format!("crates/ops/src/norm/{name}.rs");
        let (code, reference, tests) = (&folder("mod"), &folder("reference"), &folder("tests"));
        let check = |pairs: &[(&str, &str)]| found(folders, pairs).len();
        assert_eq!(check(&[(code, choice), (reference, ""), (tests, test)]), 0);
        assert_eq!(check(&[(code, choice), (reference, "")]), 1, "no tests");
        assert_eq!(check(&[(code, choice), (tests, test)]), 1, "no reference");
        assert_eq!(check(&[(code, choice), (tests, "// #[test]")]), 2, "neither");
        assert_eq!(
            check(&[(code, "fn add() {}"), (tests, test)]),
            0,
            "one implementation is its own definition"
        );
        assert_eq!(check(&[("crates/ops/src/math/exp.rs", test), ("crates/ops/src/lib.rs", "")]), 0);
        assert_eq!(check(&[("crates/ops/src/math/exp.rs", "")]), 1);
    }
}
