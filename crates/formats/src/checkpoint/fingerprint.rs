//! The identity of a checkpoint's weights.
//!
//! A saved state is only meaningful to the weights that made it. Hashing gigabytes would cost seconds at every
//! load, so large tensors are sampled: evenly spaced pages, the first and the last included. That tells models,
//! fine-tunes and quantisations apart (they differ nearly everywhere); it is not a defence against somebody
//! who edits single bytes between the sampled pages.

use sha2::{Digest, Sha256};

use super::Checkpoint;

/// Tensors up to this size are hashed whole.
const WHOLE_BYTES_MAX: usize = 16 << 10;
/// Size of a sampled piece.
const PAGE_BYTES: usize = 4 << 10;
/// Pages read over the whole checkpoint, about: 8 MiB, some ten milliseconds of hashing.
const PAGES_BUDGET: usize = 2048;
/// Most pages of one tensor.
const PAGES_PER_TENSOR_MAX: usize = 8;

impl Checkpoint {
    /// SHA-256 over the configuration and, in order of name, the name, element type, shape and (sampled) bytes
    /// of every tensor, and all of an adapter. Costs milliseconds; equal for equal files wherever they lie.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(b"tangelo checkpoint 1");
        field(self.config.to_json().as_bytes());
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let pages = (PAGES_BUDGET / entries.len().max(1)).clamp(2, PAGES_PER_TENSOR_MAX);
        for entry in entries {
            field(entry.name.as_bytes());
            field(entry.dtype_name.as_bytes());
            entry.shape.iter().for_each(|&d| field(&(d as u64).to_le_bytes()));
            field(&(entry.bytes.len() as u64).to_le_bytes());
            for piece in pieces(&entry.bytes, pages) {
                field(piece);
            }
        }
        if let Some(adapter) = &self.adapter {
            field(b"adapter 1");
            adapter.fields(&mut field);
        }
        hash.finalize().into()
    }
}

/// All of a small tensor, or `pages` (at least two) evenly spaced pages of a large one.
fn pieces(bytes: &[u8], pages: usize) -> Vec<&[u8]> {
    if bytes.len() <= WHOLE_BYTES_MAX.max(pages * PAGE_BYTES) {
        return vec![bytes];
    }
    let last_start = bytes.len() - PAGE_BYTES;
    let start = |i: usize| (last_start as u128 * i as u128 / (pages as u128 - 1)) as usize;
    (0..pages).filter_map(|i| bytes.get(start(i)..start(i) + PAGE_BYTES)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_reach_both_ends() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i / PAGE_BYTES as u32) as u8).collect();
        let sampled = pieces(&bytes, 4);
        assert_eq!(sampled.len(), 4);
        assert_eq!(sampled[0], &bytes[..PAGE_BYTES]);
        assert_eq!(sampled[3], &bytes[100_000 - PAGE_BYTES..]);
        assert_eq!(pieces(&bytes[..WHOLE_BYTES_MAX], 4), [&bytes[..WHOLE_BYTES_MAX]]);
    }
}
