//! Temperature, top-k, top-p and min-p over one set of candidates.
//!
//! Nothing is sorted but what may be kept. Top-k partitions, then sorts its k. Of n candidates, those below the mean of
//! the probability that top-p gives up, (1 − p) / n, are less than that together: top-p drops them unseen, then sorts the
//! rest, which is a few hundred of 131,072 in a distribution that a language model makes.

use std::cmp::Ordering;

use tangelo_core::TokenId;

use super::exp::exp;

/// A token that may still be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub token: TokenId,
    /// Its logit after penalties and bias.
    pub logit: f32,
    /// Its probability relative to that of the best candidate, 0 to 1.
    pub weight: f64,
}

/// The candidates, by id until a filter needs an order, from then on from best to worst.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    pub(super) list: Vec<Candidate>,
}

/// Larger logits first; of equal ones the smaller id.
fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    largest_first(a.logit, b.logit).then(a.token.cmp(&b.token))
}

/// A total order in which the zeros are equal.
pub(super) fn largest_first(a: f32, b: f32) -> Ordering {
    (b + 0.0).total_cmp(&(a + 0.0))
}

impl Candidates {
    /// Replaces the candidates by all tokens whose logit is not -∞, with weights e^((logit - largest) / temperature).
    /// The temperature is above 0, the logits are below +∞ and not NaN.
    pub fn fill(&mut self, logits: &[f32], temperature: f32) {
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let candidate = |(token, &logit): (TokenId, &f32)| {
            let weight = exp((f64::from(logit) - largest) / f64::from(temperature));
            Candidate { token, logit, weight }
        };
        self.list.clear();
        let possible = (0..).zip(logits).filter(|(_, l)| **l > f32::NEG_INFINITY);
        self.list.extend(possible.map(candidate));
    }

    /// Keeps the `k` best.
    pub fn top_k(&mut self, k: usize) {
        if k < self.list.len() {
            self.list.select_nth_unstable_by(k, best_first);
            self.list.truncate(k);
        }
        self.list.sort_unstable_by(best_first);
    }

    /// Keeps the fewest of the best whose probabilities reach `p`, but at least one.
    pub fn top_p(&mut self, p: f32) {
        if p >= 1.0 {
            return;
        }
        let total = self.total();
        let negligible = (1.0 - f64::from(p)) * total / self.list.len() as f64;
        self.list.retain(|c| c.weight >= negligible);
        self.list.sort_unstable_by(best_first);
        // If rounding leaves the sum of all an ulp short, all are kept.
        let kept = reach(&self.list, f64::from(p) * total).unwrap_or(self.list.len());
        self.list.truncate(kept);
    }

    /// Keeps what is at least `p` times as probable as the best.
    pub fn min_p(&mut self, p: f32) {
        if p > 0.0 {
            let best = self.list.iter().map(|c| c.weight).fold(0.0, f64::max);
            self.list.retain(|c| c.weight >= f64::from(p) * best);
        }
    }

    /// The candidate at the fraction 0 ≤ `u` < 1 of the total probability, in the order of the list; `None` if there
    /// are no candidates.
    pub fn at(&self, u: f64) -> Option<Candidate> {
        let target = u * self.total();
        let mut sum = 0.0;
        let mut possible = self.list.iter().filter(|c| c.weight > 0.0);
        let found = possible.find(|c| {
            sum += c.weight;
            sum > target
        });
        found.or_else(|| self.list.iter().rfind(|c| c.weight > 0.0)).copied()
    }

    fn total(&self) -> f64 {
        self.list.iter().map(|c| c.weight).sum()
    }
}

/// How many of `sorted` are needed for their weights to reach `target`.
fn reach(sorted: &[Candidate], target: f64) -> Option<usize> {
    let mut sum = 0.0;
    let last = sorted.iter().position(|c| {
        sum += c.weight;
        sum >= target
    });
    last.map(|index| index + 1)
}
