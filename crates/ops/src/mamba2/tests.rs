//! The composition against the three operations on one sequence after the other, and a device against the host.

use super::*;
use crate::device::Place;
use crate::testing::{Rng, assert_same_bits, on_every_simd, on_gpu};

/// (h, p, g, n, k).
type Shape = (usize, usize, usize, usize, usize);

fn mixer(cx: &Cx, rng: &mut Rng, place: Place, (h, p, g, n, k): Shape) -> Mixer {
    let (i, c) = (h * p, h * p + 2 * g * n);
    let mut vector = |len, scale| cx.vector_to(place, rng.uniform(len, scale).into());
    let conv = Conv { weight: vector(k * c, 1.0), bias: vector(c, 0.5) };
    let (D, dt_bias, norm) = (vector(h, 1.0), vector(h, 4.0), vector(i, 1.0));
    let A = rng.uniform(h, 1.0).iter().map(|a| -(a * 2.0).exp()).collect();
    let ssd = Ssd { A: cx.vector_to(place, A), D, dt_bias, dt_limit: (0.01, 2.0), num_groups: g };
    Mixer::new(conv, ssd, norm, 1e-5)
}

/// The states of `count` sequences: (convolution, recurrence).
fn states(rng: &mut Rng, count: usize, (h, p, g, n, k): Shape) -> Vec<(Vector, Vector)> {
    let mut state =
        || (rng.uniform((k - 1) * (h * p + 2 * g * n), 2.0).into(), rng.uniform(h * p * n, 1.0).into());
    (0..count).map(|_| state()).collect()
}

fn input(rng: &mut Rng, l: usize, (h, p, g, n, _): Shape) -> Mat {
    let cols = 2 * h * p + 2 * g * n + h;
    Mat::from_vec(l, cols, rng.uniform(l * cols, 2.0))
}

/// Sequences of these many rows, one after the other.
fn batch<'a>(
    lengths: &'a [usize],
    states: &'a mut [(Vector, Vector)],
) -> impl Iterator<Item = (Range<usize>, &'a mut Vector, &'a mut Vector)> {
    let mut end = 0;
    lengths.iter().zip(states).map(move |(length, (conv, ssm))| {
        end += length;
        (end - length..end, conv, ssm)
    })
}

#[test]
fn a_batch_is_each_alone() {
    let (shape, lengths) = ((4, 5, 2, 6, 4), (0..20).map(|i| i % 4).collect::<Vec<_>>());
    let l = lengths.iter().sum();
    on_every_simd(|cx, rng| {
        let mixer = mixer(cx, rng, Place::Host, shape);
        let (x, before) = (input(rng, l, shape), states(rng, lengths.len(), shape));
        let mut after = before.clone();
        let got = mamba2(cx, &mixer, x.view(), batch(&lengths, &mut after));
        let mut start = 0;
        for ((&length, (mut conv, mut ssm)), after) in lengths.iter().zip(before).zip(after) {
            let rows = x.view().slice_rows(start..start + length);
            let want = mamba2(cx, &mixer, rows, [(0..length, &mut conv, &mut ssm)]);
            for t in 0..length {
                assert_same_bits(got.row(start + t), want.row(t), &format!("row {t} of {length}"));
            }
            assert_same_bits(&after.0, &conv, "convolution");
            assert_same_bits(&after.1, &ssm, "recurrence");
            start += length;
        }
    });
}

/// Calls on the same sequences, each given by the sequences' numbers of tokens, on the host and on the device.
fn assert_a_device_equals_the_host(cx: &Cx, rng: &mut Rng, shape: Shape, calls: &[Vec<usize>]) {
    let seed = rng.next();
    let [host, device] =
        [Place::Host, Place::Device].map(|place| mixer(cx, &mut Rng::new(seed), place, shape));
    let mut want_states = states(rng, calls[0].len(), shape);
    let to_device = |part: &Vector| cx.vector_to(Place::Device, part.clone());
    let mut got_states: Vec<_> =
        want_states.iter().map(|(conv, ssm)| (to_device(conv), to_device(ssm))).collect();
    for (call, lengths) in calls.iter().enumerate() {
        let x = input(rng, lengths.iter().sum(), shape);
        let want = mamba2(cx, &host, x.view(), batch(lengths, &mut want_states));
        let x = cx.mat_to(Place::Device, x);
        let got = mamba2(cx, &device, x.view(), batch(lengths, &mut got_states));
        let what = format!("{shape:?} call {call}");
        assert_same_bits(cx.mat_to(Place::Host, got).data(), want.data(), &what);
        for (i, (got, want)) in got_states.iter().zip(&want_states).enumerate() {
            assert_same_bits(&got.0.to_vec(), &want.0, &format!("convolution {i}, {what}"));
            assert_same_bits(&got.1.to_vec(), &want.1, &format!("recurrence {i}, {what}"));
        }
    }
}

#[test]
fn a_device_equals_the_host_for_few_tokens() {
    on_gpu(|cx, rng| {
        // Heads across slices, odd widths, one group, convolutions of every width, a group beyond a piece of the norm.
        let shapes = [
            (4, 40, 2, 64, 4),
            (3, 33, 3, 128, 1),
            (30, 5, 1, 128, 2),
            (2, 16, 2, 256, 3),
            (2, 8, 1, 128, 7),
            (1, 2100, 1, 64, 4),
        ];
        for shape in shapes {
            let calls = [vec![1, 2], vec![4, 0], vec![3, 1]];
            assert_a_device_equals_the_host(cx, rng, shape, &calls);
        }
    });
}

#[test]
fn a_device_equals_the_host_for_many_sequences() {
    on_gpu(|cx, rng| {
        let few = [vec![1; 20], (0..20).map(|i| i % 5).collect(), vec![1; 20]];
        assert_a_device_equals_the_host(cx, rng, (4, 12, 2, 64, 4), &few);
        let mut many: Vec<usize> = (0..20).map(|i| i % 3).collect();
        many[18] = 21;
        assert_a_device_equals_the_host(cx, rng, (4, 16, 2, 64, 4), &[vec![1; 20], many.clone()]);
        assert_a_device_equals_the_host(cx, rng, (4, 3, 2, 10, 4), &[vec![1; 20], many]);
    });
}

#[test]
fn a_device_equals_the_host_for_prompts() {
    on_gpu(|cx, rng| {
        for shape in [(4, 40, 2, 128, 4), (2, 8, 1, 256, 2), (6, 3, 3, 33, 3), (2, 24, 1, 64, 1)] {
            let calls = [vec![40, 1], vec![1, 1], vec![2, 17], vec![5, 0]];
            assert_a_device_equals_the_host(cx, rng, shape, &calls);
        }
    });
}
