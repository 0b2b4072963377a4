//! The tree of states: every path of tokens that has been computed and is worth coming back to.
//!
//! A state is found by its tokens and by nothing else, among those of its owner. What is found is the deepest state on
//! the path of a prompt; the rest of the prompt is computed from there, and by principle P1 the result has the bits of a
//! computation from the beginning. States share the pages of their caches, so each costs its recurrent part and what it
//! does not have in common with others; a budget of bytes bounds all of them.
//!
//! **What is given up** when the budget is reached is what is cheapest to rebuild per byte that it holds, out of what
//! has not been used for long: the worth of a state is `clock + tokens to rebuild / MiB`, where the tokens are those since
//! the state before it on its path, and the clock is that of its last use. Giving a state up sets the clock to its worth
//! (GreedyDual-Size: Cao & Irani 1997). So the past thins out evenly, long prompts outlive short ones, and nothing stays
//! for ever.
//!
//! **Files.** With a folder, states that are worth it go to disk instead ([`files`]) and come back when they are found.
//! A file is read over before it is believed, and its tokens are compared with those that were looked for.

mod files;
mod pages;
mod paths;

pub use files::Folder;

use std::sync::Arc;

use tangelo_core::TokenId;
use tangelo_model::Model;

use crate::sequence::{Kept, Sequence};
use files::{StateFile, WRITES_MAX};
use pages::{Pages, own_bytes};
use paths::{NodeId, Paths};

/// Tokens between states that are kept only because a path is long.
pub const PERIOD: usize = 256;
/// Periodic states that stay within each doubling of the distance from the end of a path.
const PERIODIC_PER_OCTAVE: usize = 4;
/// A state that fewer tokens rebuild is not written to a file.
const TOKENS_WORTH_A_FILE: usize = 256;
/// Worth is in tokens per this many bytes.
const WORTH_BYTES: f64 = (1 << 20) as f64;

/// Whose states: two owners never share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(pub u64);

/// Why a state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Prompts part here, or an answer ends here.
    Cut,
    /// The path is long; such states are thinned out behind the end of their path.
    Period,
}

/// A state at a point of a path: in memory, in a file, or both.
#[derive(Debug)]
struct Held {
    memory: Option<Arc<Kept>>,
    file: Option<StateFile>,
    reason: Reason,
    /// The clock when it was last used.
    touched: f64,
    is_being_written: bool,
}

/// What was found for a prompt.
#[derive(Debug, Default)]
pub struct Found {
    /// A sequence of the first tokens of the prompt, to be continued; `None` if no state is on its path.
    pub sequence: Option<Sequence>,
    /// Tokens that the prompt has in common with the stored path that has the most of them.
    pub matched: usize,
    /// Whether the state was read from a file.
    pub was_on_disk: bool,
}

/// How far a prompt is known, and where it parts from what is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Tokens whose state would be found.
    pub restored: usize,
    /// Tokens in common with the stored path that has the most of them.
    pub matched: usize,
    /// What that path has next, where the prompt has something else or ends.
    pub next_stored: Option<TokenId>,
    /// Whether the state would be read from a file.
    pub is_on_disk: bool,
}

/// What the tree holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeStats {
    /// States in memory.
    pub states: usize,
    /// Bytes of them, shared pages counted once.
    pub bytes: usize,
    /// Bytes that may be held in memory.
    pub allowed_bytes: usize,
    /// States in files.
    pub files: usize,
    /// Bytes of them.
    pub file_bytes: u64,
    /// States given up, or moved to a file only, since the beginning.
    pub evictions: u64,
    /// States read back from files.
    pub restored_from_files: u64,
    /// Files that were not what they should be, and were removed.
    pub refused_files: u64,
    /// Files that could not be written.
    pub failed_writes: u64,
}

/// States of any paths of one model.
#[derive(Debug)]
pub struct StateTree {
    paths: Paths<Held>,
    pages: Pages,
    allowed_bytes: usize,
    clock: f64,
    folder: Option<Folder>,
    /// Own bytes of the largest state seen, which a state being written holds for a while.
    largest_own: usize,
    counts: TreeStats,
}

impl StateTree {
    /// An empty tree that holds at most `allowed_bytes` in memory.
    pub fn new(allowed_bytes: usize) -> StateTree {
        StateTree {
            paths: Paths::default(),
            pages: Pages::default(),
            allowed_bytes,
            clock: 0.0,
            folder: None,
            largest_own: 0,
            counts: TreeStats::default(),
        }
    }

