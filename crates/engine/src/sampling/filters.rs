//! Temperature, top-k, top-p and min-p.
//!
//! Nothing is sorted but what may be kept, and a weight is computed only where it counts. Top-k takes what reaches the
//! floor that [`Peaks`] knows and sorts k of it. Of n candidates, those below the mean of the probability that top-p
//! gives up, (1 − p) / n, are less than that together: top-p drops them unseen, then sorts the best of the rest, a few
//! hundred at a time, until they reach p. Min-p by itself looks only at logits that can be large enough.

use tangelo_core::TokenId;

use super::exp::exp;
use super::params::SamplingParams;
use super::peaks::Peaks;
use super::sum;

/// How many of the best candidates top-p sorts at first; sixteen times as many each time that they do not suffice.
const SORTED_FIRST: usize = 256;

/// A token and its rank in one number: smaller ones are better. The upper half falls as the logit rises, the lower half
/// is the id, so of equal logits the smaller id comes first.
pub(super) type Rank = u64;

fn rank(token: TokenId, logit: f32) -> Rank {
    let bits = (logit + 0.0).to_bits(); // Both zeros become +0.
    let falling = if logit < 0.0 { bits } else { !bits & (u32::MAX >> 1) };
    u64::from(falling) << 32 | u64::from(token)
}

/// The token of a rank.
pub(super) fn token(rank: Rank) -> TokenId {
    rank as TokenId
}

/// A candidate while candidates are being ordered.
#[derive(Clone, Copy, Debug)]
struct Ranked {
    rank: Rank,
    weight: f64,
}

/// The tokens that may still be chosen: by id, or best first if top-k or top-p has put them in order.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Their ids.
    pub(super) tokens: Vec<TokenId>,
    /// Their logits after penalties and bias.
    logits: Vec<f32>,
    /// Their probabilities relative to that of the best candidate, 0 to 1.
    weights: Vec<f64>,
    best: Vec<Rank>,
    ranked: Vec<Ranked>,
}

/// Replaces `found` by the `n` best of `logits`, of which `peaks` has the maxima, best first. Tokens of logit -∞ are not
/// among them.
pub(super) fn best(peaks: &mut Peaks, logits: &[f32], n: usize, found: &mut Vec<Rank>) {
    let floor = peaks.floor_of_best(n);
    found.clear();
    found.extend(peaks.at_least(logits, floor).map(|(token, logit)| rank(token, logit)));
    if n < found.len() {
        found.select_nth_unstable(n);
        found.truncate(n);
    }
    found.sort_unstable();
}

/// No candidate of [`Candidates::select`], nor the best token, has a smaller logit than this; `None` if all are looked at.
pub(super) fn floor(params: &SamplingParams, vocab_size: usize, peaks: &mut Peaks) -> Option<f32> {
    let largest = f64::from(peaks.largest());
    let temperature = f64::from(params.temperature);
    if temperature == 0.0 {
        return Some(peaks.largest());
    }
    match params.top_k.filter(|k| *k < vocab_size) {
        Some(k) => Some(peaks.floor_of_best(k)),
        None if params.top_p >= 1.0 && params.min_p > 0.0 => {
            // A little lower than it must be, because rounding is not worth a thought here: `min_p` decides.
            let floor = largest + temperature * (f64::from(params.min_p).ln() - 1e-3) - 1e-3 * largest.abs();
            Some((floor as f32).max(f32::MIN))
        }
        None => None,
    }
}

impl Candidates {
    /// Replaces the candidates by those that `params` leaves of `logits` (vocabulary), of which `peaks` has the maxima,
    /// one at least above -∞, all below +∞, none NaN. The weights are e^((logit − largest) / temperature); the
    /// temperature is above 0.
    pub fn select(&mut self, params: &SamplingParams, logits: &[f32], peaks: &mut Peaks) {
        let largest = f64::from(peaks.largest());
        let temperature = f64::from(params.temperature);
        let k = params.top_k.filter(|k| *k < logits.len());
        match k {
            Some(k) => {
                best(peaks, logits, k, &mut self.best);
                let found = std::mem::take(&mut self.best);
                self.take(found.iter().map(|rank| (token(*rank), logits[token(*rank) as usize])));
                self.best = found;
            }
            None if let Some(floor) = floor(params, logits.len(), peaks) => {
                self.take(peaks.at_least(logits, floor));
            }
            None => {
                self.tokens.clear();
                self.tokens.extend((0..).take(logits.len()));
                self.logits.clear();
                self.logits.extend_from_slice(logits);
            }
        }
        self.weights.clear();
        self.weights.resize(self.logits.len(), 0.0);
        for (weight, &logit) in self.weights.iter_mut().zip(&self.logits) {
            *weight = exp((f64::from(logit) - largest) / temperature);
        }
        self.top_p(params.top_p, k.is_some());
        self.min_p(params.min_p);
    }

