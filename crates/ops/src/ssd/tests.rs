//! Every implementation against the reference level, cut at every place, and the reference against f64.

use super::*;
use crate::device::{Mat, Place};
use crate::dispatch::Simd;
use crate::testing::{Rng, assert_same_bits, on_every_simd, on_gpu};

struct Case {
    ssd: Ssd,
    x: Mat,
    dt: Mat,
    b: Mat,
    c: Mat,
    n: usize,
}

impl Case {
    fn new(rng: &mut Rng, l: usize, h: usize, p: usize, groups: usize, n: usize) -> Case {
        let ssd = Ssd {
            A: rng.uniform(h, 1.0).iter().map(|a| -(a * 2.0).exp()).collect(),
            D: rng.uniform(h, 1.0).into(),
            dt_bias: rng.uniform(h, 4.0).into(),
            dt_limit: (0.01, 2.0),
            num_groups: groups,
        };
        let mut mat = |cols: usize, scale| Mat::from_vec(l, cols, rng.uniform(l * cols, scale));
        Case { ssd, x: mat(h * p, 2.0), dt: mat(h, 2.0), b: mat(groups * n, 1.0), c: mat(groups * n, 1.0), n }
    }

    /// y and the final state, running the tokens in two calls.
    fn run(&self, cx: &Cx, cut: usize) -> (Vec<f32>, Vec<f32>) {
        let (l, inner) = (self.x.rows(), self.x.cols());
        let mut state = Vector::from(vec![0.0; inner * self.n]);
        let mut y = Mat::from_vec(l, inner, vec![0.0; l * inner]);
        for rows in [0..cut, cut..l] {
            ssd(cx, &self.ssd, self.input(), [(rows, &mut state)], &mut y);
        }
        (y.data().to_vec(), state.to_vec())
    }

    fn input(&self) -> SsdInput<'_> {
        SsdInput { x: self.x.view(), dt: self.dt.view(), B: self.b.view(), C: self.c.view() }
    }
}

#[test]
fn any_cut_on_any_implementation_equals_the_reference() {
    let reference = Cx::new(1, Simd::Reference).expect("always available");
    on_every_simd(|cx, rng| {
        for n in [1, 15, 16, 24, 33, 64, 128, 256] {
            let case = Case::new(rng, 39, 6, 3, 3, n);
            let (y, state) = case.run(&reference, 0);
            for cut in (0..=5).chain([16, 17, 38, 39]) {
                let (got_y, got_state) = case.run(cx, cut);
                assert_same_bits(&got_y, &y, &format!("y, n {n} cut {cut} {}", cx.simd()));
                assert_same_bits(&got_state, &state, &format!("state, n {n} cut {cut} {}", cx.simd()));
            }
        }
    });
}

#[test]
fn a_batch_is_each_alone() {
    on_every_simd(|cx, rng| {
        let case = Case::new(rng, 40, 6, 3, 3, 20);
        let (inner, rows) = (case.x.cols(), [0..7, 7..8, 8..8, 8..9, 9..40]);
        let mut states = vec![Vector::from(vec![0.0; inner * case.n]); rows.len()];
        let mut y = Mat::from_vec(40, inner, vec![0.0; 40 * inner]);
        let batch = rows.iter().cloned().zip(states.iter_mut());
        ssd(cx, &case.ssd, case.input(), batch, &mut y);
        for (rows, state) in rows.iter().zip(&states) {
            let mut alone = Vector::from(vec![0.0; inner * case.n]);
            let mut y_alone = Mat::from_vec(40, inner, vec![0.0; 40 * inner]);
            ssd(cx, &case.ssd, case.input(), [(rows.clone(), &mut alone)], &mut y_alone);
            assert_same_bits(state, &alone, &format!("state of {rows:?}, {}", cx.simd()));
            for t in rows.clone() {
                assert_same_bits(y.row(t), y_alone.row(t), &format!("y of {rows:?}, {}", cx.simd()));
            }
        }
    });
}

