//! Taking models out of the cache without touching anything else.
//!
//! Links go first, then references to commits that have none left, then contents that no link needs. Nothing is
//! followed out of the model's own folder: a link is removed, not what it points to.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail, ensure};

use super::inventory::{children, is_folder, is_incomplete, leaves, refs};
use super::{Cache, HubId};

/// Removes a model, one revision of it or one file of it; returns the bytes freed.
///
/// # Errors
/// If it is not in the cache, is being downloaded, leads out of the cache or cannot be removed.
pub fn remove(cache: &Cache, id: &HubId) -> Result<u64> {
    let folder = cache.folder(&id.repo);
    let missing =
        || anyhow!("`{id}` is not in the cache at {}; `tangelo ls` lists what is", cache.root().display());
    if folder.symlink_metadata().is_err() {
        return Err(missing());
    }
    ensure!(
        is_folder(&folder)
            && is_folder_or_absent(&folder.join("blobs"))
            && is_folder_or_absent(&folder.join("snapshots")),
        "{} leads out of the cache; remove it by hand if you mean it",
        folder.display()
    );
    refuse_if_busy(&folder)?;
    let before = size(&folder);
    if id.file.is_none() && !id.has_revision {
        fs::remove_dir_all(&folder).map_err(|e| cannot(e, &folder))?;
        return Ok(before);
    }
    let links = selected(cache, id);
    if links.is_empty() {
        return Err(missing());
    }
    for link in &links {
        fs::remove_file(link).map_err(|e| cannot(e, link))?;
    }
    remove_empty_folders(&folder.join("snapshots"));
    remove_stale_refs(&folder)?;
    remove_unused_blobs(&folder)?;
    if leaves(&folder.join("snapshots")).is_empty() {
        fs::remove_dir_all(&folder).map_err(|e| cannot(e, &folder))?;
    }
    Ok(before.saturating_sub(size(&folder)))
}

/// The snapshot entries that `id` names: of one revision or of all, one file or all.
fn selected(cache: &Cache, id: &HubId) -> Vec<PathBuf> {
    let snapshots = match id.has_revision {
        true => cache.commit(&id.repo, &id.revision).iter().map(|c| cache.snapshot(&id.repo, c)).collect(),
        false => children(&cache.folder(&id.repo).join("snapshots")),
    };
    let mut links = Vec::new();
    for snapshot in snapshots.iter().filter(|s| is_folder(s)) {
        let wanted = id.file.as_ref().map(|f| snapshot.join(f));
        links.extend(leaves(snapshot).into_iter().filter(|l| wanted.as_ref().is_none_or(|w| w == l)));
    }
    links
}

/// Refuses while another program holds the lock of one of the model's downloads.
fn refuse_if_busy(folder: &Path) -> Result<()> {
    for part in children(&folder.join("blobs")).iter().filter(|b| is_incomplete(b)) {
        let lock = OpenOptions::new().write(true).open(part).map(|file| file.try_lock());
        if matches!(lock, Ok(Err(TryLockError::WouldBlock))) {
            bail!("{} is being downloaded by another program; stop that first", part.display());
        }
    }
    Ok(())
}

fn remove_stale_refs(folder: &Path) -> Result<()> {
    for (name, commit) in refs(folder) {
        if !folder.join("snapshots").join(&commit).is_dir() {
            let path = folder.join("refs").join(&name);
            fs::remove_file(&path).map_err(|e| cannot(e, &path))?;
        }
    }
    Ok(())
}

/// Removes contents that no link of any snapshot needs. Interrupted downloads stay.
fn remove_unused_blobs(folder: &Path) -> Result<()> {
    let links = leaves(&folder.join("snapshots"));
    let used: BTreeSet<PathBuf> = links.iter().filter_map(|l| l.canonicalize().ok()).collect();
    for blob in children(&folder.join("blobs")).iter().filter(|b| !is_folder(b) && !is_incomplete(b)) {
        if blob.canonicalize().is_ok_and(|b| !used.contains(&b)) {
            fs::remove_file(blob).map_err(|e| cannot(e, blob))?;
        }
    }
    Ok(())
}

/// Removes folders that hold nothing, deepest first.
fn remove_empty_folders(folder: &Path) {
    for child in children(folder).iter().filter(|c| is_folder(c)) {
        remove_empty_folders(child);
        // A folder that still holds something is not removed by this call, which is what we want.
        let _ = fs::remove_dir(child);
    }
}

fn is_folder_or_absent(path: &Path) -> bool {
    path.symlink_metadata().is_err() || is_folder(path)
}

/// Bytes of everything below a folder; links count nothing.
fn size(folder: &Path) -> u64 {
    let lengths = leaves(folder).into_iter().filter_map(|p| p.symlink_metadata().ok());
    lengths.filter(|m| m.is_file()).map(|m| m.len()).sum()
}

fn cannot(error: io::Error, path: &Path) -> anyhow::Error {
    anyhow!("{} could not be removed: {error}", path.display())
}
