//! States in a folder: written in the background, read when they are found.
//!
//! ```text
//! FOLDER/states/<owner, 16 hexadecimal digits>/<first 32 digits of the SHA-256 of the tokens>.state
//! ```
//!
//! A file is an ordinary `.state` file. One thread writes, a few states at most wait for it, and a state that finds no
//! room is given up instead: the disk never holds up an answer. When a folder is opened, the tokens of every file in it
//! are read; whether the rest is sound is found out when a file is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};
use tangelo_core::TokenId;
use tangelo_model::Model;

use super::Owner;
use crate::error::{Error, Result};
use crate::sequence::Kept;
use crate::state_file;

/// States that may wait to be written, or be written, at once.
pub(super) const WRITES_MAX: usize = 2;

/// A file with a state.
#[derive(Clone, Debug)]
pub(super) struct StateFile {
    pub path: PathBuf,
    pub bytes: u64,
}

impl StateFile {
    /// The state, if it is sound and of these tokens.
    pub fn read(&self, model: &Model, tokens: &[TokenId]) -> Result<Kept> {
        let restored = state_file::restore(&self.path, model)?;
        if restored.sequence.tokens() != tokens {
            let (kept, position) = (restored.sequence.position(), tokens.len());
            return Err(Error::NotOnPath { kept, position });
        }
        Ok(restored.sequence.into_kept())
    }
}

/// What became of a write.
#[derive(Debug)]
pub(super) struct Written {
    pub owner: Owner,
    pub kept: Arc<Kept>,
    /// `None` if it failed.
    pub file: Option<StateFile>,
}

/// A folder for states under a budget of bytes.
#[derive(Debug)]
pub struct Folder {
    model: Arc<Model>,
    root: PathBuf,
    budget_bytes: u64,
    existing: Vec<(Owner, Vec<TokenId>, StateFile)>,
    files: usize,
    bytes: u64,
    in_flight: usize,
    failed_writes: u64,
    to_writer: Option<Sender<(Owner, Arc<Kept>, PathBuf)>>,
    from_writer: Receiver<Written>,
    /// Received while waiting, not yet taken.
    ready: Vec<Written>,
    writer: Option<JoinHandle<()>>,
}

impl Folder {
    /// Opens or makes the folder and looks at the files in it. Those of other models are left alone; those that cannot
    /// be read at all are removed.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be made or listed.
    pub fn open(root: &Path, budget_bytes: u64, model: Arc<Model>) -> Result<Folder> {
        let root = root.join("states");
        let failed = |action| {
            let path = root.clone();
            move |cause| Error::Io { path, action, cause }
        };
        fs::create_dir_all(&root).map_err(failed("made"))?;
        let mut existing = Vec::new();
        for folder in fs::read_dir(&root).map_err(failed("read"))? {
            let folder = folder.map_err(failed("read"))?;
            let Some(owner) = folder.file_name().to_str().and_then(parse_owner) else { continue };
            let Ok(entries) = fs::read_dir(folder.path()) else { continue };
            existing.extend(entries.flatten().filter_map(|entry| look_at(owner, &entry.path(), &model)));
        }
        let (to_writer, jobs) = channel::<(Owner, Arc<Kept>, PathBuf)>();
        let (done, from_writer) = channel();
        let writing = model.clone();
        let writer = std::thread::Builder::new().name("states".into()).spawn(move || {
            for (owner, kept, path) in jobs {
                let file = write(&kept, &writing, &path).ok();
                if done.send(Written { owner, kept, file }).is_err() {
                    return;
                }
            }
        });
        let writer = writer.map_err(failed("written"))?;
        Ok(Folder {
            model,
            budget_bytes,
            files: existing.len(),
            bytes: existing.iter().map(|(_, _, file)| file.bytes).sum(),
            existing,
            in_flight: 0,
            failed_writes: 0,
            to_writer: Some(to_writer),
            from_writer,
            ready: Vec::new(),
            writer: Some(writer),
            root,
        })
    }

    /// The states that were there when the folder was opened.
    pub(super) fn take_existing(&mut self) -> Vec<(Owner, Vec<TokenId>, StateFile)> {
        std::mem::take(&mut self.existing)
    }

