//! Every implementation against the reference, in every shape of tile, and the rounding rule.

use super::*;
use crate::device::Mat;
use crate::testing::{Rng, on_every_simd};

/// The records of one row by the reference.
fn by_reference(x: &[f32]) -> Vec<Block> {
    let mut out = vec![Block::ZERO; x.len() / BLOCK];
    // SAFETY: one record per block.
    unsafe { reference::row(x, out.as_mut_ptr(), 1) };
    out
}

/// Equality of bits, all NaNs being one.
fn same(a: &Block, b: &Block) -> bool {
    let float = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    a.q == b.q && a.sum == b.sum && a.pairs == b.pairs && float(a.d, b.d) && float(a.d_sum, b.d_sum)
}

#[test]
fn implementations_equal_the_reference() {
    on_every_simd(|cx, rng| {
        for (blocks, tile) in [(1, 1), (2, 4), (7, 12), (3, 6)] {
            let cols = blocks * BLOCK;
            for scale in [1e-35, 1e-30, 1.0, 1e30] {
                let mut x = rng.uniform(6 * cols, scale);
                x[..cols].fill(0.0);
                x[cols + rng.below(cols)] = f32::NAN;
                x[2 * cols + rng.below(cols)] = f32::NEG_INFINITY;
                x[3 * cols + rng.below(cols)] = -scale * 100.0;
                x[4 * cols..5 * cols].fill(scale);
                let x = Mat::from_vec(6, cols, x);
                let got = quantise_rows(cx, x.view(), tile);
                for row in 0..6 {
                    for (b, want) in by_reference(x.row(row)).iter().enumerate() {
                        let got = got.block(row, b);
                        assert!(same(got, want), "scale {scale} row {row}: {got:?}, want {want:?}");
                    }
                }
            }
        }
    });
}

#[test]
fn error_is_at_most_half_a_step_and_the_largest_is_exact() {
    let x = Rng::new(5).uniform(BLOCK, 3.0);
    let block = by_reference(&x)[0];
    assert!(block.q.iter().any(|q| q.abs() == 127));
    for i in 0..BLOCK {
        assert!((x[i] - block.d * f32::from(block.q[i])).abs() <= block.d * 0.5001, "{i}");
    }
}

#[test]
fn sums_are_those_of_the_codes() {
    let x = Rng::new(6).uniform(BLOCK, 3.0);
    let block = by_reference(&x)[0];
    let sum = |range: std::ops::Range<usize>| block.q[range].iter().map(|&q| i32::from(q)).sum::<i32>();
    assert_eq!(block.sum, [sum(0..16), sum(16..32), sum(0..32)]);
    for (pair, sum) in block.pairs.iter().zip(block.sum) {
        assert_eq!(i32::from(*pair as i16) + (pair >> 16), sum);
    }
}
