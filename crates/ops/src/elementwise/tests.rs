//! Values, special values and more elements than one part holds.

use super::*;
use crate::testing::on_every_simd;

#[test]
fn relu2_and_add_over_many_parts() {
    on_every_simd(|cx, rng| {
        let n = 2 * ELEMENTS_PER_PART + 7;
        let x = rng.uniform(n, 2.0);
        let mut squared = Mat::from_vec(1, n, x.clone());
        relu2(cx, &mut squared);
        let mut doubled = Mat::from_vec(1, n, x.clone());
        add(cx, &mut doubled, &Mat::from_vec(1, n, x.clone()));
        for i in 0..n {
            assert_eq!(squared.data()[i], x[i].max(0.0).powi(2));
            assert_eq!(doubled.data()[i], 2.0 * x[i]);
        }
    });
}

#[test]
fn relu2_keeps_nan() {
    on_every_simd(|cx, _| {
        let mut x = Mat::from_vec(1, 3, vec![f32::NAN, f32::NEG_INFINITY, f32::INFINITY]);
        relu2(cx, &mut x);
        assert!(x.data()[0].is_nan());
        assert_eq!(x.data()[1..], [0.0, f32::INFINITY]);
    });
}

#[test]
fn rows_are_gathered_and_scattered() {
    on_every_simd(|cx, _| {
        let x = Mat::from_vec(3, 2, vec![1., 2., 3., 4., 5., 6.]);
        let picked = gather_rows(cx, x.view(), [2, 0].into_iter());
        assert_eq!(picked.data(), [5., 6., 1., 2.]);
        let mut sum = Mat::from_vec(1, 2, vec![1., 1.]);
        add_scaled_row(&mut sum, 0, 2.0, picked.row(0));
        assert_eq!(sum.data(), [11., 13.]);
    });
}