    /// Number of files.
    pub(super) fn len(&self) -> usize {
        self.files
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_over_budget(&self) -> bool {
        self.bytes > self.budget_bytes
    }

    /// States on their way to disk.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Writes that have failed.
    pub(super) fn failed_writes(&self) -> u64 {
        self.failed_writes
    }

    /// Begins to write a state; false if too many are waiting or a file alone would exceed the budget.
    pub(super) fn write(&mut self, owner: Owner, kept: &Arc<Kept>) -> bool {
        let (recurrent, caches) = kept.bytes();
        if self.in_flight >= WRITES_MAX || (recurrent + caches) as u64 > self.budget_bytes {
            return false;
        }
        let Some(writer) = &self.to_writer else { return false };
        let kept = if kept.state().is_on_device() {
            // A device is used by the thread that computes only.
            let Ok(copy) = kept.on_host(&self.model) else { return false };
            Arc::new(copy)
        } else {
            kept.clone()
        };
        let path = self.path(owner, kept.tokens());
        let is_sent = writer.send((owner, kept, path)).is_ok();
        self.in_flight += usize::from(is_sent);
        is_sent
    }

    fn path(&self, owner: Owner, tokens: &[TokenId]) -> PathBuf {
        const DIGITS: usize = 32;
        let mut hasher = Sha256::new();
        tokens.iter().for_each(|token| hasher.update(token.to_le_bytes()));
        let digits = state_file::hex(&hasher.finalize());
        let name = format!("{}.state", &digits[..DIGITS]);
        self.root.join(format!("{:016x}", owner.0)).join(name)
    }

    /// What has been written since the last call.
    pub(super) fn written(&mut self) -> Vec<Written> {
        let mut written = std::mem::take(&mut self.ready);
        written.extend(self.from_writer.try_iter().inspect(|_| self.in_flight -= 1));
        for Written { file, .. } in &written {
            match file {
                Some(file) => {
                    self.files += 1;
                    self.bytes += file.bytes;
                }
                None => self.failed_writes += 1,
            }
        }
        written
    }

    /// Waits until at most `left` states are on their way.
    pub(super) fn wait(&mut self, left: usize) {
        while self.in_flight > left {
            let Ok(written) = self.from_writer.recv() else { return };
            self.in_flight -= 1;
            self.ready.push(written);
        }
    }

    /// Deletes a file; one that is gone already is as good.
    pub(super) fn delete(&mut self, file: &StateFile) {
        let _ = fs::remove_file(&file.path);
        self.files = self.files.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(file.bytes);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.to_writer = None;
        if let Some(writer) = self.writer.take() {
            // It has nothing to say that could still be acted upon.
            let _ = writer.join();
        }
    }
}

/// The tokens of a file in the folder, if it is of the model.
fn look_at(owner: Owner, path: &Path, model: &Model) -> Option<(Owner, Vec<TokenId>, StateFile)> {
    if path.extension().is_none_or(|e| e != "state") {
        return None;
    }
    let bytes = fs::metadata(path).ok()?.len();
    match state_file::read_tokens(path, model) {
        Ok(tokens) => Some((owner, tokens, StateFile { path: path.to_path_buf(), bytes })),
        Err(Error::StateFile { problem: state_file::Problem::OtherModel { .. }, .. }) => None,
        Err(_) => {
            let _ = fs::remove_file(path);
            None
        }
    }
}

fn write(kept: &Kept, model: &Model, path: &Path) -> Result<StateFile> {
    let failed = |cause| Error::Io { path: path.to_path_buf(), action: "written", cause };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    state_file::save(kept.as_sequence(), model, None, path)?;
    Ok(StateFile { path: path.to_path_buf(), bytes: fs::metadata(path).map_err(failed)?.len() })
}

fn parse_owner(name: &str) -> Option<Owner> {
    const DIGITS: usize = 16;
    let digits = Some(name).filter(|name| name.len() == DIGITS)?;
    u64::from_str_radix(digits, 16).ok().map(Owner)
}
