//! Bytes of states that share pages: a page counts once, however many states hold it.

use std::collections::HashMap;

use tangelo_model::LayerState;

use crate::sequence::Kept;

/// The pages of all states held, and how many states hold each.
#[derive(Debug, Default)]
pub(super) struct Pages {
    holders: HashMap<usize, u32>,
    page_bytes: usize,
    own_bytes: usize,
}

impl Pages {
    /// Bytes of all states held.
    pub fn bytes(&self) -> usize {
        self.own_bytes + self.page_bytes
    }

    /// Counts a state.
    pub fn add(&mut self, kept: &Kept) {
        self.own_bytes += own_bytes(kept);
        for (page, bytes) in pages(kept) {
            let holders = self.holders.entry(page).or_default();
            *holders += 1;
            self.page_bytes += if *holders == 1 { bytes } else { 0 };
        }
    }

    /// No longer counts a state that was counted.
    pub fn remove(&mut self, kept: &Kept) {
        self.own_bytes -= own_bytes(kept);
        for (page, bytes) in pages(kept) {
            let Some(holders) = self.holders.get_mut(&page) else { continue };
            *holders -= 1;
            if *holders == 0 {
                self.holders.remove(&page);
                self.page_bytes -= bytes;
            }
        }
    }
}

/// Pages of a state and their bytes.
fn pages(kept: &Kept) -> impl Iterator<Item = (usize, usize)> + '_ {
    kept.state().layers().iter().flat_map(|layer| {
        match layer {
            LayerState::Attention(cache) => {
                let bytes = cache.page_bytes();
                Some(cache.page_ids().map(move |page| (page, bytes)))
            }
            LayerState::Mamba(_) | LayerState::Stateless => None,
        }
        .into_iter()
        .flatten()
    })
}

/// Bytes of a state that no other shares.
pub(super) fn own_bytes(kept: &Kept) -> usize {
    let logits = kept.placed_logits().map_or(0, |logits| logits.len());
    kept.bytes().0 + (kept.position() + logits) * size_of::<u32>()
}
