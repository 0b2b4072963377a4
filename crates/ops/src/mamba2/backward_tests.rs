//! Gradients of the mixer against central differences of its formulas in f64.

use super::*;
use crate::ssd::SsdGradients;
use crate::testing::{Rng, assert_gradient, assert_same_bits, on_every_simd};

/// The mixer in f64, from the formulas: Σ of its output times `dout`.
fn in_f64(of: &Sizes, sequences: &[Range<usize>], dout: &[f32], zxBCdt: &[f64], p: &Parameters<f64>) -> f64 {
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let (i, gn, c) = (of.h * of.p, of.g * of.n, of.h * of.p + 2 * of.g * of.n);
    let width = i + c + of.h;
    let mut total = 0.0;
    for rows in sequences {
        let mut state = p.initial.clone();
        for t in rows.clone() {
            let at = |t: usize, col: usize| zxBCdt[t * width + col];
            let conv = |ch: usize| {
                let taps = (0..of.k).filter(|j| t + j + 1 >= of.k + rows.start);
                silu(
                    p.conv_bias[ch]
                        + taps.map(|j| p.conv[j * c + ch] * at(t + j + 1 - of.k, i + ch)).sum::<f64>(),
                )
            };
            let xBC: Vec<f64> = (0..c).map(conv).collect();
            let mut u = vec![0.0; i];
            for head in 0..of.h {
                let dt = (1.0 + (at(t, i + c + head) + p.dt_bias[head]).exp())
                    .ln()
                    .clamp(of.limit.0.into(), of.limit.1.into());
                let (a, group) = ((dt * p.A[head]).exp(), head / (of.h / of.g) * of.n);
                for col in head * of.p..(head + 1) * of.p {
                    let s = &mut state[col * of.n..(col + 1) * of.n];
                    let mut y = p.D[head] * xBC[col];
                    for n in 0..of.n {
                        s[n] = a * s[n] + dt * xBC[col] * xBC[i + group + n];
                        y += s[n] * xBC[i + gn + group + n];
                    }
                    u[col] = y * silu(at(t, col));
                }
            }
            for (g, u) in u.chunks_exact(i / of.g).enumerate() {
                let r = 1.0 / (u.iter().map(|u| u * u).sum::<f64>() / u.len() as f64 + 1e-5).sqrt();
                for (j, u) in (g * u.len()..).zip(u) {
                    total += u * r * p.norm[j] * f64::from(dout[t * i + j]);
                }
            }
        }
    }
    total
}

struct Sizes {
    h: usize,
    p: usize,
    g: usize,
    n: usize,
    k: usize,
    limit: (f32, f32),
}

#[derive(Clone)]
struct Parameters<T> {
    conv: Vec<T>,
    conv_bias: Vec<T>,
    A: Vec<T>,
    D: Vec<T>,
    dt_bias: Vec<T>,
    norm: Vec<T>,
    initial: Vec<T>,
}

impl Parameters<f32> {
    fn random(of: &Sizes, rng: &mut Rng) -> Parameters<f32> {
        let (i, c) = (of.h * of.p, of.h * of.p + 2 * of.g * of.n);
        Parameters {
            conv: rng.uniform(of.k * c, 0.7),
            conv_bias: rng.uniform(c, 0.5),
            A: rng.uniform(of.h, 1.0).iter().map(|a| -0.2 - a.abs()).collect(),
            D: rng.uniform(of.h, 1.0),
            dt_bias: rng.uniform(of.h, 1.0),
            norm: rng.uniform(i, 1.0),
            initial: rng.uniform(i * of.n, 0.5),
        }
    }

    fn wide(&self) -> Parameters<f64> {
        let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect();
        Parameters {
            conv: wide(&self.conv),
            conv_bias: wide(&self.conv_bias),
            A: wide(&self.A),
            D: wide(&self.D),
            dt_bias: wide(&self.dt_bias),
            norm: wide(&self.norm),
            initial: wide(&self.initial),
        }
    }

    fn zeros(&self) -> Parameters<f32> {
        let zeros = |x: &[f32]| vec![0.0; x.len()];
        Parameters {
            conv: zeros(&self.conv),
            conv_bias: zeros(&self.conv_bias),
            A: zeros(&self.A),
            D: zeros(&self.D),
            dt_bias: zeros(&self.dt_bias),
            norm: zeros(&self.norm),
            initial: zeros(&self.initial),
        }
    }

    fn mixer(&self, of: &Sizes) -> Mixer {
        let conv = Conv { weight: self.conv.clone().into(), bias: self.conv_bias.clone().into() };
        let ssd = Ssd {
            A: self.A.clone().into(),
            D: self.D.clone().into(),
            dt_bias: self.dt_bias.clone().into(),
            dt_limit: of.limit,
            num_groups: of.g,
        };
        Mixer::new(conv, ssd, self.norm.clone().into(), 1e-5)
    }