    /// The same with files for what memory has no room for, and with the states that are in the folder already.
    #[must_use]
    pub fn with_folder(mut self, mut folder: Folder) -> StateTree {
        for (owner, tokens, file) in folder.take_existing() {
            let id = self.paths.node_at(owner, &tokens);
            self.paths.set(id, Held { file: Some(file), ..Held::new(None, Reason::Cut, 0.0) });
        }
        self.folder = Some(folder);
        self
    }

    /// From now on holds at most this many bytes in memory.
    pub fn allow(&mut self, bytes: usize) {
        self.allowed_bytes = bytes;
        self.fit();
    }

    /// The deepest state on the path of `tokens` from which they can be continued, and how far they are known. A state
    /// of all the tokens is taken only if it has their logits.
    pub fn find(&mut self, model: &Model, owner: Owner, tokens: &[TokenId]) -> Found {
        self.take_written();
        let mut refused = Vec::new();
        let found = loop {
            let walk = self.paths.walk(owner, tokens);
            let usable =
                walk.nodes.iter().rev().copied().find(|id| self.is_usable(*id, tokens.len(), &refused));
            let Some(id) = usable else {
                break Found { sequence: None, matched: walk.matched, was_on_disk: false };
            };
            let was_on_disk = self.paths.item(id).is_some_and(|held| held.memory.is_none());
            match self.load(model, id, tokens) {
                Some(kept) => {
                    let (sequence, matched) = (Some(kept.sequence()), walk.matched);
                    break Found { sequence, matched, was_on_disk };
                }
                None => refused.push(id),
            }
        };
        self.fit();
        found
    }

    /// Whether a prompt of `len` tokens can go on from a node on its path.
    fn is_usable(&self, id: NodeId, len: usize, refused: &[NodeId]) -> bool {
        let Some(held) = self.paths.item(id) else { return false };
        let has_logits = held.memory.as_ref().is_none_or(|kept| kept.placed_logits().is_some());
        (self.paths.position(id) < len || has_logits) && !refused.contains(&id)
    }

    /// The state of a node, from its file if need be. `None` if it is not what it should be, or lacks logits that are
    /// needed; a file that is not is removed.
    fn load(&mut self, model: &Model, id: NodeId, tokens: &[TokenId]) -> Option<Arc<Kept>> {
        let (clock, position) = (self.clock, self.paths.position(id));
        let held = self.paths.item_mut(id)?;
        held.touched = clock;
        if let Some(kept) = &held.memory {
            // The tree's own invariant, checked where breaking it would show one conversation to another.
            return (kept.tokens() == &tokens[..position]).then(|| kept.clone());
        }
        let file = held.file.clone()?;
        match file.read(model, &tokens[..position]) {
            Ok(kept) => {
                let kept = Arc::new(kept);
                held.memory = Some(kept.clone());
                self.pages.add(&kept);
                self.counts.restored_from_files += 1;
                (position < tokens.len() || kept.placed_logits().is_some()).then_some(kept)
            }
            Err(_) => {
                self.counts.refused_files += 1;
                self.remove_file(id);
                None
            }
        }
    }

    /// What [`StateTree::find`] would find, without reading or using anything.
    pub fn explain(&self, owner: Owner, tokens: &[TokenId]) -> Explanation {
        let walk = self.paths.walk(owner, tokens);
        let usable = walk.nodes.iter().rev().copied().find(|id| self.is_usable(*id, tokens.len(), &[]));
        Explanation {
            restored: usable.map_or(0, |id| self.paths.position(id)),
            matched: walk.matched,
            next_stored: walk.next,
            is_on_disk: usable.and_then(|id| self.paths.item(id)).is_some_and(|held| held.memory.is_none()),
        }
    }

    /// The state of exactly these tokens.
    pub fn get(&mut self, model: &Model, owner: Owner, tokens: &[TokenId]) -> Option<Arc<Kept>> {
        let id = self.at(owner, tokens)?;
        let kept = self.load(model, id, tokens);
        self.fit();
        kept
    }

    /// The node with a state of exactly these tokens.
    fn at(&self, owner: Owner, tokens: &[TokenId]) -> Option<NodeId> {
        let last = self.paths.walk(owner, tokens).nodes.last().copied()?;
        (self.paths.position(last) == tokens.len() && self.paths.item(last).is_some()).then_some(last)
    }

    /// Whether there is a state of exactly these tokens.
    pub fn has(&self, owner: Owner, tokens: &[TokenId]) -> bool {
        self.at(owner, tokens).is_some()
    }

