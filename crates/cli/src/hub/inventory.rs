//! What the cache holds, read from its folders.

use std::fs;
use std::path::{Path, PathBuf};

use super::Cache;
use super::id::DATASETS;

/// Deepest folder below a snapshot that is looked into.
const DEPTH_MAX: usize = 8;

/// A model or a data set in the cache.
#[derive(Debug)]
pub struct Cached {
    /// `org/name`, or `datasets/org/name`.
    pub repo: String,
    /// Its folder.
    pub path: PathBuf,
    /// Bytes of all contents, each counted once, without interrupted downloads.
    pub bytes: u64,
    /// Bytes of interrupted downloads.
    pub incomplete_bytes: u64,
    /// Its commits, sorted.
    pub revisions: Vec<Revision>,
}

impl Cached {
    /// Whether it is a data set.
    pub fn is_dataset(&self) -> bool {
        self.repo.starts_with(DATASETS)
    }
}

/// One commit of a model.
#[derive(Debug)]
pub struct Revision {
    /// The commit.
    pub commit: String,
    /// Branches and tags that stand for it.
    pub refs: Vec<String>,
    /// Its files, sorted by name.
    pub files: Vec<CachedFile>,
}

/// One file of a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// Path inside the model, with `/` between its parts.
    pub name: String,
    /// Bytes of its contents.
    pub bytes: u64,
}

/// The models and data sets in `cache`, sorted by name. A cache that does not exist is empty.
pub fn cached(cache: &Cache) -> Vec<Cached> {
    let folders = children(cache.root()).into_iter().filter(|p| is_folder(p));
    let mut found: Vec<Cached> = folders.filter_map(|path| repository(&path)).collect();
    found.sort_by(|a, b| a.repo.cmp(&b.repo));
    found
}

/// Reads `models--org--name` or `datasets--org--name`; `None` for other folders and for one without a snapshot or a download.
fn repository(path: &Path) -> Option<Cached> {
    let name = path.file_name()?.to_str()?;
    let repo = match (name.strip_prefix("models--"), name.strip_prefix("datasets--")) {
        (Some(name), _) => name.replacen("--", "/", 1),
        (_, Some(name)) => format!("{DATASETS}{}", name.replacen("--", "/", 1)),
        _ => return None,
    };
    let refs = refs(path);
    let mut revisions: Vec<Revision> = children(&path.join("snapshots"))
        .into_iter()
        .filter_map(|snapshot| {
            let commit = snapshot.file_name()?.to_str()?.to_string();
            let names = refs.iter().filter(|(_, c)| *c == commit).map(|(name, _)| name.clone());
            Some(Revision { refs: names.collect(), files: files(&snapshot), commit })
        })
        .filter(|revision| !revision.files.is_empty())
        .collect();
    revisions.sort_by(|a, b| a.commit.cmp(&b.commit));
    let blobs = children(&path.join("blobs"));
    let (incomplete, whole): (Vec<_>, Vec<_>) = blobs.iter().partition(|b| is_incomplete(b));
    let plain = plain_files(&path.join("snapshots"));
    let found = Cached {
        repo,
        path: path.to_path_buf(),
        bytes: whole.into_iter().chain(&plain).map(|b| length(b)).sum(),
        incomplete_bytes: incomplete.into_iter().map(|b| length(b)).sum(),
        revisions,
    };
    (!found.revisions.is_empty() || found.incomplete_bytes > 0).then_some(found)
}

/// Files of a snapshot whose contents exist.
pub fn files(snapshot: &Path) -> Vec<CachedFile> {
    let mut found = Vec::new();
    for path in leaves(snapshot) {
        let parts = path.strip_prefix(snapshot).ok().into_iter().flat_map(|p| p.components());
        let parts: Option<Vec<&str>> = parts.map(|c| c.as_os_str().to_str()).collect();
        if let (Some(parts), Ok(meta)) = (parts, fs::metadata(&path))
            && meta.is_file()
        {
            found.push(CachedFile { name: parts.join("/"), bytes: meta.len() });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// (branch or tag, commit) of a model's folder.
pub(super) fn refs(model: &Path) -> Vec<(String, String)> {
    let folder = model.join("refs");
    let read = |path: PathBuf| {
        let parts = path.strip_prefix(&folder).ok()?.components();
        let name: Option<Vec<&str>> = parts.map(|c| c.as_os_str().to_str()).collect();
        Some((name?.join("/"), fs::read_to_string(&path).ok()?.trim().to_string()))
    };
    leaves(&folder).into_iter().filter_map(read).collect()
}

/// Everything below `folder` that isn't a folder. Links are not followed, so the walk stays inside.
pub(super) fn leaves(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = open.pop() {
        for path in children(&folder) {
            match is_folder(&path) {
                true if depth < DEPTH_MAX => open.push((path, depth + 1)),
                true => {}
                false => found.push(path),
            }
        }
    }
    found
}

/// Snapshot files that hold contents themselves, as on file systems without links.
fn plain_files(snapshots: &Path) -> Vec<PathBuf> {
    leaves(snapshots).into_iter().filter(|p| p.symlink_metadata().is_ok_and(|m| m.is_file())).collect()
}

/// Entries of a folder; none if it cannot be read.
pub(super) fn children(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok().map(|e| e.path())).collect()
}

/// Whether `path` is a folder itself, not a link to one.
pub(super) fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.is_dir())
}

/// Whether a blob is a download that was interrupted.
pub(super) fn is_incomplete(blob: &Path) -> bool {
    blob.extension().is_some_and(|e| e == "incomplete")
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}
