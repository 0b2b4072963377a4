//! Temperature, top-k, top-p and min-p over one set of candidates, in time linear in the vocabulary.
//!
//! Nothing is sorted but what is kept: top-k partitions, then sorts its k; top-p partitions off the best
//! `FIRST_GUESS` candidates, four times as many while their probabilities do not reach p, and sorts those.

use std::cmp::Ordering;

use tangelo_core::TokenId;
use tangelo_ops::math::exp;

/// Candidates that top-p looks at first. A peaked distribution needs a handful; a partition of this size costs no more
/// than a smaller one.
const FIRST_GUESS: usize = 256;
/// Growth of the guess.
const GUESS_GROWTH: usize = 4;

/// A token that may still be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub token: TokenId,
    /// Its logit after penalties and bias.
    pub logit: f32,
    /// Its probability relative to that of the best candidate, 0 to 1.
    pub weight: f32,
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
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let candidate = |(token, &logit): (TokenId, &f32)| {
            // Subtract first: dividing first by a tiny temperature could overflow.
            Candidate { token, logit, weight: exp((logit - largest) / temperature) }
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
        let target = f64::from(p) * self.total();
        let mut guess = FIRST_GUESS.min(self.list.len());
        loop {
            if guess < self.list.len() {
                self.list.select_nth_unstable_by(guess, best_first);
            }
            self.list[..guess].sort_unstable_by(best_first);
            if let Some(kept) = reach(&self.list[..guess], target) {
                self.list.truncate(kept);
                return;
            }
            if guess == self.list.len() {
                return; // Rounding: the probabilities of all fall short of p by less than an ulp.
            }
            guess = (guess * GUESS_GROWTH).min(self.list.len());
        }
    }

    /// Keeps what is at least `p` times as probable as the best.
    pub fn min_p(&mut self, p: f32) {
        if p > 0.0 {
            let best = self.list.iter().map(|c| c.weight).fold(0.0, f32::max);
            self.list.retain(|c| c.weight >= p * best);
        }
    }

    /// The candidate at the fraction 0 ≤ `u` < 1 of the total probability, in the order of the list; `None` if there
    /// are no candidates.
    pub fn at(&self, u: f64) -> Option<Candidate> {
        let target = u * self.total();
        let mut sum = 0.0;
        let mut possible = self.list.iter().filter(|c| c.weight > 0.0);
        let found = possible.find(|c| {
            sum += f64::from(c.weight);
            sum > target
        });
        found.or_else(|| self.list.iter().rfind(|c| c.weight > 0.0)).copied()
    }

    fn total(&self) -> f64 {
        self.list.iter().map(|c| f64::from(c.weight)).sum()
    }
}

/// How many of `sorted` are needed for their weights to reach `target`.
fn reach(sorted: &[Candidate], target: f64) -> Option<usize> {
    let mut sum = 0.0;
    let last = sorted.iter().position(|c| {
        sum += f64::from(c.weight);
        sum >= target
    });
    last.map(|index| index + 1)
}
