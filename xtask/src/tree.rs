//! The files of the repository, read once.
//!
//! The walk skips what `.gitignore` names and hidden folders other than `.ci`, so that it sees the same files
//! in a clone, in an unpacked archive and beside build output.

use std::fs;
use std::io;
use std::path::Path;

use crate::source::Source;

/// Hidden folders that are part of the project.
const HIDDEN_KEPT: [&str; 3] = [".ci", ".cargo", ".github"];

/// One text file.
#[derive(Debug)]
pub struct File {
    /// Path from the root, with `/` between its parts.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// For `.rs` files: the same text with comments and strings told apart.
    pub rust: Option<Source>,
}

/// Every text file of the repository, sorted by path.
#[derive(Debug, Default)]
pub struct Tree {
    /// The files that are valid UTF-8.
    pub files: Vec<File>,
    /// Paths of all files and folders, also of those that are not text; sorted.
    pub paths: Vec<String>,
}

impl Tree {
    /// Reads the tree below `root`.
    ///
    /// # Errors
    /// Any folder or file that cannot be read.
    pub fn read(root: &Path) -> io::Result<Tree> {
        let ignored = ignored_names(&fs::read_to_string(root.join(".gitignore")).unwrap_or_default());
        let mut tree = Tree::default();
        walk(root, "", &ignored, &mut tree)?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree.paths.sort();
        Ok(tree)
    }

    /// A tree made of (path, text) pairs, for the tests of rules.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in pairs {
            for (i, _) in path.match_indices('/') {
                tree.paths.push(path[..i].to_string());
            }
            tree.paths.push(path.to_string());
            tree.files.push(File::new(path.to_string(), text.to_string()));
        }
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree.paths.sort();
        tree.paths.dedup();
        tree
    }

    /// The text file at `path`.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|f| f.path == path)
    }

    /// Whether a file or folder of this name exists.
    pub fn exists(&self, path: &str) -> bool {
        path.is_empty() || self.paths.binary_search_by(|p| p.as_str().cmp(path)).is_ok()
    }

    /// The Rust files with their scanned source.
    pub fn rust_files(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files.iter().filter_map(|f| f.rust.as_ref().map(|s| (f, s)))
    }
}

impl File {
    fn new(path: String, text: String) -> File {
        let rust = path.ends_with(".rs").then(|| Source::scan(&text));
        File { path, text, rust }
    }
}

/// Names that `.gitignore` excludes: plain names, and `*.ext` patterns kept with their star.
fn ignored_names(gitignore: &str) -> Vec<String> {
    let lines = gitignore.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines.map(|l| l.trim_matches('/').to_string()).collect()
}

fn is_ignored(name: &str, ignored: &[String]) -> bool {
    ignored.iter().any(|pattern| match pattern.strip_prefix('*') {
        Some(ending) => name.ends_with(ending),
        None => name == pattern,
    })
}

fn walk(folder: &Path, prefix: &str, ignored: &[String], tree: &mut Tree) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dir = entry.file_type()?.is_dir();
        let hidden = name.starts_with('.') && is_dir && !HIDDEN_KEPT.contains(&name.as_str());
        // In a second checkout of the repository it is a file that says where the first one is.
        if hidden || name == ".git" || is_ignored(&name, ignored) {
            continue;
        }
        let path = format!("{prefix}{name}");
        tree.paths.push(path.clone());
        if is_dir {
            walk(&entry.path(), &format!("{path}/"), ignored, tree)?;
        } else if let Some(text) = read_text(&entry.path())? {
            tree.files.push(File::new(path, text));
        }
    }
    Ok(())
}

/// The text of a file; `None` for a binary one and for one that vanished between listing and reading.
fn read_text(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8(bytes).ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gitignore_names_and_endings_are_skipped() {
        let ignored = ignored_names("/target\n# note\n__pycache__/\n*.pyc\n");
        assert_eq!(ignored, ["target", "__pycache__", "*.pyc"]);
        for (name, want) in [("target", true), ("targets", false), ("a.pyc", true), ("a.py", false)] {
            assert_eq!(is_ignored(name, &ignored), want, "{name}");
        }
    }

    #[test]
    fn folders_exist_like_files() {
        let tree = Tree::from_pairs(&[("a/b/c.md", "text")]);
        assert!(tree.exists("a") && tree.exists("a/b") && tree.exists("a/b/c.md") && tree.exists(""));
        assert!(!tree.exists("a/c"));
    }
}
