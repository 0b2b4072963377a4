//! Past responses, so that a request can go on from one by naming it.
//!
//! What is kept is the conversation and the response object; the model's state is found by the conversation's tokens,
//! as for every other request. Memory is bounded by numbers of responses, per owner and of all, the oldest going
//! first. Conversations of one chain share their messages, and none is longer than the model's context.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tangelo_chat::Message;
use tangelo_engine::Owner;

/// Most responses of one owner.
const PER_OWNER_MAX: usize = 256;
/// Most responses of all owners.
const ALL_MAX: usize = 1024;

/// A past response.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The response as it was sent.
    pub response: Value,
    /// The conversation up to and with the answer, without the instructions.
    pub messages: Vec<Arc<Message>>,
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
    id: String,
    stored: Stored,
}

/// The responses of everybody; nobody sees another owner's.
#[derive(Debug, Default)]
pub struct Store(Mutex<VecDeque<Entry>>);

impl Store {
    /// The response of this id.
    pub fn get(&self, owner: Owner, id: &str) -> Option<Stored> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .rev()
            .find(|entry| entry.owner == owner && entry.id == id)
            .map(|entry| entry.stored.clone())
    }

    /// Keeps a response, and lets go of the oldest if there are too many.
    pub fn insert(&self, owner: Owner, id: String, stored: Stored) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.iter().filter(|entry| entry.owner == owner).count() >= PER_OWNER_MAX {
            let oldest = entries.iter().position(|entry| entry.owner == owner);
            oldest.and_then(|index| entries.remove(index));
        }
        if entries.len() >= ALL_MAX {
            entries.pop_front();
        }
        entries.push_back(Entry { owner, id, stored });
    }

    /// Forgets a response; whether there was one.
    pub fn remove(&self, owner: Owner, id: &str) -> bool {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().position(|entry| entry.owner == owner && entry.id == id);
        found.and_then(|index| entries.remove(index)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(text: &str) -> Stored {
        Stored { response: Value::from(text), messages: Vec::new() }
    }

    #[test]
    fn owners_do_not_see_each_other() {
        let store = Store::default();
        store.insert(Owner(1), "r".to_owned(), stored("mine"));
        assert!(store.get(Owner(2), "r").is_none());
        assert!(!store.remove(Owner(2), "r"));
        assert_eq!(store.get(Owner(1), "r").expect("kept").response, "mine");
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
}
