//! The device against the host, and the host against plain searches.

use super::*;
use crate::device::Place;
use crate::testing::{assert_same_bits, on_gpu};

#[test]
fn maxima_name_the_largest_and_whatever_is_not_finite() {
    let mut logits: Vec<f32> = (0..200).map(|i| ((i * 7919) % 613) as f32 - 300.0).collect();
    logits[130] = f32::NAN;
    logits[199] = f32::NEG_INFINITY;
    let maxima = maxima(&Mat::from_vec(1, 200, logits.clone()));
    let largest = |range: std::ops::Range<usize>| logits[range].iter().copied().fold(f32::MIN, f32::max);
    assert_eq!((maxima[0], maxima[1], maxima[3]), (largest(0..64), largest(64..128), largest(192..200)));
    assert!(maxima[2].is_nan() && maxima.len() == 4);
    logits[130] = f32::INFINITY;
    assert!(super::maxima(&Mat::from_vec(1, 200, logits))[2].is_nan());
}

#[test]
fn the_device_finds_and_changes_what_the_host_does() {
    on_gpu(|cx, rng| {
        for len in [1, 63, 64, 65, 1000, 5000] {
            let mut logits = rng.uniform(len, 30.0);
            for (i, odd) in [f32::NEG_INFINITY, -0.0, 0.0, f32::NAN, f32::INFINITY].into_iter().enumerate() {
                logits[(i * 211 + 7) % len] = odd;
            }
            let host = Mat::from_vec(1, len, logits.clone());
            let device = cx.mat_to(Place::Device, Mat::from_vec(1, len, logits));
            assert_same_bits(&maxima(&device), &maxima(&host), "maxima");
            let changes: Vec<Change> = (0..len as u32 + 3)
                .step_by(3)
                .map(|token| Change { token, repetition: 1.3, penalty: 0.25 * token as f32, bias: -0.5 })
                .collect();
            let want = change(&host, &changes);
            let got = change(&device, &changes);
            assert_same_bits(&maxima(&got), &maxima(&want), "maxima of the changed");
            for which in [vec![], vec![(len as u32 - 1) / 64], (0..len.div_ceil(64) as u32).rev().collect()] {
                let (mut fetched, mut all) = (vec![0.0; len], vec![0.0; len]);
                fetch(&got, &which, &mut fetched);
                fetch(&want, &which, &mut all);
                let whole = which.len() * CHUNK * 2 > len;
                if whole {
                    all.copy_from_slice(want.data());
                }
                assert_same_bits(&fetched, &all, &format!("{which:?} of {len}"));
            }
        }
    });
}
