//! The two kinds of sum, in plain Rust.

use super::LANES;

/// Laned sum of `term(0) .. term(n - 1)` where `term` folds its index into an accumulator, usually by a fused
/// multiply-add: `lane[i % 16] = term(i, lane[i % 16])`, then the tree.
pub fn sum_lanes(n: usize, term: impl Fn(usize, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for i in 0..n {
        lanes[i % LANES] = term(i, lanes[i % LANES]);
    }
    fold(lanes, |a, b| a + b)
}

/// The tree: 16 → 8 → 4 → 2 → 1, lane `i` combined with lane `i + width / 2`.
pub fn fold(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = combine(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}
