//! Named states on disk.
//!
//! ```text
//! FOLDER/named/<owner, 16 hexadecimal digits>/<name>.json          what is known of it: the entry
//!                                             <unique>.state       the state that an entry points to
//! ```
//!
//! An entry is written last and removed first, each by one rename, so a name exists whole or not at all, whatever the
//! program is in the middle of when it is killed; state files that no entry points to are removed when the folder is
//! opened. State files never change, so a fork is another link to the same bytes.
//!
//! This file knows names, owners and files. What is in a state file is checked by whoever reads it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tangelo_chat::Conversation;
use tangelo_core::TokenId;
use tangelo_core::limits::{NAMED_STATE_ENTRY_BYTES_MAX, NAMED_STATES_MAX};
use tangelo_engine::Owner;

/// Most characters of a name.
pub const NAME_CHARS_MAX: usize = 64;

/// Why something cannot be done with named states.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A name that could be mistaken for a path, or is too long.
    #[error(
        "a state is named with 1 to {NAME_CHARS_MAX} of the characters A-Z a-z 0-9 . _ -, not beginning with a dot; found {name:?}"
    )]
    Name {
        /// What was given, shortened.
        name: String,
    },
    /// No state of that name.
    #[error("there is no state named {name:?}; GET /v1/states lists those there are")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The name is taken.
    #[error("there is a state named {name:?} already: delete it, or choose another name")]
    Taken {
        /// The name.
        name: String,
    },
    /// As many as may be.
    #[error("there are {NAMED_STATES_MAX} named states already: delete one")]
    TooMany,
    /// More bytes than the disk budget has.
    #[error(
        "the state needs {needed} bytes, but {left} of the disk budget are left: delete a state, or raise --disk-budget"
    )]
    NoRoom {
        /// Bytes of the state.
        needed: u64,
        /// Bytes that may still be used.
        left: u64,
    },
    /// The file system refused.
    #[error("{} cannot be {action}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// `read`, `written`, `removed`.
        action: &'static str,
        /// Why.
        cause: io::Error,
    },
}

/// What is known of a named state, as it is on disk beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The state's file, without its folder.
    file: String,
    /// Bytes of it.
    pub bytes: u64,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: i64,
    /// The name of the state it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What tells the chat template apart that it was made with; `None` for a state of plain tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The conversation that the tokens were rendered from, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Conversation>,
    /// The tokens before the state.
    pub tokens: Vec<TokenId>,
}

/// An entry without its long parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The name.
    pub name: String,
    /// Number of tokens.
    pub tokens: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: i64,
    /// The name of the state it was forked from.
    pub parent: Option<String>,
    /// Number of messages, if it is of a conversation.
    pub messages: Option<usize>,
}

/// The named states of everybody.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    budget_bytes: u64,
    index: Mutex<BTreeMap<(Owner, String), Summary>>,
    next: AtomicU64,
}

impl Store {
    /// Opens or makes the folder. Entries that cannot be read are left alone but not listed.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be made or listed.
    pub fn open(folder: &Path, budget_bytes: u64) -> Result<Store, StoreError> {
        let root = folder.join("named");
        fs::create_dir_all(&root).map_err(failed(&root, "written"))?;
        let mut index = BTreeMap::new();
        for owner_folder in fs::read_dir(&root).map_err(failed(&root, "read"))?.flatten() {
            let Some(owner) = owner_folder.file_name().to_str().and_then(parse_owner) else { continue };
            index.extend(
                look_into(&owner_folder.path()).into_iter().map(|one| ((owner, one.name.clone()), one)),
            );
        }
        Ok(Store { root, budget_bytes, index: Mutex::new(index), next: AtomicU64::new(0) })
    }

    /// The states of an owner, in the order of their names.
    pub fn list(&self, owner: Owner) -> Vec<Summary> {
        let index = self.index();
        let mine = index.range((owner, String::new())..).take_while(|((other, _), _)| *other == owner);
        mine.map(|(_, summary)| summary.clone()).collect()
    }

    /// Number and bytes of the states of everybody.
    pub fn totals(&self) -> (usize, u64) {
        let index = self.index();
        (index.len(), index.values().map(|summary| summary.bytes).sum())
    }

