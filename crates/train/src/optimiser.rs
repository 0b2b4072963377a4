//! Optimisers: AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) and, for the matrices within blocks, Muon (Jordan et al.
//! 2024; scaled as in arXiv 2502.16982).
//!
//! ```text
//! AdamW: m ← β₁m + (1 − β₁)g;  v ← β₂v + (1 − β₂)g²;  w ← w − lr · (m̂ / (√v̂ + ε) + λw)
//! Muon:  m ← μm + g;  w ← w − lr · (0.2 · √max(rows, cols) · orthogonal(g + μm) + λw)
//! ```
//!
//! Weights decay where they are matrices that are multiplied; norms, biases, embeddings, adapters and the scalars of a
//! recurrence do not.

use serde::{Deserialize, Serialize};
use tangelo_ops::Cx;
use tangelo_ops::matmul::{Factor, add_product};

use crate::params::{Gradients, Param, ParamId, Params};

/// Which optimiser.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// For every parameter.
    #[default]
    AdamW,
    /// For the matrices within blocks; AdamW for the others.
    Muon,
}

/// How weights are changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which optimiser.
    pub method: Method,
    /// Learning rate at the top of the schedule. Muon's updates are as large as AdamW's, so both take this one.
    pub lr: f64,
    /// β₁ and β₂ of AdamW.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// μ of Muon.
    pub momentum: f64,
    /// λ.
    pub weight_decay: f64,
    /// Longest gradient; a longer one is scaled down. 0 for none.
    pub clip: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            method: Method::default(),
            lr: 1e-3,
            betas: [0.9, 0.95],
            eps: 1e-8,
            momentum: 0.95,
            weight_decay: 0.1,
            clip: 1.0,
        }
    }
}

/// Moments of every parameter that learns, and how many steps they have seen.
#[derive(Debug)]
pub struct Optimiser {
    settings: Settings,
    /// Number of steps.
    pub steps: u64,
    /// First moments, or Muon's momentum.
    pub first: Vec<Vec<f32>>,
    /// Second moments; empty where Muon needs none.
    pub second: Vec<Vec<f32>>,
}

impl Optimiser {
    /// Without moments yet.
    pub fn new(settings: Settings, params: &Params) -> Optimiser {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for (_, param) in params.iter() {
            let len = if param.is_trained { param.data.len() } else { 0 };
            first.push(vec![0.0; len]);
            second.push(vec![0.0; if uses_muon(&settings, param) { 0 } else { len }]);
        }
        Optimiser { settings, steps: 0, first, second }
    }

    /// Goes on with another learning rate and decay of weights.
    pub fn set_rates(&mut self, lr: f64, weight_decay: f64) {
        (self.settings.lr, self.settings.weight_decay) = (lr, weight_decay);
    }

    /// Changes the weights. `lr_share` is the part of the learning rate that the schedule gives. Returns the length of the
    /// gradient before it was clipped; if that is not finite, nothing is changed.
    pub fn step(&mut self, cx: &Cx, params: &mut Params, gradients: &mut Gradients, lr_share: f64) -> f64 {
        let norm = gradients.norm();
        if !norm.is_finite() {
            return norm;
        }
        if self.settings.clip > 0.0 && norm > self.settings.clip {
            gradients.scale((self.settings.clip / norm) as f32);
        }
        self.steps += 1;
        let lr = self.settings.lr * lr_share;
        for (at, id) in params.ids().enumerate() {
            let param = params.get(id);
            if !param.is_trained {
                continue;
            }
            let decay = if is_decayed(param) { (lr * self.settings.weight_decay) as f32 } else { 0.0 };
            if uses_muon(&self.settings, param) {
                muon(cx, &self.settings, lr, decay, (params, id), gradients.of(id), &mut self.first[at]);
            } else {
                let moments = (&mut self.first[at][..], &mut self.second[at][..]);
                adamw(
                    &self.settings,
                    self.steps,
                    lr,
                    decay,
                    &mut params.get_mut(id).data,
                    gradients.of(id),
                    moments,
                );
            }
        }
        norm
    }
}

fn uses_muon(settings: &Settings, param: &Param) -> bool {
    settings.method == Method::Muon && is_decayed(param)
}

/// Whether it is a matrix that is multiplied.
fn is_decayed(param: &Param) -> bool {
    param.shape.len() == 2 && param.name.contains(".mixer.") && !param.name.contains(".lora_")
}

