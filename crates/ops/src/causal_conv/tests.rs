//! Every implementation against the reference, cut at every place.

use super::*;
use crate::device::{Mat, Place};
use crate::testing::{Rng, assert_same_bits, on_every_simd, on_gpu};

/// The definition over a whole sequence with zeros before it.
fn whole(x: &Mat, conv: &Conv) -> Vec<f32> {
    let (c, k) = (conv.channels(), conv.taps());
    let zeros = vec![0.0; c];
    let mut out = vec![0.0; x.rows() * c];
    for t in 0..x.rows() {
        let history: Vec<&[f32]> =
            (0..k).map(|j| if t + j < k - 1 { &zeros[..] } else { x.row(t + j - (k - 1)) }).collect();
        reference::token(conv, &history, 0, &mut out[t * c..(t + 1) * c]);
    }
    out
}

#[test]
fn any_cut_on_any_implementation_equals_the_reference() {
    on_every_simd(|cx, rng| {
        for (c, k, l) in [(1, 4, 5), (17, 3, 6), (33, 1, 4), (40, 2, 7), (2500, 4, 9)] {
            let conv = Conv { weight: rng.uniform(k * c, 1.0).into(), bias: rng.uniform(c, 0.5).into() };
            let x = Mat::from_vec(l, c, rng.uniform(l * c, 2.0));
            let want = whole(&x, &conv);
            for cut in 0..=l {
                let mut state = Vector::from(vec![0.0; (k - 1) * c]);
                let mut got = cx.mat(l, c);
                for rows in [0..cut, cut..l] {
                    causal_conv_silu(cx, x.view(), &conv, [(rows, &mut state)], &mut got);
                }
                assert_same_bits(got.data(), &want, &format!("c {c} k {k} cut {cut} {}", cx.simd()));
                let last: Vec<f32> = (l - (k - 1)..l).flat_map(|t| x.row(t).to_vec()).collect();
                assert_same_bits(&state, &last, "state");
            }
        }
    });
}

#[test]
fn a_batch_is_each_alone() {
    on_every_simd(|cx, rng| {
        let (c, k, rows) = (1100, 4, [0..1, 1..2, 2..2, 2..9, 9..11]);
        let conv = Conv { weight: rng.uniform(k * c, 1.0).into(), bias: rng.uniform(c, 0.5).into() };
        let x = Mat::from_vec(11, c, rng.uniform(11 * c, 2.0));
        let before: Vec<Vector> = rows.iter().map(|_| rng.uniform((k - 1) * c, 2.0).into()).collect();
        let (mut states, mut got) = (before.clone(), cx.mat(11, c));
        let batch = rows.iter().cloned().zip(states.iter_mut());
        causal_conv_silu(cx, x.view(), &conv, batch, &mut got);
        for ((rows, mut alone), state) in rows.into_iter().zip(before).zip(&states) {
            let mut want = cx.mat(11, c);
            causal_conv_silu(cx, x.view(), &conv, [(rows.clone(), &mut alone)], &mut want);
            assert_same_bits(state, &alone, &format!("state of {rows:?}, {}", cx.simd()));
            for t in rows {
                assert_same_bits(got.row(t), want.row(t), &format!("row {t}, {}", cx.simd()));
            }
        }
    });
}

#[test]
fn reference_is_the_formula() {
    let mut rng = Rng::new(3);
    let conv = Conv { weight: rng.uniform(3, 1.0).into(), bias: rng.uniform(1, 0.5).into() };
    let x = rng.uniform(3, 2.0);
    let mut y = [0.0];
    reference::token(&conv, &[&x[0..1], &x[1..2], &x[2..3]], 0, &mut y);
    let s =
        (0..3).map(|j| f64::from(x[j]) * f64::from(conv.weight[j])).sum::<f64>() + f64::from(conv.bias[0]);
    assert!((f64::from(y[0]) - s / (1.0 + (-s).exp())).abs() < 1e-6);
}

#[test]
fn a_device_equals_the_host() {
    on_gpu(|cx, rng| {
        let rows = [0..1, 1..3, 3..3, 3..7, 7..47, 47..64];
        for (c, k) in [(1, 4), (300, 1), (300, 2), (257, 3), (300, 4), (20, 5), (20, 30)] {
            let conv = Conv { weight: rng.uniform(k * c, 1.0).into(), bias: rng.uniform(c, 0.5).into() };
            let x = Mat::from_vec(64, c + 3, rng.uniform(64 * (c + 3), 2.0));
            let mut states: Vec<Vector> = rows.iter().map(|_| rng.uniform((k - 1) * c, 2.0).into()).collect();
            let mut on_device: Vec<Vector> =
                states.iter().map(|state| cx.vector_to(Place::Device, state.clone())).collect();
            let (mut want, mut got) = (cx.mat(64, c), cx.mat_at(Place::Device, 64, c));
            let batch = rows.iter().cloned().zip(&mut states);
            causal_conv_silu(cx, x.view().slice_cols(1..c + 1), &conv, batch, &mut want);
            let [weight, bias] = [conv.weight, conv.bias].map(|part| cx.vector_to(Place::Device, part));
            let x = cx.mat_to(Place::Device, x);
            let batch = rows.iter().cloned().zip(&mut on_device);
            let conv = Conv { weight, bias };
            causal_conv_silu(cx, x.view().slice_cols(1..c + 1), &conv, batch, &mut got);
            let what = format!("c {c} k {k}");
            assert_same_bits(cx.mat_to(Place::Host, got).data(), want.data(), &what);
            for ((state, got), rows) in states.iter().zip(&on_device).zip(&rows) {
                assert_same_bits(&got.to_vec(), state, &format!("state of {rows:?}, {what}"));
            }
        }
    });
}
