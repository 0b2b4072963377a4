//! The model over its parameters: the forward of the model crate, block by block, on a tape.
//!
//! Legend: l tokens · d model width · i inner width of Mamba · h heads · g groups · n state width.

use std::ops::Range;
use std::rc::Rc;

use tangelo_formats::config::{BlockKind, Config};
use tangelo_ops::causal_conv::Conv;
use tangelo_ops::embedding::embed_backward;
use tangelo_ops::mamba2::Mixer;
use tangelo_ops::ssd::Ssd;
use tangelo_ops::{Cx, Mat, Vector, math};

use crate::adapter::{self, Adapter};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::nodes::MixerIds;
use crate::params::{Gradients, Lookup, ParamId, Params};
use crate::tape::{Tape, Var};

/// The parameters of a model by their parts.
#[derive(Debug, Clone)]
pub struct Network {
    config: Config,
    embeddings: ParamId, // (vocabulary, d)
    blocks: Vec<Block>,
    norm_f: ParamId,  // (d)
    lm_head: ParamId, // (vocabulary, d)
    /// Whether activations within a block are computed again on the way back instead of being kept.
    pub recompute: bool,
}

#[derive(Debug, Clone)]
struct Block {
    norm: ParamId, // (d)
    kind: Kind,
}

/// A projection.
#[derive(Debug, Clone, Copy)]
struct Linear {
    weight: ParamId,
    bias: Option<ParamId>,
    adapter: Option<Adapter>,
}

