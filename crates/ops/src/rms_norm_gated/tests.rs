//! Every implementation against the reference, and the reference against f64.

use super::*;
use crate::device::Place;
use crate::testing::{Rng, assert_same_bits, on_every_simd, on_gpu};

#[test]
fn implementations_equal_the_reference() {
    on_every_simd(|cx, rng| {
        for (width, groups) in (1..=2 * LANES + 1).map(|w| (w, 3)).chain([(960, 8), (40, 1)]) {
            let i = width * groups;
            let y = Mat::from_vec(2, i, rng.uniform(2 * i, 3.0));
            let z = Mat::from_vec(2, i, rng.uniform(2 * i, 9.0));
            let w = Vector::from(rng.uniform(i, 1.0));
            let got = rms_norm_gated(cx, y.view(), z.view(), &w, groups, 1e-5);
            for (r, g) in (0..2).flat_map(|r| (0..groups).map(move |g| (r, g))) {
                let c = g * width..(g + 1) * width;
                let mut want = vec![0.0; width];
                reference::group(&y.row(r)[c.clone()], &z.row(r)[c.clone()], &w[c.clone()], 1e-5, &mut want);
                assert_same_bits(&got.row(r)[c], &want, &format!("width {width} group {g} {}", cx.simd()));
            }
        }
    });
}

#[test]
fn reference_is_the_formula() {
    let mut rng = Rng::new(2);
    let (y, z, w) = (rng.uniform(80, 3.0), rng.uniform(80, 9.0), rng.uniform(80, 1.0));
    let mut got = vec![0.0; 80];
    reference::group(&y, &z, &w, 1e-5, &mut got);
    let u = |i: usize| f64::from(y[i]) * f64::from(z[i]) / (1.0 + (-f64::from(z[i])).exp());
    let mean = (0..80).map(|i| u(i).powi(2)).sum::<f64>() / 80.0;
    for i in 0..80 {
        let want = u(i) / (mean + 1e-5).sqrt() * f64::from(w[i]);
        assert!((f64::from(got[i]) - want).abs() <= 2e-6 * want.abs().max(1.0), "{i}: {} {want}", got[i]);
    }
}

#[test]
fn a_device_equals_the_host() {
    on_gpu(|cx, rng| {
        for (width, groups) in [(1, 3), (15, 2), (16, 3), (33, 3), (960, 4), (2049, 2), (5000, 1)] {
            let i = width * groups;
            let mut wide = || Mat::from_vec(2, i + 3, rng.uniform(2 * (i + 3), 9.0));
            let (y, z) = (wide(), wide());
            let w = Vector::from(rng.uniform(i, 1.0));
            let run = |y: &Mat, z: &Mat, w: &Vector| {
                let (y, z) = (y.view().slice_cols(2..i + 2), z.view().slice_cols(1..i + 1));
                cx.mat_to(Place::Host, rms_norm_gated(cx, y, z, w, groups, 1e-5))
            };
            let want = run(&y, &z, &w);
            let [y, z] = [y, z].map(|mat| cx.mat_to(Place::Device, mat));
            let got = run(&y, &z, &cx.vector_to(Place::Device, w));
            assert_same_bits(got.data(), want.data(), &format!("width {width} groups {groups}"));
        }
    });
}