    /// Adds a state. One of the same tokens is used instead if it is there, unless only the new one has logits. A state
    /// of no tokens is not worth a place.
    pub fn insert(&mut self, owner: Owner, kept: Kept, reason: Reason) {
        self.take_written();
        if kept.tokens().is_empty() {
            return;
        }
        let id = self.paths.node_at(owner, kept.tokens());
        let clock = self.clock;
        if let Some(held) = self.paths.item_mut(id) {
            held.touched = clock;
            held.reason = if reason == Reason::Cut { reason } else { held.reason };
            let lacks_logits = held.memory.as_ref().is_none_or(|old| old.placed_logits().is_none());
            if !lacks_logits
                || held.is_being_written
                || kept.placed_logits().is_none() && held.memory.is_some()
            {
                return;
            }
            if let Some(old) = held.memory.take() {
                self.pages.remove(&old);
            }
            self.pages.add(&kept);
            held.memory = Some(Arc::new(kept));
        } else {
            self.largest_own = self.largest_own.max(own_bytes(&kept));
            self.pages.add(&kept);
            self.paths.set(id, Held::new(Some(Arc::new(kept)), reason, clock));
        }
        if reason == Reason::Period {
            self.thin(id);
        }
        self.fit();
    }

    /// Gives up periodic states above a node, the more the farther away they are: a constant number for each doubling
    /// of the distance.
    fn thin(&mut self, end: NodeId) {
        let position = self.paths.position(end);
        let superfluous: Vec<NodeId> = self
            .paths
            .above(end)
            .filter(|&id| self.paths.item(id).is_some_and(|held| held.reason == Reason::Period))
            .filter(|&id| {
                let at = self.paths.position(id);
                let spacing = PERIOD << (at / PERIOD).trailing_zeros().min(usize::BITS / 2);
                position - at > PERIODIC_PER_OCTAVE * spacing
            })
            .collect();
        for id in superfluous {
            self.drop_state(id);
        }
    }

    /// Forgets the state of exactly these tokens.
    pub fn remove(&mut self, owner: Owner, tokens: &[TokenId]) {
        if let Some(id) = self.at(owner, tokens) {
            self.drop_state(id);
        }
    }

    /// Forgets all states of an owner, in memory and on disk.
    pub fn forget(&mut self, owner: Owner) {
        self.paths.items_of(owner).into_iter().for_each(|id| self.drop_state(id));
    }

    fn drop_state(&mut self, id: NodeId) {
        if let Some(file) = self.paths.item_mut(id).and_then(|held| held.file.take()) {
            self.delete(&file);
        }
        if let Some(kept) = self.paths.take(id).and_then(|held| held.memory) {
            self.pages.remove(&kept);
        }
    }

    fn delete(&mut self, file: &StateFile) {
        if let Some(folder) = &mut self.folder {
            folder.delete(file);
        }
    }

    /// Numbers for reports.
    pub fn stats(&self) -> TreeStats {
        let folder = self.folder.as_ref();
        TreeStats {
            states: self.paths.items().filter(|(_, held)| held.memory.is_some()).count(),
            bytes: self.pages.bytes(),
            allowed_bytes: self.allowed_bytes,
            files: folder.map_or(0, Folder::len),
            file_bytes: folder.map_or(0, Folder::bytes),
            failed_writes: folder.map_or(0, Folder::failed_writes),
            ..self.counts
        }
    }

    /// Tokens to compute again if the state of a node were gone.
    fn tokens_to_rebuild(&self, id: NodeId) -> usize {
        let before = self.paths.above(id).find(|&above| self.paths.item(above).is_some());
        self.paths.position(id) - before.map_or(0, |above| self.paths.position(above))
    }

    /// See the head of this file.
    fn worth(&self, id: NodeId, held: &Held, bytes: usize) -> f64 {
        held.touched + self.tokens_to_rebuild(id) as f64 * WORTH_BYTES / bytes.max(1) as f64
    }

