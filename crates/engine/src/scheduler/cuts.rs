//! Where a prompt is stopped to keep its state.

/// Cuts lie at least so far apart and behind what was found: stopping at a cut costs a forward, whose weights have to be
/// read for few tokens, and fewer tokens than these are soon computed again.
const TOKENS_BETWEEN_CUTS: usize = 256;
/// Tokens before the first cut of a prompt that make it worth stopping at.
const TOKENS_WORTH_A_STATE: usize = 64;

/// The cuts at which a prompt of `len` tokens is stopped when its first `position` tokens are known: of cuts that are near
/// each other the last, because that is where an answer with reasoning parts from one without; and of a prompt that is all
/// new also the first, behind instructions and tools.
pub(super) fn worthwhile(mut cuts: Vec<usize>, position: usize, len: usize) -> Vec<usize> {
    cuts.retain(|&cut| cut > position && cut < len);
    cuts.sort_unstable();
    let first = cuts.first().copied().filter(|&first| position == 0 && first >= TOKENS_WORTH_A_STATE);
    let mut next = usize::MAX;
    cuts.reverse();
    cuts.retain(|&cut| {
        let is_apart = next - cut >= TOKENS_BETWEEN_CUTS && cut - position >= TOKENS_BETWEEN_CUTS;
        let is_kept = is_apart || Some(cut) == first;
        next = if is_kept { cut } else { next };
        is_kept
    });
    cuts.reverse();
    cuts.dedup();
    cuts
}

#[cfg(test)]
mod tests {
    use super::worthwhile;

    #[test]
    fn of_near_cuts_the_last_counts_and_the_first_always() {
        let from = |position: usize, len: usize| {
            worthwhile(vec![100, 350, 700, 705, 705, 1000, 1200, 1205], position, len)
        };
        assert_eq!(from(0, 1300), [100, 350, 705, 1205]);
        assert_eq!(from(0, 700), [100, 350]);
        assert_eq!(from(700, 1300), [1205]);
        assert!(from(1100, 1300).is_empty());
        assert!(worthwhile(vec![20, 30], 0, 50).is_empty());
    }
}