    fn take(&mut self, candidates: impl Iterator<Item = (TokenId, f32)>) {
        self.tokens.clear();
        self.logits.clear();
        for (token, logit) in candidates {
            self.tokens.push(token);
            self.logits.push(logit);
        }
    }

    /// Keeps the fewest of the best whose probabilities reach `p`, but at least one.
    fn top_p(&mut self, p: f32, is_sorted: bool) {
        if p >= 1.0 {
            return;
        }
        let total = sum::total(&self.weights);
        let target = f64::from(p) * total;
        if is_sorted {
            let kept = reach(&self.weights, target);
            self.tokens.truncate(kept);
            self.weights.truncate(kept);
            return;
        }
        let negligible = (1.0 - f64::from(p)) * total / self.weights.len() as f64;
        self.ranked.clear();
        for ((&token, &logit), &weight) in self.tokens.iter().zip(&self.logits).zip(&self.weights) {
            if weight >= negligible {
                self.ranked.push(Ranked { rank: rank(token, logit), weight });
            }
        }
        let kept = sort_until(&mut self.ranked, target);
        self.tokens.clear();
        self.weights.clear();
        self.tokens.extend(self.ranked[..kept].iter().map(|c| token(c.rank)));
        self.weights.extend(self.ranked[..kept].iter().map(|c| c.weight));
    }

    /// Keeps what is at least `p` times as probable as the best.
    fn min_p(&mut self, p: f32) {
        if p <= 0.0 {
            return;
        }
        let least = f64::from(p) * self.weights.iter().copied().fold(0.0, f64::max);
        let mut kept = 0;
        for at in 0..self.weights.len() {
            if self.weights[at] >= least {
                (self.tokens[kept], self.weights[kept]) = (self.tokens[at], self.weights[at]);
                kept += 1;
            }
        }
        self.tokens.truncate(kept);
        self.weights.truncate(kept);
    }

    /// The candidate at the fraction 0 ≤ `u` < 1 of the total probability, in the order of the list; `None` if there
    /// are no candidates.
    pub fn at(&self, u: f64) -> Option<TokenId> {
        let target = u * sum::total(&self.weights);
        let mut before = 0.0;
        for (block, tokens) in self.weights.chunks(sum::BLOCK).zip(self.tokens.chunks(sum::BLOCK)) {
            let after = before + sum::block(block);
            if after > target {
                let found = block.iter().position(|weight| {
                    before += weight;
                    before > target
                });
                // One by one the weights may reach an ulp less than together; then it is the last that can be drawn.
                let at = found.or_else(|| block.iter().rposition(|weight| *weight > 0.0))?;
                return tokens.get(at).copied();
            }
            before = after;
        }
        None
    }
}

/// How many of the first weights reach `target`, added one by one; all if rounding leaves their sum an ulp short.
fn reach(weights: &[f64], target: f64) -> usize {
    let mut sum = 0.0;
    let last = weights.iter().position(|weight| {
        sum += weight;
        sum >= target
    });
    last.map_or(weights.len(), |index| index + 1)
}

/// Puts as many of the best first as it takes for their weights to reach `target`; how many that is.
fn sort_until(ranked: &mut [Ranked], target: f64) -> usize {
    let (mut sum, mut sorted, mut more) = (0.0, 0, SORTED_FIRST);
    while sorted < ranked.len() {
        let rest = &mut ranked[sorted..];
        let count = more.min(rest.len());
        if count < rest.len() {
            rest.select_nth_unstable_by_key(count, |c| c.rank);
        }
        rest[..count].sort_unstable_by_key(|c| c.rank);
        for (at, candidate) in rest[..count].iter().enumerate() {
            sum += candidate.weight;
            if sum >= target {
                return sorted + at + 1;
            }
        }
        sorted += count;
        more *= 16;
    }
    sorted
}
