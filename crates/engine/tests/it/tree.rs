//! The tree of states: what it gives up, what it writes, and what it believes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::{assert_same, cx, load, prefilled, seen};
use tangelo_engine::{Folder, Owner, PERIOD, Reason, Sequence, StateTree};
use tangelo_model::Model;

const ALICE: Owner = Owner(1);
const BOB: Owner = Owner(2);

struct TempFolder(PathBuf);

impl TempFolder {
    fn new(name: &str) -> TempFolder {
        let path = std::env::temp_dir().join(format!("tangelo-tree-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        TempFolder(path)
    }

    fn open(&self, model: &Arc<Model>, budget_bytes: u64) -> StateTree {
        StateTree::new(usize::MAX).with_folder(Folder::open(&self.0, budget_bytes, model.clone()).unwrap())
    }

    /// All state files, of whichever owner.
    fn files(&self) -> Vec<PathBuf> {
        let list = |path: &Path| {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        };
        let mut files: Vec<PathBuf> =
            list(&self.0.join("states")).iter().flat_map(|owner| list(owner)).collect();
        files.sort();
        files
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tokens(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 31 + seed * 97 + i * i % 7) % 512).collect()
}

/// Bytes that states of these sequences take together.
fn bytes_of(model: &Model, sequences: &[&Sequence]) -> usize {
    let mut tree = StateTree::new(usize::MAX);
    for sequence in sequences {
        tree.insert(ALICE, sequence.keep(), Reason::Cut);
    }
    assert_eq!(tree.stats().states, sequences.len());
    let _ = model;
    tree.stats().bytes
}

#[test]
fn shared_pages_count_once_and_everything_is_given_back() {
    let (cx, model) = (cx(), load("tiny"));
    let mut sequence = prefilled(&model, &cx, &tokens(1, 640));
    let long = sequence.keep();
    sequence.prefill(&model, &cx, &tokens(2, 10), 10).unwrap();
    let mut tree = StateTree::new(usize::MAX);
    tree.insert(ALICE, sequence.keep(), Reason::Cut);
    let one = tree.stats().bytes;
    tree.insert(ALICE, long, Reason::Cut);
    let two = tree.stats().bytes;
    let (recurrent, caches) = sequence.keep().bytes();
    assert!(two - one < recurrent + caches / 5, "ten pages are shared: {one}, {two}");
    tree.insert(BOB, sequence.keep(), Reason::Cut);
    assert_eq!(tree.stats().states, 3);
    tree.forget(ALICE);
    assert_eq!(tree.stats().states, 1);
    assert!(!tree.has(ALICE, sequence.tokens()) && tree.has(BOB, sequence.tokens()));
    tree.remove(BOB, sequence.tokens());
    assert_eq!((tree.stats().states, tree.stats().bytes), (0, 0));
}

#[test]
fn what_is_cheap_to_rebuild_goes_first_and_nothing_stays_for_ever() {
    let (cx, model) = (cx(), load("tiny"));
    let long = prefilled(&model, &cx, &tokens(1, 800));
    let mut near = long.fork();
    near.prefill(&model, &cx, &tokens(3, 20), 20).unwrap();
    let short = prefilled(&model, &cx, &tokens(2, 64));
    let mut tree = StateTree::new(usize::MAX);
    for sequence in [&long, &near, &short] {
        tree.insert(ALICE, sequence.keep(), Reason::Cut);
    }
    tree.allow(bytes_of(&model, &[&long, &near, &short]) - 1);
    let held = |tree: &StateTree| [&long, &near, &short].map(|s| tree.has(ALICE, s.tokens()));
    assert_eq!(held(&tree), [true, false, true], "20 tokens are cheaper than 64 and 800");
    tree.allow(bytes_of(&model, &[&long]));
    assert_eq!(held(&tree), [true, false, false]);
    // One that nobody comes back to is outlived by many that are used, however long it is.
    tree.allow(bytes_of(&model, &[&long, &short]));
    for seed in 0..200 {
        tree.insert(ALICE, prefilled(&model, &cx, &tokens(10 + seed, 60)).into_kept(), Reason::Cut);
    }
    assert_eq!(held(&tree), [false; 3]);
    assert!(tree.stats().bytes <= bytes_of(&model, &[&long, &short]));
}

#[test]
fn periodic_states_thin_out_behind_the_end() {
    let (cx, model) = (cx(), load("tiny"));
    let all = tokens(1, 64 * PERIOD);
    let mut sequence = Sequence::new(&model);
    let mut tree = StateTree::new(usize::MAX);
    for piece in all.chunks(PERIOD) {
        sequence.prefill(&model, &cx, piece, 128).unwrap();
        tree.insert(ALICE, sequence.keep(), Reason::Period);
        let held: Vec<usize> =
            (1..=64).filter(|at| tree.has(ALICE, &all[..(at * PERIOD).min(all.len())])).collect();
        let end = sequence.position() / PERIOD;
        assert!(held.len() <= 4 * (end.ilog2() as usize + 2), "{held:?}");
        // A prompt that parts anywhere goes back to a state at most half as far before it as the end is behind that state.
        for at in 1..end {
            let before = held.iter().filter(|&&h| h <= at).max().copied().unwrap_or(0);
            assert!(at - before <= 1.max((end - before) / 2), "{held:?} leaves a gap before {at} of {end}");
        }
    }
}

#[test]
fn states_go_to_disk_and_come_back_with_the_same_bits() {
    let (cx, model, folder) = (cx(), Arc::new(load("tiny")), TempFolder::new("disk"));
    let sequences: Vec<Sequence> = (0..4).map(|seed| prefilled(&model, &cx, &tokens(seed, 300))).collect();
    let mut tree = folder.open(&model, u64::MAX);
    for sequence in &sequences {
        tree.insert(ALICE, sequence.keep(), Reason::Cut);
    }
    tree.save_all();
    let stats = tree.stats();
    assert_eq!((stats.states, stats.files, stats.bytes), (0, 4, 0), "{stats:?}");
    drop(tree);
    let mut tree = folder.open(&model, u64::MAX);
    for sequence in &sequences {
        let more = [sequence.tokens(), &[1, 2, 3]].concat();
        assert!(tree.find(&model, BOB, &more).sequence.is_none());
        let found = tree.find(&model, ALICE, &more);
        assert!(found.was_on_disk);
        assert_same(&seen(&model, &found.sequence.unwrap()), &seen(&model, sequence), "from disk");
        assert!(!tree.find(&model, ALICE, &more).was_on_disk);
    }
    // What is in memory and on disk needs no second writing.
    tree.allow(0);
    assert_eq!((tree.stats().states, tree.stats().files), (0, 4));
    tree.forget(ALICE);
    assert_eq!((tree.stats().files, tree.stats().file_bytes), (0, 0));
    assert!(folder.files().is_empty());
}

#[test]
fn the_folder_keeps_to_its_budget() {
    let (cx, model, folder) = (cx(), Arc::new(load("tiny")), TempFolder::new("budget"));
    let budget = 2 << 20;
    let mut tree = folder.open(&model, budget);
    for seed in 0..12 {
        tree.insert(ALICE, prefilled(&model, &cx, &tokens(seed, 400)).into_kept(), Reason::Cut);
    }
    tree.save_all();
    let stats = tree.stats();
    assert!(stats.files > 2 && stats.file_bytes <= budget, "{stats:?}");
    let on_disk: u64 = folder.files().iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!((folder.files().len(), on_disk), (stats.files, stats.file_bytes));
}

#[test]
fn damaged_and_foreign_files_are_refused_and_the_prompt_is_read_again() {
    let (cx, model, folder) = (cx(), Arc::new(load("tiny")), TempFolder::new("damaged"));
    let save = |seeds: [u32; 2]| {
        let mut tree = folder.open(&model, u64::MAX);
        for seed in seeds {
            tree.insert(ALICE, prefilled(&model, &cx, &tokens(seed, 300)).into_kept(), Reason::Cut);
        }
        tree.save_all();
    };
    let ask = |tree: &mut StateTree, seed| {
        let prompt = [&tokens(seed, 300)[..], &[5]].concat();
        tree.find(&model, ALICE, &prompt).sequence.is_some()
    };

    // A bit of the data: found out when the file is used.
    save([1, 2]);
    let path = folder.files()[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let mut tree = folder.open(&model, u64::MAX);
    assert_eq!(tree.stats().files, 2);
    let found = [ask(&mut tree, 1), ask(&mut tree, 2)];
    assert_eq!(found.iter().filter(|found| **found).count(), 1);
    assert_eq!((tree.stats().refused_files, tree.stats().files), (1, 1));
    assert!(!path.exists());
    drop(tree);

    // Cut short: found out when the folder is opened.
    save([1, 2]);
    let path = folder.files()[0].clone();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(folder.open(&model, u64::MAX).stats().files, 1);

    // Under the tokens of another: a file is believed for the tokens in it only.
    save([1, 2]);
    let files = folder.files();
    let mut tree = folder.open(&model, u64::MAX);
    std::fs::copy(&files[0], &files[1]).unwrap();
    let found = [ask(&mut tree, 1), ask(&mut tree, 2)];
    assert_eq!(found.iter().filter(|found| **found).count(), 1);
    assert_eq!(tree.stats().refused_files, 1);
    drop(tree);

    // Of another model: left alone.
    save([1, 2]);
    let other = Arc::new(load("odd"));
    assert_eq!(folder.open(&other, u64::MAX).stats().files, 0);
    assert_eq!(folder.files().len(), 2);
}
