//! Sums of f64 in an order that is fixed and yet fit for vectors: blocks of 64 terms, each summed in eight lanes that are
//! folded as a tree, then the blocks one after the other.

/// Terms per block.
pub const BLOCK: usize = 64;
const LANES: usize = 8;

/// The sum of at most [`BLOCK`] terms.
pub fn block(terms: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    for part in terms.chunks(LANES) {
        for (lane, term) in lanes.iter_mut().zip(part) {
            *lane += term;
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// The sum of all terms.
pub fn total(terms: &[f64]) -> f64 {
    terms.chunks(BLOCK).map(block).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_term_counts_once() {
        for n in 0..300u32 {
            let terms: Vec<f64> = (1..=n).map(f64::from).collect();
            assert_eq!(total(&terms), f64::from(n * (n + 1) / 2));
        }
    }
}
