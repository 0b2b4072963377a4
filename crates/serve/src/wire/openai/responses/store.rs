//! Past responses, so that a request can go on from one by naming it.
//!
//! What is kept is the conversation and the response object, as JSON text, so that their bytes are known; the model's
//! state is found by the conversation's tokens, as for every other request. Memory is bounded by bytes and by numbers
//! of responses, per owner and of all: the oldest of the owner go first, then the oldest of all. Conversations of one
//! chain share their turns, which are counted once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tangelo_engine::Owner;

/// Most responses of one owner.
const PER_OWNER_MAX: usize = 256;
/// Most responses of all owners.
const ALL_MAX: usize = 1024;
/// Most bytes of one owner's responses with their conversations.
const PER_OWNER_BYTES_MAX: usize = 32 << 20;
/// Most bytes of all owners' responses.
const ALL_BYTES_MAX: usize = 64 << 20;
/// Bytes that a turn takes besides its text: its reference count, and its place among the holders.
const TURN_BYTES: usize = 64;

/// A past response.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The response as it was sent.
    pub response: Arc<str>,
    /// The conversation up to and with the answer, without the instructions: for each response of the chain the list
    /// of messages that it added, the answer last.
    pub turns: Vec<Arc<str>>,
}

impl Stored {
    /// Bytes but for the turns, which others may share.
    fn own_bytes(&self) -> usize {
        size_of::<Entry>() + self.response.len() + self.turns.len() * size_of::<Arc<str>>()
    }

    /// Bytes if nothing is shared.
    fn bytes(&self) -> usize {
        self.own_bytes() + self.turns.iter().map(turn_bytes).sum::<usize>()
    }
}

fn turn_bytes(turn: &Arc<str>) -> usize {
    TURN_BYTES + turn.len()
}

fn address(turn: &Arc<str>) -> usize {
    Arc::as_ptr(turn).addr()
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
    id: String,
    stored: Stored,
}

/// What one owner's responses take.
#[derive(Debug, Default)]
struct Share {
    responses: usize,
    bytes: usize,
    /// How many responses hold a turn, by the address of the turn.
    holders: HashMap<usize, usize>,
}

impl Share {
    fn is_exceeded(&self) -> bool {
        self.responses > PER_OWNER_MAX || self.bytes > PER_OWNER_BYTES_MAX
    }

    fn add(&mut self, stored: &Stored) {
        self.responses += 1;
        self.bytes += stored.own_bytes();
        for turn in &stored.turns {
            let holders = self.holders.entry(address(turn)).or_default();
            if *holders == 0 {
                self.bytes += turn_bytes(turn);
            }
            *holders += 1;
        }
    }

