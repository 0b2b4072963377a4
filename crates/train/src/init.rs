//! Weights of a model that has learned nothing yet.
//!
//! Matrices are normal with variance 1 / inputs, those that write to the residual stream smaller by the root of the number
//! of blocks; embeddings have a deviation of 0.02·√50, near one per row of the first norm; the recurrence begins as in
//! Mamba-2: A from 1 to 16, dt from 0.001 to 0.1 on a logarithmic scale, D one.

use tangelo_formats::config::{Config, TensorSpec};

use crate::params::Params;
use tangelo_core::random::Random;

/// Parameters of a new model; they follow from the seed and the names of the tensors.
pub fn init(config: &Config, seed: u64) -> Params {
    let mut params = Params::default();
    for spec in config.tensors() {
        let data = values(config, &spec, &mut Random::new(seed).named(&spec.name));
        params.add(spec.name, &spec.shape, data);
    }
    params
}

fn values(config: &Config, spec: &TensorSpec, random: &mut Random) -> Vec<f32> {
    let len = spec.shape.iter().product();
    let (stem, last) = spec.name.rsplit_once('.').unwrap_or(("", &spec.name));
    let module = stem.rsplit_once('.').map_or(stem, |(_, module)| module);
    let mut each = |f: &mut dyn FnMut(&mut Random) -> f64| (0..len).map(|_| f(random) as f32).collect();
    let normal = |deviation: f64| move |random: &mut Random| random.normal() * deviation;
    let inputs = spec.shape.last().copied().unwrap_or(1).max(1) as f64;
    match (module, last) {
        ("norm" | "norm_f", _) | (_, "D") => vec![1.0; len],
        ("embeddings", _) => each(&mut normal(0.14)),
        ("conv1d", "weight") => each(&mut |random| (random.uniform() * 2.0 - 1.0) / inputs.sqrt()),
        (_, "A_log") => each(&mut |random| (1.0 + 15.0 * random.uniform()).ln()),
        (_, "dt_bias") => each(&mut |random| {
            let dt = (random.uniform() * (0.1f64.ln() - 0.001f64.ln()) + 0.001f64.ln()).exp();
            // The inverse of softplus.
            dt + (-(-dt).exp_m1()).ln()
        }),
        (_, "bias") => vec![0.0; len],
        ("out_proj" | "down_proj" | "o_proj", _) => {
            each(&mut normal((1.0 / inputs / config.blocks.len() as f64).sqrt()))
        }
        _ => each(&mut normal((1.0 / inputs).sqrt())),
    }
}
