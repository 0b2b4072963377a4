//! Adapters: few parameters beside frozen ones.
//!
//! LoRA (Hu et al. 2021, arXiv 2106.09685) adds a product of two thin matrices to a projection; DoRA (Liu et al. 2024, arXiv
//! 2402.09353) learns the lengths of its rows besides; state tuning learns the recurrent state that sequences begin with.
//!
//! ```text
//! LoRA: y = x · (W + s·B·A)ᵀ                      A (r, in), B (out, r), s = α / r
//! DoRA: y = x · (diag(m / ‖V‖) · V)ᵀ, V = W + s·B·A    m (out), ‖V‖ the lengths of rows, held fixed on the way back
//! ```

use serde::{Deserialize, Serialize};
use tangelo_core::random::Random;
use tangelo_formats::config::Config;
use tangelo_ops::Cx;
use tangelo_ops::matmul::{Factor, add_product};

use crate::error::{Error, Result};
use crate::params::{ParamId, Params};

/// The projections of a dense hybrid model, of all kinds of block.
pub const PROJECTIONS: [&str; 8] =
    ["in_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"];

/// What is learned beside a frozen model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// r; 0 for no matrices.
    pub rank: usize,
    /// α.
    pub alpha: f64,
    /// Whether the lengths of rows are learned too.
    pub dora: bool,
    /// Which projections, by name.
    pub targets: Vec<String>,
    /// Whether the first recurrent states are learned.
    pub state: bool,
    /// Seed of the first weights.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        let targets = PROJECTIONS.map(str::to_owned).to_vec();
        Settings { rank: 8, alpha: 16.0, dora: false, targets, state: false, seed: 0 }
    }
}

/// The parameters beside one projection.
#[derive(Debug, Clone, Copy)]
pub struct Adapter {
    /// (r, in).
    pub a: ParamId,
    /// (out, r).
    pub b: ParamId,
    /// (out), for DoRA.
    pub magnitude: Option<ParamId>,
    /// s.
    pub scale: f32,
}

/// How much of a kind of projection is adapted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// The projection.
    pub name: &'static str,
    /// How many the model has.
    pub present: usize,
    /// How many are adapted.
    pub adapted: usize,
    /// Parameters that learn beside them.
    pub parameters: usize,
}

/// The part of a weight's name before `.weight`, if it is a projection of one of these names.
pub(crate) fn projection<'n>(name: &'n str, targets: &[String]) -> Option<&'n str> {
    let stem = name.strip_suffix(".weight")?;
    let last = stem.rsplit('.').next()?;
    targets.iter().any(|target| target == last).then_some(stem)
}

/// Freezes all parameters and adds those of the adapter, which change nothing yet: B is zero, m is what the lengths are.
///
/// # Errors
/// If a target is no projection, or nothing would be learned.
pub fn add(config: &Config, params: &mut Params, settings: &Settings) -> Result<()> {
    let problem = |problem: String| Err(Error::Recipe { problem });
    if let Some(target) = settings.targets.iter().find(|target| !PROJECTIONS.contains(&target.as_str())) {
        return problem(format!(
            "`adapter.targets` has `{target}`; projections are {}",
            PROJECTIONS.join(", ")
        ));
    }
    params.ids().for_each(|id| params.get_mut(id).is_trained = false);
    let weights: Vec<ParamId> = params.ids().collect();
    let before = weights.len();
    for id in weights.iter().copied().filter(|_| settings.rank > 0) {
        let name = params.get(id).name.clone();
        let Some(stem) = projection(&name, &settings.targets) else { continue };
        let [rows, cols] = params.get(id).matrix();
        let mut random = Random::new(settings.seed).named(stem);
        let deviation = (1.0 / cols as f64).sqrt();
        let a = (0..settings.rank * cols).map(|_| (random.normal() * deviation) as f32).collect();
        params.add(format!("{stem}.lora_A.weight"), &[settings.rank, cols], a);
        params.add(format!("{stem}.lora_B.weight"), &[rows, settings.rank], vec![0.0; rows * settings.rank]);
        if settings.dora {
            let lengths = lengths(&params.get(id).data, cols);
            params.add(format!("{stem}.lora_magnitude_vector"), &[rows], lengths);
        }
    }
    if settings.state {
        let mamba = &config.mamba;
        let size = mamba.inner_size() * mamba.state_size;
        for id in weights {
            let name = params.get(id).name.clone();
            if let Some(mixer) = name.strip_suffix(".A_log") {
                params.add(format!("{mixer}.initial_state"), &[size], vec![0.0; size]);
            }
        }
    }
    match params.ids().len() > before {
        true => Ok(()),
        false => {
            problem("`adapter` adapts nothing: give it a `rank` and `targets`, or `state = true`".into())
        }
    }
}

