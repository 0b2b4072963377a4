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

/// Rows of embeddings shorter than this are taken for unused.
const SHORT: f64 = 1e-4;

/// Gives embeddings of almost no length, which published models have for tokens that never occurred, the length of the others
/// and a random direction: the first norm divides by their length, so that one of them in a batch would make the gradient
/// explode. NVIDIA's recipes for the 4B repair the same rows. Returns how many there were.
pub fn repair_embeddings(params: &mut Params, seed: u64) -> usize {
    let Some(id) = params.find("backbone.embeddings.weight") else { return 0 };
    let [_, d] = params.get(id).matrix();
    let length = |row: &[f32]| row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    let lengths: Vec<f64> = params.get(id).data.chunks_exact(d).map(length).collect();
    let (used, sum) =
        lengths.iter().filter(|l| **l >= SHORT).fold((0usize, 0.0), |(n, sum), l| (n + 1, sum + l));
    if used == 0 || used == lengths.len() {
        return 0;
    }
    let deviation = sum / used as f64 / (d as f64).sqrt();
    let random = Random::new(seed).named("embeddings");
    for (row, _) in lengths.iter().enumerate().filter(|(_, l)| **l < SHORT) {
        let mut random = random.named(&row.to_string());
        let row = &mut params.get_mut(id).data[row * d..][..d];
        row.iter_mut().for_each(|x| *x = (random.normal() * deviation) as f32);
    }
    lengths.len() - used
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_without_length_get_that_of_the_others() {
        let mut params = Params::default();
        let mut rows = vec![0.5f32; 4 * 16];
        rows[16..32].fill(0.0);
        rows[48..].fill(1e-6);
        let id = params.add("backbone.embeddings.weight", &[4, 16], rows.clone());
        assert_eq!(repair_embeddings(&mut params, 7), 2);
        let data = params.get(id).data.clone();
        assert_eq!((&data[..16], &data[32..48]), (&rows[..16], &rows[32..48]));
        for row in [&data[16..32], &data[48..]] {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((1.0..3.5).contains(&length), "{length}");
        }
        assert_eq!(repair_embeddings(&mut params, 7), 0, "there is nothing left to repair");
        assert_eq!(params.get(id).data, data);
    }
}