    fn take(&mut self, stored: &Stored) {
        self.responses -= 1;
        self.bytes -= stored.own_bytes();
        for turn in &stored.turns {
            let Some(holders) = self.holders.get_mut(&address(turn)) else { continue };
            *holders -= 1;
            if *holders == 0 {
                self.holders.remove(&address(turn));
                self.bytes -= turn_bytes(turn);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    entries: VecDeque<Entry>,
    /// Of every owner who has a response.
    shares: HashMap<Owner, Share>,
}

impl Kept {
    fn position(&self, owner: Owner, id: &str) -> Option<usize> {
        self.entries.iter().rposition(|entry| entry.owner == owner && entry.id == id)
    }

    fn is_exceeded(&self) -> bool {
        let bytes: usize = self.shares.values().map(|share| share.bytes).sum();
        self.entries.len() > ALL_MAX || bytes > ALL_BYTES_MAX
    }

    fn add(&mut self, entry: Entry) {
        self.shares.entry(entry.owner).or_default().add(&entry.stored);
        self.entries.push_back(entry);
    }

    /// Lets go of the response at this place; whether there is one.
    fn remove(&mut self, index: usize) -> bool {
        let Some(entry) = self.entries.remove(index) else { return false };
        if let Some(share) = self.shares.get_mut(&entry.owner) {
            share.take(&entry.stored);
            if share.responses == 0 {
                self.shares.remove(&entry.owner);
            }
        }
        true
    }

    /// Lets go of the oldest until the bounds are kept.
    fn make_room(&mut self, owner: Owner) {
        while self.shares.get(&owner).is_some_and(Share::is_exceeded) {
            let oldest = self.entries.iter().position(|entry| entry.owner == owner);
            if !oldest.is_some_and(|index| self.remove(index)) {
                return;
            }
        }
        while self.is_exceeded() && self.remove(0) {}
    }
}

/// The responses of everybody; nobody sees another owner's.
#[derive(Debug, Default)]
pub struct Store(Mutex<Kept>);

impl Store {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The response of this id.
    pub fn get(&self, owner: Owner, id: &str) -> Option<Stored> {
        let kept = self.kept();
        let entry = kept.entries.get(kept.position(owner, id)?)?;
        Some(entry.stored.clone())
    }

    /// Keeps a response, and lets go of the oldest if there are too many or they are too long. One that alone is longer
    /// than an owner's share is not kept.
    pub fn insert(&self, owner: Owner, id: String, stored: Stored) {
        if stored.bytes() > PER_OWNER_BYTES_MAX {
            return;
        }
        let mut kept = self.kept();
        kept.add(Entry { owner, id, stored });
        kept.make_room(owner);
    }

    /// Forgets a response; whether there was one.
    pub fn remove(&self, owner: Owner, id: &str) -> bool {
        let mut kept = self.kept();
        kept.position(owner, id).is_some_and(|index| kept.remove(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn stored(text: &str) -> Stored {
        Stored { response: text.into(), turns: Vec::new() }
    }

    /// A response of so many bytes.
    fn long(bytes: usize) -> Stored {
        stored(&"x".repeat(bytes))
    }

    fn bytes(store: &Store) -> usize {
        store.kept().shares.values().map(|share| share.bytes).sum()
    }

    #[test]
    fn owners_do_not_see_each_other() {
        let store = Store::default();
        store.insert(Owner(1), "r".to_owned(), stored("mine"));
        assert!(store.get(Owner(2), "r").is_none());
        assert!(!store.remove(Owner(2), "r"));
        assert_eq!(&*store.get(Owner(1), "r").expect("kept").response, "mine");
        assert!(store.remove(Owner(1), "r"));
        assert!(store.get(Owner(1), "r").is_none());
    }

    #[test]
    fn the_oldest_goes_first_and_only_the_owners() {
        let store = Store::default();
        store.insert(Owner(2), "other".to_owned(), stored(""));
        for index in 0..=PER_OWNER_MAX {
            store.insert(Owner(1), index.to_string(), stored(""));
        }
        assert!(store.get(Owner(1), "0").is_none());
        assert!(store.get(Owner(1), "1").is_some());
        assert!(store.get(Owner(2), "other").is_some());
    }

    #[test]
    fn the_number_of_all_is_bounded() {
        let store = Store::default();
        for index in 0..=ALL_MAX {
            store.insert(Owner(index as u64), "r".to_owned(), stored(""));
        }
        assert!(store.get(Owner(0), "r").is_none());
        assert!(store.get(Owner(ALL_MAX as u64), "r").is_some());
    }

    #[test]
    fn long_responses_of_an_owner_make_room_for_its_own() {
        let store = Store::default();
        store.insert(Owner(2), "other".to_owned(), long(MIB));
        for index in 0..40 {
            store.insert(Owner(1), index.to_string(), long(MIB));
        }
        let kept = (0..40).filter(|index| store.get(Owner(1), &index.to_string()).is_some());
        assert_eq!(kept.collect::<Vec<_>>(), (9..40).collect::<Vec<_>>());
        assert!(store.get(Owner(2), "other").is_some());
    }

    #[test]
    fn the_bytes_of_all_are_bounded_and_the_oldest_goes_first() {
        let store = Store::default();
        for index in 0..5 {
            store.insert(Owner(index), "r".to_owned(), long(15 * MIB));
        }
        let kept = (0..5).filter(|&index| store.get(Owner(index), "r").is_some());
        assert_eq!(kept.collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn what_is_longer_than_an_owners_share_is_not_kept_and_pushes_nothing_out() {
        let store = Store::default();
        store.insert(Owner(1), "small".to_owned(), stored(""));
        store.insert(Owner(1), "response".to_owned(), long(PER_OWNER_BYTES_MAX));
        let turns = vec!["x".repeat(PER_OWNER_BYTES_MAX).into()];
        store.insert(Owner(1), "conversation".to_owned(), Stored { turns, ..stored("") });
        assert!(store.get(Owner(1), "small").is_some());
        assert!(store.get(Owner(1), "response").is_none());
        assert!(store.get(Owner(1), "conversation").is_none());
    }

    #[test]
    fn turns_of_a_chain_count_once_and_until_the_last_response_that_has_them_goes() {
        let store = Store::default();
        let turns: Vec<Arc<str>> = (0..20).map(|_| "x".repeat(MIB).into()).collect();
        for last in 1..=20 {
            let chain = Stored { turns: turns[..last].to_vec(), ..stored("") };
            store.insert(Owner(1), last.to_string(), chain);
        }
        assert!(store.get(Owner(1), "1").is_some(), "20 MiB are in use, and not 210");
        assert!((20 * MIB..21 * MIB).contains(&bytes(&store)));
        for last in 1..20 {
            assert!(store.remove(Owner(1), &last.to_string()));
        }
        assert!((20 * MIB..21 * MIB).contains(&bytes(&store)), "the last holds all of them");
        assert!(store.remove(Owner(1), "20"));
        assert_eq!(bytes(&store), 0);
        assert!(store.kept().shares.is_empty());
    }
}