    /// What is known of a state.
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::Unknown`], [`StoreError::Io`].
    pub fn get(&self, owner: Owner, name: &str) -> Result<Entry, StoreError> {
        check_name(name)?;
        let unknown = || StoreError::Unknown { name: name.to_owned() };
        if !self.index().contains_key(&(owner, name.to_owned())) {
            return Err(unknown());
        }
        let path = self.entry_path(owner, name);
        read_entry(&path).map_err(failed(&path, "read"))
    }

    /// The file of a state.
    pub fn file(&self, owner: Owner, entry: &Entry) -> PathBuf {
        self.folder(owner).join(&entry.file)
    }

    /// Whether a state of this name may be added.
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::Taken`], [`StoreError::TooMany`].
    pub fn check_new(&self, owner: Owner, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        let index = self.index();
        if index.contains_key(&(owner, name.to_owned())) {
            return Err(StoreError::Taken { name: name.to_owned() });
        }
        if index.len() >= NAMED_STATES_MAX { Err(StoreError::TooMany) } else { Ok(()) }
    }

    /// Bytes that further states may take.
    pub fn bytes_left(&self) -> u64 {
        self.budget_bytes.saturating_sub(self.totals().1)
    }

    /// A file for a new state of an owner, beside the others, to be written and given to [`Store::add`].
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be made.
    pub fn new_file(&self, owner: Owner) -> Result<NewFile, StoreError> {
        let folder = self.folder(owner);
        fs::create_dir_all(&folder).map_err(failed(&folder, "written"))?;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{:08x}-{number:x}.state", std::process::id()));
            if !path.exists() {
                return Ok(NewFile { path, is_kept: false });
            }
        }
    }

    /// Gives a state file its name, replacing another state if `may_replace`.
    ///
    /// # Errors
    /// As [`Store::check_new`]; [`StoreError::NoRoom`], [`StoreError::Io`].
    pub fn add(&self, owner: Owner, name: &str, new: New, may_replace: bool) -> Result<Summary, StoreError> {
        match self.check_new(owner, name) {
            Err(StoreError::Taken { .. }) if may_replace => {}
            other => other?,
        }
        let New { mut file, created_unix_s, parent, template, conversation, tokens } = new;
        let bytes = fs::metadata(file.path()).map_err(failed(file.path(), "read"))?.len();
        let left = self.bytes_left();
        if bytes > left {
            return Err(StoreError::NoRoom { needed: bytes, left });
        }
        let entry =
            Entry { file: file.name(), bytes, created_unix_s, parent, template, conversation, tokens };
        let mut index = self.index();
        let key = (owner, name.to_owned());
        let is_taken = index.contains_key(&key);
        if is_taken && !may_replace {
            return Err(StoreError::Taken { name: name.to_owned() });
        }
        let old = if is_taken { read_entry(&self.entry_path(owner, name)).ok() } else { None };
        self.write_entry(owner, name, &entry)?;
        file.is_kept = true;
        let summary = entry.summary(name);
        index.insert(key, summary.clone());
        drop(index);
        if let Some(old) = old {
            let _ = fs::remove_file(self.file(owner, &old));
        }
        Ok(summary)
    }

    /// Gives a state another name as well. Its bytes count twice in the budget, though they lie on the disk once.
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::add`].
    pub fn fork(
        &self,
        owner: Owner,
        name: &str,
        new_name: &str,
        now_unix_s: i64,
    ) -> Result<Summary, StoreError> {
        let entry = self.get(owner, name)?;
        let parent = Some(name.to_owned());
        self.add_linked(owner, new_name, Entry { created_unix_s: now_unix_s, parent, ..entry })
    }

    /// Gives a state another name instead. Killed in the middle of it, the program leaves both names.
    ///
    /// # Errors
    /// As [`Store::fork`].
    pub fn rename(&self, owner: Owner, name: &str, new_name: &str) -> Result<Summary, StoreError> {
        let summary = self.add_linked(owner, new_name, self.get(owner, name)?)?;
        self.remove(owner, name)?;
        Ok(summary)
    }

    /// Adds an entry like another one, with a link of its own to the file.
    fn add_linked(&self, owner: Owner, name: &str, entry: Entry) -> Result<Summary, StoreError> {
        self.check_new(owner, name)?;
        let (old, file) = (self.file(owner, &entry), self.new_file(owner)?);
        // A file system without links gets a copy.
        if fs::hard_link(&old, file.path()).is_err() {
            fs::copy(&old, file.path()).map_err(failed(file.path(), "written"))?;
        }
        let Entry { created_unix_s, parent, template, conversation, tokens, .. } = entry;
        self.add(owner, name, New { file, created_unix_s, parent, template, conversation, tokens }, false)
    }

    /// Forgets a state.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn remove(&self, owner: Owner, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        let mut index = self.index();
        if index.remove(&(owner, name.to_owned())).is_none() {
            return Err(StoreError::Unknown { name: name.to_owned() });
        }
        let path = self.entry_path(owner, name);
        let entry = read_entry(&path);
        fs::remove_file(&path).map_err(failed(&path, "removed"))?;
        if let Ok(entry) = entry {
            let _ = fs::remove_file(self.file(owner, &entry));
        }
        Ok(())
    }

    fn index(&self) -> MutexGuard<'_, BTreeMap<(Owner, String), Summary>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, owner: Owner) -> PathBuf {
        self.root.join(format!("{:016x}", owner.0))
    }

    fn entry_path(&self, owner: Owner, name: &str) -> PathBuf {
        self.folder(owner).join(format!("{name}.json"))
    }

    fn write_entry(&self, owner: Owner, name: &str, entry: &Entry) -> Result<(), StoreError> {
        let path = self.entry_path(owner, name);
        let unfinished = self.folder(owner).join(format!(".{name}.unfinished"));
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&unfinished)?;
            serde_json::to_writer(io::BufWriter::new(&mut file), entry).map_err(io::Error::other)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(failed(&path, "written"))
    }
}

/// A file that has no name yet. Dropped without one, it is removed.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    is_kept: bool,
}

impl NewFile {
    /// Where it is to be written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // It may not have been written at all; at the worst the next start removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A state that is to get a name.
#[derive(Debug)]
pub struct New {
    /// The state file; from [`Store::new_file`].
    pub file: NewFile,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: i64,
    /// See [`Entry::parent`].
    pub parent: Option<String>,
    /// See [`Entry::template`].
    pub template: Option<String>,
    /// See [`Entry::conversation`].
    pub conversation: Option<Conversation>,
    /// See [`Entry::tokens`].
    pub tokens: Vec<TokenId>,
}

impl Entry {
    pub(super) fn summary(&self, name: &str) -> Summary {
        Summary {
            name: name.to_owned(),
            tokens: self.tokens.len(),
            bytes: self.bytes,
            created_unix_s: self.created_unix_s,
            parent: self.parent.clone(),
            messages: self.conversation.as_ref().map(|conversation| conversation.messages.len()),
        }
    }
}

/// Whether a name is one that a file can have.
///
/// # Errors
/// [`StoreError::Name`].
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(is_good) && !name.starts_with('.') {
        return Ok(());
    }
    Err(StoreError::Name { name: name.chars().take(NAME_CHARS_MAX).collect() })
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_path_buf();
    move |cause| StoreError::Io { path, action, cause }
}

fn parse_owner(name: &str) -> Option<Owner> {
    const DIGITS: usize = 16;
    let digits = Some(name).filter(|name| name.len() == DIGITS)?;
    u64::from_str_radix(digits, 16).ok().map(Owner)
}

fn read_entry(path: &Path) -> io::Result<Entry> {
    let bytes = fs::metadata(path)?.len();
    if bytes > NAMED_STATE_ENTRY_BYTES_MAX {
        return Err(io::Error::other(format!("it has {bytes} bytes, more than an entry can have")));
    }
    let entry: Entry = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
    // The folder may have been written by anybody: an entry must not lead out of it.
    let is_inside = Path::new(&entry.file).file_name() == Some(entry.file.as_ref());
    if is_inside { Ok(entry) } else { Err(io::Error::other("it points out of its folder")) }
}

/// The whole entries of an owner's folder. State files that none points to are removed: whoever wrote them did not
/// come to the end.
fn look_into(folder: &Path) -> Vec<Summary> {
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    let paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    let has_extension = |path: &Path, wanted: &str| path.extension().is_some_and(|e| e == wanted);
    let mut known = Vec::new();
    let mut summaries = Vec::new();
    let mut is_complete = true;
    for path in paths.iter().filter(|path| has_extension(path, "json")) {
        let name = path.file_stem().and_then(|stem| stem.to_str()).filter(|name| check_name(name).is_ok());
        match (name, read_entry(path)) {
            (Some(name), Ok(entry)) => {
                let state = folder.join(&entry.file);
                if fs::metadata(&state).is_ok_and(|metadata| metadata.len() == entry.bytes) {
                    summaries.push(entry.summary(name));
                }
                known.push(state);
            }
            _ => is_complete = false,
        }
    }
    for path in
        paths.iter().filter(|path| is_complete && has_extension(path, "state") && !known.contains(path))
    {
        let _ = fs::remove_file(path);
    }
    summaries
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Owner = Owner(1);
    const BOB: Owner = Owner(2);

    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("tangelo-store-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Folder(path)
        }

        fn open(&self) -> Store {
            Store::open(&self.0, 1000).expect("a folder")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn new(store: &Store, owner: Owner, bytes: usize) -> New {
        let file = store.new_file(owner).expect("a path");
        fs::write(file.path(), vec![7; bytes]).expect("a file");
        New {
            file,
            created_unix_s: 5,
            parent: None,
            template: None,
            conversation: None,
            tokens: vec![1, 2, 3],
        }
    }

    fn names(store: &Store, owner: Owner) -> Vec<String> {
        store.list(owner).into_iter().map(|summary| summary.name).collect()
    }

    #[test]
    fn names_survive_a_restart_and_belong_to_their_owner() {
        let folder = Folder::new("restart");
        let store = folder.open();
        store.add(ANN, "b", new(&store, ANN, 10), false).expect("added");
        store.add(ANN, "a.1", new(&store, ANN, 20), false).expect("added");
        store.add(BOB, "b", new(&store, BOB, 30), false).expect("added");
        assert!(matches!(store.add(ANN, "b", new(&store, ANN, 1), false), Err(StoreError::Taken { .. })));
        let store = folder.open();
        assert_eq!(
            (names(&store, ANN), names(&store, BOB)),
            (vec!["a.1".into(), "b".into()], vec!["b".into()])
        );
        assert_eq!(store.totals(), (3, 60));
        let entry = store.get(BOB, "b").expect("it is there");
        assert_eq!(fs::read(store.file(BOB, &entry)).expect("its file"), [7; 30]);
        assert!(matches!(store.get(BOB, "a.1"), Err(StoreError::Unknown { .. })));
    }

    #[test]
    fn forks_and_renamed_states_outlive_what_they_came_from() {
        let folder = Folder::new("fork");
        let store = folder.open();
        store.add(ANN, "one", new(&store, ANN, 10), false).expect("added");
        assert_eq!(store.fork(ANN, "one", "two", 9).expect("forked").parent.as_deref(), Some("one"));
        store.rename(ANN, "one", "three").expect("renamed");
        store.remove(ANN, "two").expect("removed");
        let store = folder.open();
        assert_eq!(names(&store, ANN), ["three"]);
        let entry = store.get(ANN, "three").expect("it is there");
        assert_eq!((entry.tokens.as_slice(), entry.created_unix_s), (&[1, 2, 3][..], 5));
        assert!(store.file(ANN, &entry).is_file());
        assert!(matches!(store.fork(ANN, "one", "x", 0), Err(StoreError::Unknown { .. })));
    }

    #[test]
    fn what_was_not_finished_is_gone_at_the_next_start_and_nothing_leads_out_of_the_folder() {
        let folder = Folder::new("unfinished");
        let store = folder.open();
        let mut orphan = new(&store, ANN, 10);
        orphan.file.is_kept = true; // as if the program had been killed
        store.add(ANN, "kept", new(&store, ANN, 10), false).expect("added");
        let cut = store.add(ANN, "cut", new(&store, ANN, 10), false).and_then(|_| store.get(ANN, "cut"));
        fs::write(store.file(ANN, &cut.expect("an entry")), [0; 3]).expect("cut short");
        let store = folder.open();
        assert!(!orphan.file.path().exists());
        assert_eq!(names(&store, ANN), ["kept"]);
        let mut entry = store.get(ANN, "kept").expect("it is there");
        entry.file = "../../../secret.state".into();
        store.write_entry(ANN, "evil", &entry).expect("written");
        assert_eq!(names(&folder.open(), ANN), ["kept"]);
    }

    #[test]
    fn limits_are_kept() {
        let folder = Folder::new("limits");
        let store = folder.open();
        for name in ["", ".", ".hidden", "a/b", "a b", "..", "ü", &"x".repeat(NAME_CHARS_MAX + 1)] {
            assert!(matches!(store.check_new(ANN, name), Err(StoreError::Name { .. })), "{name}");
        }
        store.add(ANN, "most", new(&store, ANN, 900), false).expect("there is room");
        let refused = new(&store, ANN, 101);
        let path = refused.file.path().to_path_buf();
        assert!(matches!(store.add(ANN, "more", refused, false), Err(StoreError::NoRoom { left: 100, .. })));
        assert!(!path.exists());
    }
}