impl Linear {
    /// (l, in) → (l, out).
    fn apply(&self, tape: &Tape<'_>, x: Var) -> Var {
        let Some(adapter) = self.adapter else { return tape.linear(x, self.weight, self.bias) };
        let added = tape.linear_scaled(tape.linear(x, adapter.a, None), adapter.b, adapter.scale);
        match adapter.magnitude {
            None => tape.add(tape.linear(x, self.weight, self.bias), added),
            Some(m) => {
                let y = tape.add(tape.linear(x, self.weight, None), added);
                tape.scale_columns(y, m, adapter.row_lengths(tape.cx, tape.params, self.weight), self.bias)
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Kind {
    Mamba { in_proj: Linear, mixer: MixerIds, out_proj: Linear },
    Attention { q: Linear, k: Linear, v: Linear, o: Linear },
    Mlp { up: Linear, down: Linear },
}

/// Finds parameters below a prefix.
struct Finder<'a> {
    params: &'a Params,
    prefix: String,
    adapter: Option<&'a adapter::Settings>,
}

impl Finder<'_> {
    fn find(&self, name: &str) -> Option<ParamId> {
        self.params.find(&format!("{}.{name}", self.prefix))
    }

    /// One that the configuration names, so it is there.
    fn get(&self, name: &str) -> ParamId {
        self.find(name)
            .unwrap_or_else(|| panic!("{}.{name} is one of the configuration's tensors", self.prefix))
    }

    fn linear(&self, name: &str) -> Linear {
        let stem = format!("{}.{name}", self.prefix);
        let adapter = self.adapter.and_then(|settings| Adapter::find(self.params, &stem, settings));
        Linear {
            weight: self.get(&format!("{name}.weight")),
            bias: self.find(&format!("{name}.bias")),
            adapter,
        }
    }
}

impl Network {
    /// Finds the parts in `params`, which has the tensors of the configuration.
    ///
    /// # Errors
    /// If the model has blocks that cannot be trained.
    pub fn new(config: &Config, params: &Params) -> Result<Network> {
        Network::with_adapter(config, params, None)
    }

    /// [`Network::new`] with the adapter that has been added to `params`.
    ///
    /// # Errors
    /// As there.
    pub fn with_adapter(
        config: &Config,
        params: &Params,
        adapter: Option<&adapter::Settings>,
    ) -> Result<Network> {
        let root = Finder { params, prefix: "backbone".into(), adapter };
        let block = |(i, kind): (usize, &BlockKind)| {
            let at = Finder { params, prefix: format!("backbone.layers.{i}"), adapter };
            let mixer = Finder { params, prefix: format!("backbone.layers.{i}.mixer"), adapter };
            let kind = match kind {
                BlockKind::Mamba => Kind::Mamba {
                    in_proj: mixer.linear("in_proj"),
                    mixer: MixerIds {
                        conv: mixer.get("conv1d.weight"),
                        conv_bias: mixer.find("conv1d.bias"),
                        A_log: mixer.get("A_log"),
                        D: mixer.get("D"),
                        dt_bias: mixer.get("dt_bias"),
                        norm: mixer.get("norm.weight"),
                        initial: mixer.find("initial_state"),
                    },
                    out_proj: mixer.linear("out_proj"),
                },
                BlockKind::Attention => Kind::Attention {
                    q: mixer.linear("q_proj"),
                    k: mixer.linear("k_proj"),
                    v: mixer.linear("v_proj"),
                    o: mixer.linear("o_proj"),
                },
                BlockKind::Mlp => Kind::Mlp { up: mixer.linear("up_proj"), down: mixer.linear("down_proj") },
                BlockKind::Moe => {
                    return Err(Error::NotTrainable { what: "a mixture of experts".to_owned() });
                }
            };
            Ok(Block { norm: at.get("norm.weight"), kind })
        };
        let embeddings = root.get("embeddings.weight");
        Ok(Network {
            blocks: config.blocks.iter().enumerate().map(block).collect::<Result<Vec<Block>>>()?,
            embeddings,
            norm_f: root.get("norm_f.weight"),
            lm_head: params.find("lm_head.weight").unwrap_or(embeddings),
            config: config.clone(),
            recompute: false,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The residual stream after the last norm, (l, d).
    fn forward<'t>(&'t self, tape: &Tape<'t>, batch: &Batch) -> Var {
        let sequences: Rc<[Range<usize>]> = batch.sequences.as_slice().into();
        let mut h = tape.embed(self.embeddings, batch.tokens.as_slice().into());
        for block in &self.blocks {
            let sequences = Rc::clone(&sequences);
            let step = move |tape: &Tape<'t>, h: Var| {
                let u = tape.rms_norm(h, block.norm, self.config.norm_eps);
                let y = self.mixer(tape, &block.kind, u, &sequences);
                tape.add(h, y)
            };
            h = if self.recompute { tape.recomputed(h, step) } else { step(tape, h) };
        }
        tape.rms_norm(h, self.norm_f, self.config.norm_eps)
    }

    /// (l, d) → (l, d).
    fn mixer(&self, tape: &Tape<'_>, kind: &Kind, u: Var, sequences: &Rc<[Range<usize>]>) -> Var {
        let linear = |x: Var, layer: &Linear| layer.apply(tape, x);
        match kind {
            Kind::Mamba { in_proj, mixer, out_proj } => {
                let zxBCdt = linear(u, in_proj);
                let of_params = Rc::new(self.mixer_of(tape.params, mixer));
                let y = tape.mamba2(zxBCdt, *mixer, of_params, Rc::clone(sequences));
                linear(y, out_proj)
            }
            Kind::Attention { q, k, v, o } => {
                let qkv = [q, k, v].map(|layer| linear(u, layer));
                let y = tape.attention(qkv, self.config.attention.num_kv_heads, Rc::clone(sequences));
                linear(y, o)
            }
            Kind::Mlp { up, down } => linear(tape.relu2(linear(u, up)), down),
        }
    }

    fn mixer_of(&self, params: &Params, ids: &MixerIds) -> Mixer {
        let vector = |id: ParamId| Vector::from(params.get(id).data.clone());
        let mamba = &self.config.mamba;
        let bias = ids.conv_bias.map_or_else(|| vec![0.0; mamba.conv_size()].into(), vector);
        let conv = Conv { weight: vector(ids.conv), bias };
        let ssd = Ssd {
            A: A(&params.get(ids.A_log).data).into(),
            D: vector(ids.D),
            dt_bias: vector(ids.dt_bias),
            dt_limit: mamba.time_step_limit,
            num_groups: mamba.num_groups,
        };
        Mixer::new(conv, ssd, vector(ids.norm), self.config.norm_eps)
    }

    /// Puts adapters into the weights beside which they stand. The adapters stay, so a network without them must be made.
    pub fn merge(&self, cx: &Cx, params: &mut Params) {
        let layers = self.blocks.iter().flat_map(|block| match &block.kind {
            Kind::Mamba { in_proj, out_proj, .. } => vec![in_proj, out_proj],
            Kind::Attention { q, k, v, o } => vec![q, k, v, o],
            Kind::Mlp { up, down } => vec![up, down],
        });
        for layer in layers {
            if let Some(adapter) = layer.adapter {
                let merged = adapter.merged(cx, params, layer.weight);
                params.get_mut(layer.weight).data = merged;
            }
        }
    }

    /// Logits of every token, (l, vocabulary).
    pub fn logits(&self, cx: &Cx, params: &Params, batch: &Batch) -> Mat {
        let tape = Tape::new(cx, params);
        let h = self.forward(&tape, batch);
        let logits = tape.linear(h, self.lm_head, None);
        let value = tape.value(logits);
        drop(tape);
        Rc::into_inner(value).expect("nobody else has it")
    }

    /// The losses of the targets that weigh something, in nats, in their order.
    pub fn losses(&self, cx: &Cx, params: &Params, batch: &Batch) -> Vec<f32> {
        let tape = Tape::new(cx, params);
        let h = self.forward(&tape, batch);
        tape.linear_cross_entropy(h, self.lm_head, &batch.targets, None).0
    }

    /// [`Network::losses`], adding the gradient of their weighted sum. After the last batch of a step,
    /// [`Network::complete`] must follow.
    pub fn add_gradients(
        &self,
        cx: &Cx,
        params: &Params,
        batch: &Batch,
        gradients: &mut Gradients,
    ) -> Vec<f32> {
        let tape = Tape::new(cx, params);
        let h = self.forward(&tape, batch);
        let (losses, dh) = tape.linear_cross_entropy(h, self.lm_head, &batch.targets, Some(gradients));
        tape.backward(h, dh, gradients, None);
        losses
    }

    /// Completes gradients once for all tokens: what was looked up in tables is added to theirs, and of A = −exp(A_log) is
    /// made that of A_log.
    pub fn complete(&self, params: &Params, gradients: &mut Gradients) {
        for Lookup { table, ids, rows } in gradients.take_lookups() {
            if let Some(gradient) = gradients.of_mut(table) {
                embed_backward(
                    &ids,
                    &Mat::from_vec(ids.len(), rows.len() / ids.len().max(1), rows),
                    gradient,
                );
            }
        }
        for block in &self.blocks {
            let Kind::Mamba { mixer, .. } = &block.kind else { continue };
            if let Some(gradient) = gradients.of_mut(mixer.A_log) {
                let A = A(&params.get(mixer.A_log).data);
                gradient.iter_mut().zip(A).for_each(|(g, A)| *g *= A);
            }
        }
    }
}

/// −exp(A_log), as the model crate computes it.
fn A(A_log: &[f32]) -> Vec<f32> {
    A_log.iter().map(|a| -math::exp(*a)).collect()
}