fn adamw(
    settings: &Settings,
    steps: u64,
    lr: f64,
    decay: f32,
    data: &mut [f32],
    gradient: &[f32],
    (first, second): (&mut [f32], &mut [f32]),
) {
    let [b1, b2] = settings.betas;
    let steps = i32::try_from(steps).unwrap_or(i32::MAX);
    // The corrections of both moments, and the learning rate, in two factors.
    let root = (1.0 - b2.powi(steps)).sqrt();
    let rate = (lr * root / (1.0 - b1.powi(steps))) as f32;
    let eps = (settings.eps * root) as f32;
    let (b1, b2) = (b1 as f32, b2 as f32);
    for (((w, g), m), v) in data.iter_mut().zip(gradient).zip(first).zip(second) {
        *m = b1 * *m + (1.0 - b1) * g;
        *v = b2 * *v + (1.0 - b2) * g * g;
        *w -= rate * *m / (v.sqrt() + eps) + decay * *w;
    }
}

fn muon(
    cx: &Cx,
    settings: &Settings,
    lr: f64,
    decay: f32,
    (params, id): (&mut Params, ParamId),
    gradient: &[f32],
    first: &mut [f32],
) {
    let mu = settings.momentum as f32;
    let mut update: Vec<f32> = first
        .iter_mut()
        .zip(gradient)
        .map(|(m, g)| {
            *m = mu * *m + g;
            g + mu * *m
        })
        .collect();
    let [rows, cols] = params.get(id).matrix();
    orthogonalise(cx, &mut update, rows, cols);
    let rate = (lr * 0.2 * (rows.max(cols) as f64).sqrt()) as f32;
    for (w, u) in params.get_mut(id).data.iter_mut().zip(update) {
        *w -= rate * u + decay * *w;
    }
}

/// Coefficients of the quintic iteration that brings singular values near one.
const NEWTON_SCHULZ: [f32; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;

/// Brings the singular values of a matrix near one, by X ← aX + (bA + cA²)X with A = XXᵀ.
fn orthogonalise(cx: &Cx, x: &mut Vec<f32>, rows: usize, cols: usize) {
    let is_tall = rows > cols;
    let [a, b, c] = NEWTON_SCHULZ;
    let length = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32 + 1e-7;
    x.iter_mut().for_each(|x| *x /= length);
    // The smaller of the two products of the matrix with itself.
    let small = rows.min(cols);
    for _ in 0..ITERATIONS {
        let of_x = Factor::new(x, rows, cols);
        let mut square = vec![0.0; small * small];
        match is_tall {
            true => add_product(cx, of_x.transposed(), of_x, &mut square),
            false => add_product(cx, of_x, of_x.transposed(), &mut square),
        }
        let of_square = Factor::new(&square, small, small);
        let mut polynomial: Vec<f32> = vec![0.0; small * small];
        add_product(cx, of_square, of_square, &mut polynomial);
        polynomial.iter_mut().zip(&square).for_each(|(p, s)| *p = b * s + c * *p);
        let polynomial = Factor::new(&polynomial, small, small);
        let mut next: Vec<f32> = x.iter().map(|x| a * x).collect();
        match is_tall {
            true => add_product(cx, of_x, polynomial, &mut next),
            false => add_product(cx, polynomial, of_x, &mut next),
        }
        *x = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tangelo_ops::Simd;

    #[test]
    fn adamw_takes_the_steps_of_the_paper() {
        let settings = Settings { lr: 0.1, weight_decay: 0.5, ..Settings::default() };
        let (mut w, mut m, mut v) = (2.0f64, 0.0f64, 0.0f64);
        let (mut data, mut first, mut second) = (vec![2.0f32], vec![0.0], vec![0.0]);
        for step in 1..=20 {
            let g = (f64::from(step) * 0.7).sin();
            m = 0.9 * m + 0.1 * g;
            v = 0.95 * v + 0.05 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(step)), v / (1.0 - 0.95f64.powi(step)));
            w -= 0.1 * (m_hat / (v_hat.sqrt() + 1e-8) + 0.5 * w);
            let moments = (&mut first[..], &mut second[..]);
            adamw(&settings, step as u64, 0.1, 0.05, &mut data, &[g as f32], moments);
            assert!((w - f64::from(data[0])).abs() < 1e-5, "step {step}: {} instead of {w}", data[0]);
        }
    }

    #[test]
    fn orthogonalised_matrices_have_singular_values_near_one() {
        let cx = Cx::new(2, Simd::best()).expect("available");
        for (rows, cols) in [(8, 8), (5, 20), (40, 12)] {
            let mut x: Vec<f32> = (0..rows * cols).map(|i| ((i * i * 7 + i) % 13) as f32 - 6.0).collect();
            orthogonalise(&cx, &mut x, rows, cols);
            // The squares of singular values are the eigenvalues of the smaller product; their mean is its trace.
            let small = rows.min(cols) as f32;
            let trace: f32 = x.iter().map(|x| x * x).sum();
            assert!((0.4..1.5).contains(&(trace / small)), "{rows} x {cols}: {}", trace / small);
        }
    }
}