    /// The gradient of zxBCdt, and those of the parameters in `self`.
    fn backward(
        &mut self,
        cx: &Cx,
        (of, parameters): (&Sizes, &Parameters<f32>),
        sequences: &[Range<usize>],
        [zxBCdt, dout]: [&Mat; 2],
    ) -> Mat {
        let ssd = SsdGradients { dA: &mut self.A, dD: &mut self.D, ddt_bias: &mut self.dt_bias };
        let gradients = MixerGradients {
            dconv: &mut self.conv,
            dconv_bias: &mut self.conv_bias,
            ssd,
            dnorm: &mut self.norm,
        };
        let initial = Vector::from(parameters.initial.clone());
        let first = Some((&initial, &mut self.initial[..]));
        let mixer = parameters.mixer(of);
        let mut states: Vec<(Vector, Vector)> =
            sequences.iter().map(|_| (mixer.first_conv_state(), mixer.first_state(Some(&initial)))).collect();
        let with_states =
            sequences.iter().cloned().zip(&mut states).map(|(rows, (conv, ssm))| (rows, conv, ssm));
        let (_, between) = mamba2_kept(cx, &mixer, zxBCdt.view(), with_states);
        let input = (zxBCdt.view(), &between);
        mamba2_backward(cx, &mixer, input, sequences, dout.view(), gradients, first)
    }
}

#[test]
fn gradients_are_central_differences() {
    let small = Sizes { h: 4, p: 3, g: 2, n: 5, k: 4, limit: (0.0, f32::INFINITY) };
    let wide = Sizes { h: 1, p: 2, g: 1, n: 40, k: 4, limit: (0.0, f32::INFINITY) };
    let even = Sizes { h: 2, p: 4, g: 1, n: 32, k: 3, limit: (0.3, 1.5) };
    on_every_simd(|cx, rng| {
        for of in [&small, &wide, &even] {
            // One of the sequences is longer than the stride between kept states.
            let (l, sequences) = (44, [0..3, 3..4, 4..44]);
            let i = of.h * of.p;
            let width = 2 * i + 2 * of.g * of.n + of.h;
            let parameters = Parameters::random(of, rng);
            let (zxBCdt, dout) = (rng.uniform(l * width, 1.5), rng.uniform(l * i, 1.0));
            let mut gradients = parameters.zeros();
            let input = [&Mat::from_vec(l, width, zxBCdt.clone()), &Mat::from_vec(l, i, dout.clone())];
            let dzxBCdt = gradients.backward(cx, (of, &parameters), &sequences, input);
            let (at, wide) = (zxBCdt.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>(), parameters.wide());
            let f = |p: &Parameters<f64>| in_f64(of, &sequences, &dout, &at, p);
            assert_gradient(|x| in_f64(of, &sequences, &dout, x, &wide), &zxBCdt, dzxBCdt.data(), "zxBCdt");
            macro_rules! check {
                ($($name:ident),*) => {$(
                    let of_one = |x: &[f64]| f(&Parameters { $name: x.to_vec(), ..wide.clone() });
                    assert_gradient(of_one, &parameters.$name, &gradients.$name, stringify!($name));
                )*};
            }
            check!(conv, conv_bias, A, D, dt_bias, norm, initial);
        }
    });
}

#[test]
fn gradients_do_not_depend_on_how_sequences_are_batched() {
    let of = Sizes { h: 4, p: 8, g: 2, n: 16, k: 4, limit: (0.0, f32::INFINITY) };
    on_every_simd(|cx, rng| {
        let (l, i) = (60, of.h * of.p);
        let width = 2 * i + 2 * of.g * of.n + of.h;
        let parameters = Parameters::random(&of, rng);
        let (zxBCdt, dout) = (rng.uniform(l * width, 1.5), rng.uniform(l * i, 1.0));
        let sequences = [0..17, 17..20, 20..60];
        let mut at_once = parameters.zeros();
        let input = [&Mat::from_vec(l, width, zxBCdt.clone()), &Mat::from_vec(l, i, dout.clone())];
        let whole = at_once.backward(cx, (&of, &parameters), &sequences, input);
        let (mut one_by_one, mut rows_of_all) = (parameters.zeros(), Vec::new());
        for rows in &sequences {
            let part = |x: &[f32], cols: usize| {
                Mat::from_vec(rows.len(), cols, x[rows.start * cols..rows.end * cols].to_vec())
            };
            let input = [&part(&zxBCdt, width), &part(&dout, i)];
            let alone = 0..rows.len();
            let alone = one_by_one.backward(cx, (&of, &parameters), std::slice::from_ref(&alone), input);
            rows_of_all.extend_from_slice(alone.data());
        }
        assert_same_bits(&rows_of_all, whole.data(), "zxBCdt");
        assert_same_bits(&one_by_one.conv, &at_once.conv, "conv");
        assert_same_bits(&one_by_one.A, &at_once.A, "A");
        assert_same_bits(&one_by_one.dt_bias, &at_once.dt_bias, "dt_bias");
        assert_same_bits(&one_by_one.norm, &at_once.norm, "norm");
        assert_same_bits(&one_by_one.initial, &at_once.initial, "initial");
    });
}