#[test]
fn reference_is_the_recurrence() {
    let (l, h, p, groups, n) = (7, 4, 2, 2, 5);
    let case = Case::new(&mut Rng::new(4), l, h, p, groups, n);
    let (y, state) = case.run(&Cx::new(1, Simd::Reference).expect("always available"), 3);
    let wide = |x: f32| f64::from(x);
    let mut s = vec![0.0f64; h * p * n];
    for t in 0..l {
        for head in 0..h {
            let g = head / (h / groups);
            let raw = wide(case.dt.row(t)[head]) + wide(case.ssd.dt_bias[head]);
            let delta = raw.exp().ln_1p().clamp(wide(0.01f32), 2.0);
            for row in head * p..(head + 1) * p {
                let x = wide(case.x.row(t)[row]);
                let mut sum = wide(case.ssd.D[head]) * x;
                for i in 0..n {
                    let at = &mut s[row * n + i];
                    *at = (delta * wide(case.ssd.A[head])).exp() * *at
                        + delta * x * wide(case.b.row(t)[g * n + i]);
                    sum += wide(case.c.row(t)[g * n + i]) * *at;
                }
                let got = wide(y[t * h * p + row]);
                assert!((got - sum).abs() < 1e-5, "t {t} row {row}: {got} {sum}");
            }
        }
    }
    assert!(state.iter().zip(&s).all(|(a, b)| (wide(*a) - b).abs() < 1e-5));
}

impl Case {
    fn into_device(self, cx: &Cx) -> Case {
        let [A, D, dt_bias] =
            [self.ssd.A, self.ssd.D, self.ssd.dt_bias].map(|part| cx.vector_to(Place::Device, part));
        let [x, dt, b, c] = [self.x, self.dt, self.b, self.c].map(|mat| cx.mat_to(Place::Device, mat));
        Case { ssd: Ssd { A, D, dt_bias, ..self.ssd }, x, dt, b, c, n: self.n }
    }

    /// As `run`, with ragged batches instead of a cut.
    fn run_batches(&self, cx: &Cx, place: Place, batches: &[&[Range<usize>]]) -> (Vec<f32>, Vec<Vector>) {
        let (l, inner) = (self.x.rows(), self.x.cols());
        let zeros = || cx.vector_to(place, Vector::from(vec![0.0; inner * self.n]));
        let mut states: Vec<Vector> = batches[0].iter().map(|_| zeros()).collect();
        let mut y = cx.mat_at(place, l, inner);
        for batch in batches {
            ssd(cx, &self.ssd, self.input(), batch.iter().cloned().zip(&mut states), &mut y);
        }
        (cx.mat_to(Place::Host, y).data().to_vec(), states)
    }
}

#[test]
fn a_device_equals_the_host() {
    on_gpu(|cx, rng| {
        // Tokens of three sequences in two calls: cuts within a tile, at one, and of nothing.
        let batches: [&[Range<usize>]; 2] = [&[0..1, 1..18, 18..18], &[34..50, 50..51, 18..34]];
        let any = [1, 15, 16, 24, 33, 64, 128, 256].map(|n| (6, 3, 3, n));
        // Groups of several slices, of a slice that is not full, of several heads in a slice; heads over two slices.
        let in_registers = [(4, 40, 2, 128), (3, 80, 1, 64), (6, 8, 3, 128), (2, 72, 1, 256), (2, 4, 1, 256)];
        for (h, p, groups, n) in any.into_iter().chain(in_registers) {
            let case = Case::new(rng, 51, h, p, groups, n);
            let (y, states) = case.run_batches(cx, Place::Host, &batches);
            let (got_y, got_states) = case.into_device(cx).run_batches(cx, Place::Device, &batches);
            let what = format!("h {h} p {p} g {groups} n {n}");
            assert_same_bits(&got_y, &y, &format!("y, {what}"));
            for (got, state) in got_states.iter().zip(&states) {
                assert_same_bits(&got.to_vec(), state, &format!("state, {what}"));
            }
        }
    });
}
