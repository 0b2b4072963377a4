//! Mamba-2 mixer (Dao & Gu 2024, arXiv 2405.21060, sections 6 and 7).
//!
//! A, B, C, D and dt are the paper's. A = −exp(A_log) is computed when loading; GGUF files store A itself.

use crate::error::Result;
use crate::linear::Linear;
use crate::load::Loader;
use crate::model::Batch;
use tangelo_formats::config::MambaConfig;
use tangelo_ops::causal_conv::Conv;
use tangelo_ops::mamba2::{Mixer, mamba2};
use tangelo_ops::ssd::Ssd;
use tangelo_ops::{Cx, Mat, Place, Vector, math};

/// What one sequence remembers of one Mamba layer.
#[derive(Clone, Debug, PartialEq)]
pub struct MambaState {
    /// (k − 1, i + 2·g·n): the last inputs of the convolution, oldest first.
    pub conv: Vector,
    /// (h, p, n): the recurrent state.
    pub ssm: Vector,
}

impl MambaState {
    /// The state before the first token.
    pub(crate) fn new(config: &MambaConfig) -> MambaState {
        MambaState {
            conv: vec![0.0; (config.conv_kernel - 1) * config.conv_size()].into(),
            ssm: vec![0.0; config.inner_size() * config.state_size].into(),
        }
    }

    /// Moves both parts.
    pub(crate) fn move_to(&mut self, cx: &Cx, place: Place) {
        for part in [&mut self.conv, &mut self.ssm] {
            if part.place() != place {
                *part = cx.vector_to(place, std::mem::take(part));
            }
        }
    }
}

/// The mixer of an `M` block.
#[derive(Debug)]
pub(crate) struct Mamba2 {
    in_proj: Linear,  // d → i + (i + 2·g·n) + h
    mixer: Mixer,     // i + (i + 2·g·n) + h → i
    out_proj: Linear, // i → d
    /// (h, p, n): what sequences begin with, where an adapter has learned it; else zeros.
    first: Option<Vector>,
}

impl Mamba2 {
    pub(crate) fn load(at: &Loader<'_>, d: usize, config: &MambaConfig, eps: f32) -> Result<Mamba2> {
        let (i, h, channels) = (config.inner_size(), config.num_heads, config.conv_size());
        let ssd = Ssd {
            A: load_A(at, h)?,
            D: at.floats("D", &[h])?,
            dt_bias: at.floats("dt_bias", &[h])?,
            dt_limit: config.time_step_limit,
            num_groups: config.num_groups,
        };
        let conv = load_conv(&at.at("conv1d"), channels, config.conv_kernel, config.conv_bias)?;
        let norm = at.at("norm").floats("weight", &[i])?; // (i)
        Ok(Mamba2 {
            in_proj: at.linear("in_proj", [config.in_proj_size(), d], config.proj_bias)?,
            mixer: Mixer::new(conv, ssd, norm, eps),
            out_proj: at.linear("out_proj", [d, i], config.proj_bias)?,
            first: at.first_state(),
        })
    }

    /// The recurrent state that sequences begin with, if it is not zero.
    pub(crate) fn first(&self) -> Option<&Vector> {
        self.first.as_ref()
    }

    /// (l, d) → (l, d), advancing the state of every sequence of the batch by its rows.
    pub(crate) fn forward(&self, cx: &Cx, u: &Mat, batch: &mut Batch<'_, '_>, layer: usize) -> Mat {
        let zxBCdt = self.in_proj.apply(cx, u.view()); // (l, 2i + 2gn + h)
        let states = batch.mamba(layer).map(|(rows, state)| (rows, &mut state.conv, &mut state.ssm));
        let y = mamba2(cx, &self.mixer, zxBCdt.view(), states); // (l, i)
        self.out_proj.apply(cx, y.view())
    }
}

fn load_A(at: &Loader<'_>, h: usize) -> Result<Vector> {
    if at.has("A")? {
        return at.floats("A", &[h]);
    }
    Ok(at.placed(at.host_floats("A_log", &[h])?.iter().map(|a| -math::exp(*a)).collect()))
}

/// Checkpoints store (c, 1, k); the operation wants taps outermost.
fn load_conv(at: &Loader<'_>, c: usize, k: usize, bias: bool) -> Result<Conv> {
    let stored = at.host_floats("weight", &[c, 1, k])?;
    let weight = (0..k).flat_map(|tap| (0..c).map(move |channel| (channel, tap)));
    let weight = at.placed(weight.map(|(channel, tap)| stored[channel * k + tap]).collect());
    let bias = if bias { at.floats("bias", &[c])? } else { at.placed(vec![0.0; c]) };
    Ok(Conv { weight, bias })
}
