//! Every implementation against the reference, and the rounding rule.

use super::*;
use crate::device::Mat;
use crate::testing::{Rng, assert_same_bits, on_every_simd};

#[test]
fn implementations_equal_the_reference() {
    on_every_simd(|cx, rng| {
        for blocks in [1, 2, 7] {
            let cols = blocks * BLOCK;
            for scale in [1e-35, 1e-30, 1.0, 1e30] {
                let mut x = rng.uniform(6 * cols, scale);
                x[..cols].fill(0.0);
                x[cols + rng.below(cols)] = f32::NAN;
                x[2 * cols + rng.below(cols)] = f32::NEG_INFINITY;
                x[3 * cols + rng.below(cols)] = -scale * 100.0;
                let x = Mat::from_vec(6, cols, x);
                let got = quantise_rows(cx, x.view());
                for row in 0..6 {
                    let mut q = vec![1; cols];
                    let (mut d, mut sum) = (vec![1.0; blocks], vec![1; 2 * blocks]);
                    reference::row(x.row(row), &mut q, &mut d, &mut sum);
                    assert_eq!(got.q(row), q, "scale {scale} row {row}");
                    assert_same_bits(got.d(row), &d, "scales");
                    assert_eq!(got.sum(row), sum);
                }
            }
        }
    });
}

#[test]
fn error_is_at_most_half_a_step_and_the_largest_is_exact() {
    let x = Rng::new(5).uniform(BLOCK, 3.0);
    let (mut q, mut d, mut sum) = ([0; BLOCK], [0.0], [0; 2]);
    reference::row(&x, &mut q, &mut d, &mut sum);
    assert!(q.iter().any(|q| q.abs() == 127));
    for i in 0..BLOCK {
        assert!((x[i] - d[0] * f32::from(q[i])).abs() <= d[0] * 0.5001, "{i}");
    }
}
