//! Which distribution each parameter of a random model is drawn from.
//!
//! The recipe is that of the fixtures (`fixtures/gen/specs.py`). Matrices have variance gain² / inputs, so that
//! what goes through them keeps its size; every block adds a bounded amount to the residual stream and the norms
//! divide by what has accumulated, so activations stay finite at any depth. The spans of `A_log`, `dt_bias` and `D`
//! are wider than those of trained models, to reach all regimes of the recurrence: dt from 2e-5 to 2, decays from
//! none at all to total within one step.

use anyhow::Result;
use tangelo_formats::config::{Config, TensorSpec};

use super::values::{Values, fnv1a64};
use crate::weights::{Elements, Source};

/// How a matrix scales what goes through it, by the last part of its name without `.weight`.
const GAINS: [(&str, f64); 12] = [
    ("in_proj", 1.0),
    ("out_proj", 0.7),
    ("up_proj", 1.0),
    ("down_proj", 0.7),
    ("q_proj", 1.4),
    ("k_proj", 1.4),
    ("v_proj", 1.0),
    ("o_proj", 1.0),
    ("gate", 1.0),
    ("fc1_latent_proj", 1.0),
    ("fc2_latent_proj", 1.0),
    ("lm_head", 1.8),
];

/// A random model: its configuration and what its weights are derived from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The sizes.
    pub config: Config,
    /// First part of the name of every stream.
    pub name: String,
    /// Last parts of the names of parameters that are not rounded to BF16, such as `A_log`.
    pub f32_params: Vec<String>,
}

impl Recipe {
    /// Whether a parameter is kept in f32 where the others are rounded to BF16.
    pub fn is_f32(&self, name: &str) -> bool {
        self.f32_params
            .iter()
            .any(|suffix| name.strip_suffix(suffix.as_str()).is_some_and(|n| n.ends_with('.')))
    }

    /// The elements of a tensor of [`Config::tensors`].
    pub fn values(&self, spec: &TensorSpec) -> Values {
        let (centre, half_width) = distribution(spec);
        Values {
            stream: fnv1a64(&format!("{}/{}", self.name, spec.name)),
            centre,
            half_width,
            round_to_bf16: !self.is_f32(&spec.name),
        }
    }
}

impl Source for Recipe {
    fn config(&self) -> &Config {
        &self.config
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn elements(&self, spec: &TensorSpec) -> Result<Box<dyn Elements>> {
        Ok(Box::new(self.values(spec)))
    }
}

/// Centre and half width of a tensor's elements.
fn distribution(spec: &TensorSpec) -> (f64, f64) {
    let (stem, last) = spec.name.rsplit_once('.').unwrap_or(("", &spec.name));
    let module = stem.rsplit_once('.').map_or(stem, |(_, module)| module);
    match (module, last) {
        ("embeddings", _) => (0.0, 0.7 * 3f64.sqrt()),
        ("norm" | "norm_f", _) => (1.0, 0.5),
        ("conv1d", "weight") => (0.0, 0.9),
        ("conv1d", _) => (0.0, 0.3),
        (_, "dt_bias") => (-4.5, 4.5),
        (_, "A_log") => (1.0, 2.0),
        (_, "D") => (0.3, 0.9),
        (_, "e_score_correction_bias") => (0.0, 0.25),
        (_, "bias") => (0.0, 0.2),
        _ => {
            let gain = GAINS.iter().find(|(name, _)| *name == module).map_or(1.0, |(_, gain)| *gain);
            let inputs = spec.shape.last().copied().unwrap_or(1).max(1);
            (0.0, gain * 3f64.sqrt() / (inputs as f64).sqrt())
        }
    }
}

#[cfg(test)]
mod tests {
    use tangelo_formats::config::shapes;

    use super::*;

    #[test]
    fn every_parameter_of_every_shape_has_a_distribution_of_its_own() {
        for name in shapes::NAMES {
            for spec in shapes::named(name).expect("a shape").tensors() {
                let module = spec.name.trim_end_matches(".weight").rsplit('.').next().unwrap_or_default();
                let is_matrix = spec.shape.len() == 2 && module != "embeddings";
                assert!(
                    !is_matrix || GAINS.iter().any(|(name, _)| *name == module),
                    "{} has no gain of its own",
                    spec.name
                );
            }
        }
    }

    #[test]
    fn parameters_kept_in_f32_are_named_by_their_last_part() {
        let recipe = Recipe {
            config: shapes::named("nemotron-h-4b").expect("a shape"),
            name: "x".into(),
            f32_params: vec!["D".into(), "A_log".into()],
        };
        for (name, expected) in [
            ("backbone.layers.0.mixer.D", true),
            ("backbone.layers.0.mixer.A_log", true),
            ("backbone.layers.0.mixer.log", false),
            ("D", false),
        ] {
            assert_eq!(recipe.is_f32(name), expected, "{name}");
        }
    }
}