/// What an adapter covers, one line per kind of projection.
pub fn coverage(params: &Params) -> Vec<Coverage> {
    let of = |name: &'static str| {
        let mut coverage = Coverage { name, present: 0, adapted: 0, parameters: 0 };
        for (_, param) in params.iter() {
            if projection(&param.name, &[name.to_owned()]).is_some() {
                coverage.present += 1;
            }
            if let Some((stem, kind)) = param.name.split_once(".lora_")
                && stem.rsplit('.').next() == Some(name)
            {
                coverage.adapted += usize::from(kind == "A.weight");
                coverage.parameters += param.data.len();
            }
        }
        coverage
    };
    PROJECTIONS.map(of).into_iter().filter(|coverage| coverage.present > 0).collect()
}

/// The lengths of the rows of a matrix.
fn lengths(data: &[f32], cols: usize) -> Vec<f32> {
    let length = |row: &[f32]| row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
    data.chunks_exact(cols).map(length).collect()
}

impl Adapter {
    /// That beside the projection `stem`, if there is one.
    pub fn find(params: &Params, stem: &str, settings: &Settings) -> Option<Adapter> {
        Some(Adapter {
            a: params.find(&format!("{stem}.lora_A.weight"))?,
            b: params.find(&format!("{stem}.lora_B.weight"))?,
            magnitude: params.find(&format!("{stem}.lora_magnitude_vector")),
            scale: (settings.alpha / settings.rank.max(1) as f64) as f32,
        })
    }

    /// V = W + s·B·A.
    fn sum(&self, cx: &Cx, params: &Params, weight: ParamId) -> Vec<f32> {
        let param = params.get(weight);
        let [rows, cols] = param.matrix();
        let rank = params.get(self.a).shape[0];
        let scaled: Vec<f32> = params.get(self.b).data.iter().map(|b| b * self.scale).collect();
        let mut sum = param.data.clone();
        let a = Factor::new(&params.get(self.a).data, rank, cols);
        add_product(cx, Factor::new(&scaled, rows, rank), a, &mut sum);
        sum
    }

    /// The lengths of the rows of V.
    pub(crate) fn row_lengths(&self, cx: &Cx, params: &Params, weight: ParamId) -> Vec<f32> {
        lengths(&self.sum(cx, params, weight), params.get(weight).matrix()[1])
    }

    /// The weight that does what projection and adapter do together.
    pub fn merged(&self, cx: &Cx, params: &Params, weight: ParamId) -> Vec<f32> {
        let mut sum = self.sum(cx, params, weight);
        let cols = params.get(weight).matrix()[1];
        if let Some(magnitude) = self.magnitude {
            let lengths = lengths(&sum, cols);
            let factor = |(m, length): (&f32, f32)| if length > 0.0 { m / length } else { 0.0 };
            let factors = params.get(magnitude).data.iter().zip(lengths).map(factor);
            sum.chunks_exact_mut(cols).zip(factors).for_each(|(row, f)| row.iter_mut().for_each(|x| *x *= f));
        }
        sum
    }
}
