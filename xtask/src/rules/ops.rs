//! Every operation owes a scalar reference and tests.

use std::collections::BTreeSet;

use crate::rules::Problem;
use crate::tree::Tree;

/// Where the operations live, one folder each.
const FOLDER: &str = "crates/ops/src/";
/// Folders that hold what operations are made of: no scalar twin is owed, tests are.
const PLUMBING: [&str; 4] = ["device", "lanes", "math", "quant"];

/// Fails on an operation's folder without `reference.rs`, and on any folder without a test.
pub fn folders(tree: &Tree) -> Vec<Problem> {
    let inside = tree.files.iter().filter_map(|f| f.path.strip_prefix(FOLDER));
    let names: BTreeSet<&str> = inside.filter_map(|p| p.split_once('/').map(|(name, _)| name)).collect();
    let mut problems = Vec::new();
    for name in names {
        let folder = format!("{FOLDER}{name}");
        let is_tested = tree.rust_files().any(|(file, source)| {
            file.path.starts_with(&format!("{folder}/")) && source.code.contains("#[test]")
        });
        if !PLUMBING.contains(&name) && !tree.exists(&format!("{folder}/reference.rs")) {
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
        let (reference, tests) = ("crates/ops/src/norm/reference.rs", "crates/ops/src/norm/tests.rs");
        let check = |pairs: &[(&str, &str)]| found(folders, pairs).len();
        assert_eq!(check(&[(reference, ""), (tests, test)]), 0);
        assert_eq!(check(&[(reference, "")]), 1);
        assert_eq!(check(&[(tests, test)]), 1);
        assert_eq!(check(&[(tests, "// #[test]")]), 2);
        assert_eq!(check(&[("crates/ops/src/math/exp.rs", test), ("crates/ops/src/lib.rs", "")]), 0);
        assert_eq!(check(&[("crates/ops/src/math/exp.rs", "")]), 1);
    }
}
