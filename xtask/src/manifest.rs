//! The Cargo manifests of the workspace, reduced to what the rules ask: which member depends on which.

use std::collections::BTreeSet;

use crate::tree::Tree;

/// A member of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    /// Short name: `core` for `tangelo-core`, `xtask` for `xtask`.
    pub name: String,
    /// Folder from the root, e.g. `crates/core`.
    pub folder: String,
    /// Members it depends on.
    pub uses: Vec<Use>,
}

/// A dependency of one member on another.
#[derive(Debug, PartialEq, Eq)]
pub struct Use {
    /// Short name of the member used.
    pub name: String,
    /// Whether only tests, examples and benches use it.
    pub dev: bool,
    /// Line of the manifest, from 1.
    pub line: usize,
}

/// Short name of a package: what the rooms are called in ARCHITECTURE.md.
fn short(package: &str) -> &str {
    package.strip_prefix("tangelo-").unwrap_or(package)
}

/// Reads the manifests of all members (`crates/*` and the folders beside it).
///
/// # Errors
/// The path of a manifest that is not valid TOML or names no package, with the reason.
pub fn members(tree: &Tree) -> Result<Vec<Member>, (String, String)> {
    let mut parsed = Vec::new();
    for file in &tree.files {
        let Some(folder) = file.path.strip_suffix("/Cargo.toml") else { continue };
        let table: toml::Table =
            file.text.parse().map_err(|e: toml::de::Error| (file.path.clone(), e.message().to_string()))?;
        let name = table.get("package").and_then(|p| p.get("name")).and_then(|n| n.as_str());
        let name = name.ok_or((file.path.clone(), "it names no package".to_string()))?;
        parsed.push((short(name).to_string(), folder.to_string(), table, &file.text));
    }
    let names: BTreeSet<String> = parsed.iter().map(|(name, ..)| name.clone()).collect();
    let member = |(name, folder, table, text): (String, String, toml::Table, &String)| {
        let uses = uses(&table, text, &names);
        Member { name, folder, uses }
    };
    Ok(parsed.into_iter().map(member).collect())
}

/// Dependencies of one manifest on other members, from every table that can hold some.
fn uses(manifest: &toml::Table, text: &str, names: &BTreeSet<String>) -> Vec<Use> {
    let mut found = Vec::new();
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(|t| t.as_table()) {
        tables.extend(targets.values().filter_map(|t| t.as_table()));
    }
    for table in tables {
        for (key, dev) in [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
        {
            let Some(deps) = table.get(key).and_then(|d| d.as_table()) else { continue };
            for (alias, spec) in deps {
                let package = spec.get("package").and_then(|p| p.as_str()).unwrap_or(alias);
                if names.contains(short(package)) {
                    let line = text.lines().position(|l| l.trim_start().starts_with(alias.as_str()));
                    found.push(Use { name: short(package).into(), dev, line: line.map_or(1, |l| l + 1) });
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dependency_table_is_read() {
        let tree = Tree::from_pairs(&[
            ("crates/core/Cargo.toml", "[package]\nname = \"tangelo-core\"\n"),
            (
                "crates/a/Cargo.toml",
                "[package]\nname = \"tangelo-a\"\n[dependencies]\nserde = \"1\"\ntangelo-core.workspace = true\n\
                 [dev-dependencies]\nxtask.workspace = true\n\
                 [target.'cfg(unix)'.dependencies]\nc = { package = \"tangelo-core\", path = \"../core\" }\n",
            ),
            ("xtask/Cargo.toml", "[package]\nname = \"xtask\"\n"),
        ]);
        let members = members(&tree).expect("the manifests are valid");
        assert_eq!(members[0].name, "a");
        let uses: Vec<_> = members[0].uses.iter().map(|u| (u.name.as_str(), u.dev, u.line)).collect();
        assert_eq!(uses, [("core", false, 5), ("xtask", true, 7), ("core", false, 9)]);
    }

    #[test]
    fn a_broken_manifest_is_named() {
        let tree = Tree::from_pairs(&[("crates/a/Cargo.toml", "[package")]);
        assert_eq!(members(&tree).unwrap_err().0, "crates/a/Cargo.toml");
    }
}
