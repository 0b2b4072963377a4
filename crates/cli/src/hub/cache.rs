//! Places in the cache and the small writes that keep it consistent: links and references.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::id::{is_name, repository};

/// A cache folder in the hub's layout.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// The value of an environment variable that is set and not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// `HF_HOME`, or the folder that stands in for it: where the cache and the token are.
pub(super) fn home() -> Result<PathBuf> {
    if let Some(home) = variable("HF_HOME") {
        return Ok(home.into());
    }
    let caches = match variable("XDG_CACHE_HOME") {
        Some(caches) => PathBuf::from(caches),
        None => std::env::home_dir()
            .context("there is no home folder; set HF_HOME to a folder for models")?
            .join(".cache"),
    };
    Ok(caches.join("huggingface"))
}

impl Cache {
    /// The cache at `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into() }
    }

    /// The cache the environment asks for: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else the usual place.
    ///
    /// # Errors
    /// If neither variable is set and the user has no home folder.
    pub fn from_env() -> Result<Cache> {
        match variable("HF_HUB_CACHE") {
            Some(root) => Ok(Cache::new(root)),
            None => Ok(Cache::new(home()?.join("hub"))),
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of a model, e.g. `models--org--name`, or of a data set.
    pub fn folder(&self, repo: &str) -> PathBuf {
        self.root.join(repository(repo, "main").folder_name())
    }

    /// Where the contents called `etag` are kept.
    pub fn blob(&self, repo: &str, etag: &str) -> PathBuf {
        self.folder(repo).join("blobs").join(etag)
    }

    /// Folder of one commit.
    pub fn snapshot(&self, repo: &str, commit: &str) -> PathBuf {
        self.folder(repo).join("snapshots").join(commit)
    }

    /// The commit that a branch, tag or commit stands for, as far as the cache knows.
    pub fn commit(&self, repo: &str, revision: &str) -> Option<String> {
        let noted = fs::read_to_string(self.folder(repo).join("refs").join(revision)).ok();
        let commit = noted.map_or(revision.to_string(), |text| text.trim().to_string());
        (is_name(&commit) && self.snapshot(repo, &commit).is_dir()).then_some(commit)
    }

    /// Notes that `revision` stands for `commit`. A revision that is the commit itself needs no note.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_ref(&self, repo: &str, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder(repo).join("refs").join(revision);
        let write = |unfinished: &Path| fs::write(unfinished, commit);
        put(&path, write).map_err(|e| explain(e, &path))
    }

    /// Makes `file` of `commit` lead to the blob `etag`, and returns its path in the snapshot.
    ///
    /// # Errors
    /// If the link cannot be made.
    pub fn link(&self, repo: &str, commit: &str, file: &str, etag: &str) -> Result<PathBuf> {
        let path = self.snapshot(repo, commit).join(file);
        // snapshots/<commit>/ is two folders below the model's, and each `/` of the name is one more.
        let depth = 2 + file.matches('/').count();
        let target: PathBuf = std::iter::repeat_n("..", depth).chain(["blobs", etag]).collect();
        if fs::read_link(&path).is_ok_and(|existing| existing == target) {
            return Ok(path);
        }
        let blob = self.blob(repo, etag);
        put(&path, |unfinished| link_or_copy(&target, &blob, unfinished)).map_err(|e| explain(e, &path))?;
        Ok(path)
    }
}

/// Creates `path` by way of a temporary neighbour, so that nobody ever sees half of it.
fn put(path: &Path, write: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let unfinished = folder.join(format!(".unfinished-{}", std::process::id()));
    fs::remove_file(&unfinished)
        .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
    write(&unfinished)?;
    fs::rename(&unfinished, path)
}

/// A symbolic link where the file system has them, a copy elsewhere.
fn link_or_copy(target: &Path, blob: &Path, link: &Path) -> io::Result<()> {
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(target, link);
    #[cfg(windows)]
    let made = std::os::windows::fs::symlink_file(target, link);
    match made {
        Ok(()) => Ok(()),
        Err(_) => fs::copy(blob, link).map(|_| ()),
    }
}

/// An error of the file system as a sentence with a remedy.
pub(super) fn explain(error: io::Error, path: &Path) -> anyhow::Error {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => anyhow::anyhow!(
            "there is no space left for {path}; free some, or set HF_HUB_CACHE to a folder on another disk, and run \
             the command again: it continues where it stopped"
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => anyhow::anyhow!(
            "{path} may not be written; set HF_HUB_CACHE to a folder that may, or change its permissions"
        ),
        _ => anyhow::anyhow!("{path} could not be written: {error}"),
    }
}
