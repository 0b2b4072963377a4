//! The text that names a model on the hub: `org/name[:file][@revision]`.
//!
//! Everything here may end up as part of a path, so a name is refused unless each of its parts is harmless.

use std::fmt;
use std::str::FromStr;

use hf_hub::{Repo, RepoType};

/// Longest part of a name; the hub's own limit is 96.
const PART_BYTES_MAX: usize = 128;
/// Longest path of a file inside a repository.
const PATH_BYTES_MAX: usize = 512;

/// A model, one file of it, or one revision of it on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    /// `org/name`.
    pub repo: String,
    /// Path inside the repository, with `/` between its parts.
    pub file: Option<String>,
    /// Branch, tag or commit.
    pub revision: String,
    /// Whether the revision was written out; otherwise it is `main`.
    pub has_revision: bool,
}

impl FromStr for HubId {
    type Err = String;

    fn from_str(text: &str) -> Result<HubId, String> {
        let wrong =
            |why: &str| format!("`{text}` is not a hub id such as `org/name[:file][@revision]`: {why}");
        let end = text.find([':', '@']).unwrap_or(text.len());
        let (repo, mut rest) = text.split_at(end);
        match repo.split('/').collect::<Vec<_>>().as_slice() {
            [org, name] if is_name(org) && is_name(name) && !repo.contains("--") => {}
            _ => return Err(wrong("the model is not two names of letters, digits, `.`, `_` and `-`")),
        }
        let mut id = HubId { repo: repo.into(), file: None, revision: "main".into(), has_revision: false };
        while let Some(mark) = rest.chars().next() {
            let part = &rest[1..];
            let end = part.find([':', '@']).unwrap_or(part.len());
            let value = part[..end].to_string();
            match mark {
                ':' if id.file.is_none() && is_path(&value) => id.file = Some(value),
                '@' if !id.has_revision && is_path(&value) => {
                    (id.revision, id.has_revision) = (value, true);
                }
                ':' => return Err(wrong("the file is not one relative path")),
                _ => return Err(wrong("the revision is not one branch, tag or commit")),
            }
            rest = &part[end..];
        }
        Ok(id)
    }
}

impl HubId {
    /// A model, or a data set if it begins like one.
    ///
    /// # Errors
    /// If it is neither.
    pub fn of_any(text: &str) -> Result<HubId, String> {
        if text.starts_with(DATASETS) { HubId::of_dataset(text) } else { text.parse() }
    }

    /// Whether it is a data set.
    pub fn is_dataset(&self) -> bool {
        self.repo.starts_with(DATASETS)
    }

    /// A data set, `datasets/org/name[:file][@revision]`.
    ///
    /// # Errors
    /// As for a model; also without the first word.
    pub fn of_dataset(text: &str) -> Result<HubId, String> {
        let rest = text.strip_prefix(DATASETS).ok_or_else(|| {
            format!("`{text}` is not a data set of the hub such as `datasets/org/name[:file][@revision]`")
        })?;
        let id: HubId = rest.parse()?;
        Ok(HubId { repo: format!("{DATASETS}{}", id.repo), ..id })
    }
}

/// What the names of data sets begin with, where models have nothing.
pub(super) const DATASETS: &str = "datasets/";

/// A repository at a revision, as the hub's library names it.
pub fn repository(repo: &str, revision: &str) -> Repo {
    let (name, kind) = match repo.strip_prefix(DATASETS) {
        Some(name) => (name, RepoType::Dataset),
        None => (repo, RepoType::Model),
    };
    Repo::with_revision(name.to_string(), kind, revision.to_string())
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        if let Some(file) = &self.file {
            write!(f, ":{file}")?;
        }
        if self.has_revision {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

/// Whether `text` can be one part of a path everywhere: no separators, no leading dot or hyphen.
pub fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=PART_BYTES_MAX).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with(['.', '-'])
}

/// Whether `text` is a relative path that stays below where it starts.
pub fn is_path(text: &str) -> bool {
    let harmless = |part: &str| !matches!(part, "" | "." | "..");
    text.len() <= PATH_BYTES_MAX
        && text.split('/').all(harmless)
        && !text.contains(|c: char| c.is_control() || "\\:@?#%".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_in_either_order() {
        let id: HubId = "nvidia/Nano-4B".parse().expect("a plain id");
        assert_eq!((id.file.as_deref(), id.revision.as_str(), id.has_revision), (None, "main", false));
        for text in ["a/b.c:sub/x.gguf@refs/pr/1", "a/b.c@refs/pr/1:sub/x.gguf"] {
            let id: HubId = text.parse().expect(text);
            assert_eq!((id.repo.as_str(), id.file.as_deref()), ("a/b.c", Some("sub/x.gguf")));
            assert_eq!((id.revision.as_str(), id.has_revision), ("refs/pr/1", true));
            assert_eq!(id.to_string(), "a/b.c:sub/x.gguf@refs/pr/1");
        }
    }

    #[test]
    fn what_could_leave_the_cache_is_refused() {
        for text in [
            "",
            "name",
            "a/b/c",
            "../b",
            "a/..",
            "./b",
            "/a/b",
            "a//b",
            "a/b:",
            "a/b@",
            "a/b:../x",
            "a/b:/x",
            "a/b:x/../y",
            "a/b@..",
            "a/b:x:y",
            "a/b@x@y",
            "a/b c",
            "a--x/b",
            "-a/b",
            "a/b:x\\y",
            "a/b:x\n",
            "https://h/a/b",
            "a/b:x?y",
        ] {
            let error = text.parse::<HubId>().expect_err(text);
            assert!(error.contains("is not a hub id"), "{error}");
        }
    }
}