    /// Gives states up until the rest is within the budget. What is being written is nearly gone, so room is left for it
    /// instead of counting it.
    fn fit(&mut self) {
        let reserve = if self.folder.is_some() { WRITES_MAX * self.largest_own } else { 0 };
        let target = self.allowed_bytes.saturating_sub(reserve).max(self.allowed_bytes / 2);
        let mut leaving = self.bytes_being_written();
        while self.pages.bytes().saturating_sub(leaving) > target {
            let candidates = self.paths.items().filter_map(|(id, held)| {
                let kept = held.memory.as_ref().filter(|_| !held.is_being_written)?;
                let bytes = own_bytes(kept) + kept.cache_bytes_per_token() * self.tokens_to_rebuild(id);
                Some((self.worth(id, held, bytes), id))
            });
            let Some((worth, id)) = candidates.min_by(|a, b| a.0.total_cmp(&b.0)) else { return };
            self.clock = self.clock.max(worth);
            self.counts.evictions += 1;
            self.evict(id);
            leaving = self.bytes_being_written();
        }
    }

    fn bytes_being_written(&self) -> usize {
        let Some(folder) = &self.folder else { return 0 };
        folder.in_flight() * self.largest_own
    }

    /// Takes a state out of memory; to disk if it is worth it and the disk is not behind.
    fn evict(&mut self, id: NodeId) {
        let is_worth_a_file = self.tokens_to_rebuild(id) >= TOKENS_WORTH_A_FILE;
        let Some(held) = self.paths.item_mut(id) else { return };
        let Some(kept) = held.memory.clone() else { return };
        if held.file.is_some() {
            held.memory = None;
            self.pages.remove(&kept);
            return;
        }
        if is_worth_a_file
            && let Some(folder) = &mut self.folder
            && let Some(owner) = self.paths.owner(id)
            && folder.write(owner, &kept)
        {
            if let Some(held) = self.paths.item_mut(id) {
                held.is_being_written = true;
            }
            return;
        }
        self.paths.take(id);
        self.pages.remove(&kept);
    }

    /// Takes note of files that have been written meanwhile.
    fn take_written(&mut self) {
        let Some(folder) = &mut self.folder else { return };
        for written in folder.written() {
            let at = self.at(written.owner, written.kept.tokens());
            let held = at.and_then(|id| self.paths.item_mut(id)).filter(|held| held.is_being_written);
            match (held, written.file) {
                (Some(held), Some(file)) => {
                    held.is_being_written = false;
                    held.file = Some(file);
                    if let Some(kept) = held.memory.take() {
                        self.pages.remove(&kept);
                    }
                }
                // It was forgotten meanwhile.
                (None, Some(file)) => self.delete(&file),
                (Some(_), None) => {
                    if let Some(id) = at {
                        self.drop_state(id);
                    }
                }
                (None, None) => {}
            }
        }
        self.fit_files();
    }

    /// Removes files until the rest is within the folder's budget.
    fn fit_files(&mut self) {
        while self.folder.as_ref().is_some_and(Folder::is_over_budget) {
            let candidates = self.paths.items().filter_map(|(id, held)| {
                let file = held.file.as_ref()?;
                Some((self.worth(id, held, usize::try_from(file.bytes).unwrap_or(usize::MAX)), id))
            });
            let Some((_, id)) = candidates.min_by(|a, b| a.0.total_cmp(&b.0)) else { return };
            self.remove_file(id);
        }
    }

    fn remove_file(&mut self, id: NodeId) {
        let Some(held) = self.paths.item_mut(id) else { return };
        let is_in_memory = held.memory.is_some();
        if let Some(file) = held.file.take() {
            self.delete(&file);
        }
        if !is_in_memory {
            self.paths.take(id);
        }
    }

    /// Writes every state that is worth a file and has none, for the next start, and waits for it. Does nothing without
    /// a folder.
    pub fn save_all(&mut self) {
        let worthy: Vec<NodeId> = self.paths.items().map(|(id, _)| id).collect();
        for id in worthy {
            let Some(held) = self.paths.item(id) else { continue };
            let is_saved = held.file.is_some() || held.is_being_written || held.reason == Reason::Period;
            if is_saved || self.tokens_to_rebuild(id) < TOKENS_WORTH_A_FILE {
                continue;
            }
            let (Some(kept), Some(owner)) = (held.memory.clone(), self.paths.owner(id)) else { continue };
            let Some(folder) = &mut self.folder else { return };
            folder.wait(WRITES_MAX - 1);
            if folder.write(owner, &kept)
                && let Some(held) = self.paths.item_mut(id)
            {
                held.is_being_written = true;
            }
        }
        if let Some(folder) = &mut self.folder {
            folder.wait(0);
        }
        self.take_written();
    }
}

impl Held {
    fn new(memory: Option<Arc<Kept>>, reason: Reason, touched: f64) -> Held {
        Held { memory, file: None, reason, touched, is_being_written: false }
    }
}
