//! Every implementation against the reference, and the reference against f64.

use super::*;
use crate::device::Place;
use crate::testing::{Rng, assert_same_bits, on_every_simd, on_gpu};

#[test]
fn implementations_equal_the_reference() {
    on_every_simd(|cx, rng| {
        for d in (1..=2 * LANES + 1).chain([96, 3136]) {
            let x = rng.uniform(3 * d, 3.0);
            let w = Vector::from(rng.uniform(d, 1.0));
            let x = Mat::from_vec(3, d, x);
            let got = rms_norm(cx, x.view(), &w, 1e-5);
            for r in 0..3 {
                let mut want = vec![0.0; d];
                reference::row(x.row(r), &w, 1e-5, &mut want);
                assert_same_bits(got.row(r), &want, &format!("d {d} row {r} {}", cx.simd()));
            }
        }
    });
}

#[test]
fn a_device_equals_the_host() {
    on_gpu(|cx, rng| {
        for d in [1, 15, 16, 17, 96, 3136, 9000] {
            let x = Mat::from_vec(3, d + 5, rng.uniform(3 * (d + 5), 3.0));
            let w = Vector::from(rng.uniform(d, 1.0));
            let want = rms_norm(cx, x.view().slice_cols(2..d + 2), &w, 1e-5);
            let (x, w) = (cx.mat_to(Place::Device, x), cx.vector_to(Place::Device, w));
            let got = rms_norm(cx, x.view().slice_cols(2..d + 2), &w, 1e-5);
            assert_same_bits(cx.mat_to(Place::Host, got).data(), want.data(), &format!("d {d}"));
        }
    });
}

#[test]
fn reference_is_the_formula() {
    let mut rng = Rng::new(1);
    let (x, w) = (rng.uniform(960, 3.0), rng.uniform(960, 1.0));
    let mut got = vec![0.0; 960];
    reference::row(&x, &w, 1e-3, &mut got);
    let mean = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 960.0;
    for i in 0..960 {
        let want = f64::from(x[i]) / (mean + 1e-3f32 as f64).sqrt() * f64::from(w[i]);
        assert!((f64::from(got[i]) - want).abs() <= 1e-6 * want.abs().max(1.0), "{i}: {} {want}", got[i]);
    }
}

#[test]
fn the_norm_of_a_sum_is_the_sum_and_then_the_norm() {
    on_gpu(|cx, rng| {
        // Around sixteen lanes, a block, and a stretch of shared memory.
        for d in [1, 17, 257, 4096, 4097, 9000] {
            let mat = |data: &[f32]| Mat::from_vec(3, d, data.to_vec());
            let (x, y) = (rng.uniform(3 * d, 3.0), rng.uniform(3 * d, 1.0));
            let weight = Vector::from(rng.uniform(d, 1.0));
            let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            let want = rms_norm(cx, mat(&sum).view(), &weight, 1e-5);
            for place in [Place::Host, Place::Device] {
                let [mut x, y] = [&x, &y].map(|data| cx.mat_to(place, mat(data)));
                let weight = cx.vector_to(place, weight.clone());
                let got = add_rms_norm(cx, &mut x, &y, &weight, 1e-5);
                assert_same_bits(
                    cx.mat_to(Place::Host, got).data(),
                    want.data(),
                    &format!("d {d} {place:?}"),
                );
                assert_same_bits(cx.mat_to(Place::Host, x).data(), &sum, &format!("sum, d {d} {place:?}"));
            }
        }
    });
}
