//! What one pass over the logits of a vocabulary finds out: the largest of every 64.
//!
//! The pass compares and does nothing else, so the compiler puts it into vectors; whoever then looks for large logits
//! skips the chunks that have none. The k best tokens are found without sorting the vocabulary: k chunks reach the k-th
//! largest of the chunks' maxima, so at least k logits do, and hardly more than that have to be looked at.

use tangelo_core::TokenId;
use tangelo_ops::logits::CHUNK;

/// Maxima that are kept apart during a pass, so that they fit vectors of any width.
const LANES: usize = 16;

/// The largest logit of every chunk, and memory to search among them.
#[derive(Clone, Debug, Default)]
pub struct Peaks {
    maxima: Vec<f32>,
    order: Vec<f32>,
}

impl Peaks {
    /// Passes over `logits` (vocabulary). False if one is NaN or +∞; then the maxima mean nothing.
    pub fn scan(&mut self, logits: &[f32]) -> bool {
        self.maxima.clear();
        let mut is_good = true;
        self.maxima.extend(logits.chunks(CHUNK).map(|chunk| {
            let (largest, is_chunk_good) = summarise(chunk);
            is_good &= is_chunk_good;
            largest
        }));
        is_good
    }

    /// Takes the maxima that a device has found, one per [`CHUNK`]. False if one is NaN: then they mean nothing.
    pub fn set(&mut self, maxima: &[f32]) -> bool {
        self.maxima.clear();
        self.maxima.extend_from_slice(maxima);
        !maxima.iter().any(|largest| largest.is_nan())
    }

    /// The numbers of the chunks that have a logit of at least `floor`.
    pub fn chunks_with(&self, floor: f32) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.maxima).filter(move |(_, largest)| **largest >= floor).map(|(chunk, _)| chunk)
    }

    /// The largest logit; -∞ if none is larger.
    pub fn largest(&self) -> f32 {
        self.maxima.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }

    /// The token with the largest logit, the smallest id among equals; `None` if all are -∞.
    pub fn best(&self, logits: &[f32]) -> Option<TokenId> {
        let largest = self.largest();
        self.at_least(logits, largest.max(f32::MIN)).next().map(|(token, _)| token)
    }

    /// Tokens whose logits are at least `floor`, and these, by id.
    pub fn at_least<'a>(
        &'a self,
        logits: &'a [f32],
        floor: f32,
    ) -> impl Iterator<Item = (TokenId, f32)> + 'a {
        let chunks = (0..).step_by(CHUNK).zip(logits.chunks(CHUNK)).zip(&self.maxima);
        let high = chunks.filter(move |(_, largest)| **largest >= floor);
        let tokens = high.flat_map(|((first, chunk), _)| (first..).zip(chunk.iter().copied()));
        tokens.filter(move |(_, logit)| *logit >= floor)
    }

    /// A logit that at least `k` tokens reach, as large as the maxima can tell.
    pub fn floor_of_best(&mut self, k: usize) -> f32 {
        if k == 0 || k > self.maxima.len() {
            return f32::MIN;
        }
        self.order.clear();
        self.order.extend_from_slice(&self.maxima);
        let (_, floor, _) = self.order.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        floor.max(f32::MIN)
    }
}

/// The largest logit of a chunk, and whether all are below +∞ and numbers.
fn summarise(chunk: &[f32]) -> (f32, bool) {
    let (mut largest, mut is_good) = ([f32::NEG_INFINITY; LANES], [true; LANES]);
    let (parts, rest) = chunk.as_chunks::<LANES>();
    for part in parts {
        for i in 0..LANES {
            largest[i] = if part[i] > largest[i] { part[i] } else { largest[i] };
            is_good[i] &= part[i] < f32::INFINITY;
        }
    }
    for (i, &logit) in rest.iter().enumerate() {
        largest[i] = if logit > largest[i] { logit } else { largest[i] };
        is_good[i] &= logit < f32::INFINITY;
    }
    (largest.into_iter().fold(f32::NEG_INFINITY, f32::max), is_good.into_iter().all(|good| good))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_what_a_search_of_all_finds() {
        for n in [1usize, 5, 63, 64, 65, 1000, 4096] {
            let logits: Vec<f32> = (0..n).map(|i| ((i * 7919) % 613) as f32 - 300.0).collect();
            let mut peaks = Peaks::default();
            assert!(peaks.scan(&logits));
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(peaks.largest(), largest);
            let first = logits.iter().position(|l| *l == largest).map(|i| i as TokenId);
            assert_eq!(peaks.best(&logits), first);
            for k in [1, 2, 10, n] {
                let floor = peaks.floor_of_best(k);
                let found: Vec<(TokenId, f32)> = peaks.at_least(&logits, floor).collect();
                let all = (0..).zip(logits.iter().copied()).filter(|(_, l)| *l >= floor);
                assert_eq!(found, all.collect::<Vec<_>>());
                assert!(found.len() >= k.min(n), "{n} {k}: {}", found.len());
            }
        }
    }

    #[test]
    fn nothing_broken_is_overlooked() {
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 15, 63, 64, 100, 129] {
                let mut logits = vec![1.0f32; 130];
                logits[at] = bad;
                assert!(!Peaks::default().scan(&logits), "{bad} at {at}");
            }
        }
        let mut none = Peaks::default();
        assert!(none.scan(&[f32::NEG_INFINITY; 70]));
        assert_eq!(none.best(&[f32::NEG_INFINITY; 70]), None);
    }
}
