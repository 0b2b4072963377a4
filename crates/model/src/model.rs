//! The stack of blocks and the one forward.

use crate::attention::Attention;
use crate::error::{Error, Result};
use crate::linear::{Embeddings, Linear};
use crate::load::Loader;
use crate::mamba2::{Mamba2, MambaState};
use crate::mlp::Mlp;
use crate::moe::Moe;
use crate::placement::Placement;
use crate::state::{LayerState, State};
use std::borrow::Cow;
use std::ops::Range;
use tangelo_core::TokenId;
use tangelo_formats::Checkpoint;
use tangelo_formats::config::{BlockKind, Config};
use tangelo_ops::attention::{KvCache, KvType};
use tangelo_ops::elementwise::{add, take_rows};
use tangelo_ops::rms_norm::{add_rms_norm, rms_norm};
use tangelo_ops::{Cx, Mat, Place, Vector};

/// A model in memory.
#[derive(Debug)]
pub struct Model {
    config: Config,
    fingerprint: [u8; 32],
    kv_type: KvType,
    placement: Placement,
    embeddings: Embeddings, // (vocabulary, d)
    layers: Vec<Layer>,
    norm_f: Vector,  // (d)
    lm_head: Linear, // d → vocabulary
}

#[derive(Debug)]
struct Layer {
    place: Place,
    norm: Vector, // (d)
    mixer: Mixer,
}

#[derive(Debug)]
enum Mixer {
    Mamba(Mamba2),
    Attention(Attention),
    Mlp(Mlp),
    Moe(Moe),
}

/// Which rows of logits a segment asks for; the others are not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// None: the call only advances the state.
    None,
    /// That of the last token.
    Last,
    /// One per token.
    All,
}

/// The next tokens of one sequence.
#[derive(Debug)]
pub struct Segment<'a> {
    /// Token ids; may be empty if no logits are asked for.
    pub tokens: &'a [TokenId],
    /// The state before these tokens; afterwards, the state after them.
    pub state: &'a mut State,
    /// Which logits to return.
    pub logits: LogitRows,
}

/// A point inside the forward, for looking at activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// The embedded tokens.
    Embeddings,
    /// The output of the mixer of a block.
    Mixer(usize),
    /// The residual stream after a block.
    Block(usize),
    /// The final norm.
    Norm,
}

impl Model {
    /// Finds and checks every tensor of the checkpoint, and copies the matrices into the form in which they are
    /// multiplied, with the threads of `cx`; to its GPU, if it has one.
    pub fn load(cx: &Cx, checkpoint: &Checkpoint) -> Result<Model> {
        Model::load_placed(cx, checkpoint, Placement::all_on(cx.best_place()))
    }

    /// [`Model::load`] with parts on the host and parts on the context's GPU.
    pub fn load_placed(cx: &Cx, checkpoint: &Checkpoint, placement: Placement) -> Result<Model> {
        let config = checkpoint.config().clone();
        let (d, vocab) = (config.hidden_size, config.vocab_size);
        let root = Loader::new(cx, checkpoint, "");
        let backbone = root.at("backbone");
        let embeddings = backbone.to(placement.embeddings).embeddings("embeddings", [vocab, d])?;
        let head = placement.head();
        // The largest matrix first: while it is copied, the least memory is taken by others.
        let tied = config.tie_word_embeddings && !root.at("lm_head").has("weight")?;
        let lm_head = match tied {
            true => backbone.to(head).linear("embeddings", [vocab, d], false)?,
            false => root.to(head).linear("lm_head", [vocab, d], false)?,
        };
        let layer = |(i, kind): (usize, &BlockKind)| {
            let place = placement.layer(i);
            Layer::load(&backbone.at("layers").at(i).to(place), &config, *kind, place)
        };
        let layers = config.blocks.iter().enumerate().map(layer).collect::<Result<Vec<Layer>>>()?;
        Ok(Model {
            lm_head,
            norm_f: backbone.to(head).at("norm_f").floats("weight", &[d])?,
            placement,
            fingerprint: checkpoint.fingerprint(),
            kv_type: KvType::default(),
            embeddings,
            layers,
            config,
        })
    }

    /// The model, but new states keep keys and values as `kv_type`. Loaded models keep them as f32.
    pub fn with_kv_type(self, kv_type: KvType) -> Model {
        Model { kv_type, ..self }
    }

    /// How new states keep keys and values.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Identity of the weights; a state belongs to the model it was made by.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// The state before the first token.
    pub fn new_state(&self) -> State {
        let mut state = State::new(&self.config, self.kv_type);
        for (layer, of_layer) in self.layers.iter().zip(&mut state.layers) {
            if let (Mixer::Mamba(mamba), LayerState::Mamba(state)) = (&layer.mixer, of_layer)
                && let Some(first) = mamba.first()
            {
                state.ssm = first.clone();
            }
        }
        state
    }

    /// Where its parts are.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Advances every segment's state by its tokens and returns the rows of logits asked for, in the order of the
    /// segments: (rows, vocabulary), where the head is.
    ///
    /// Segments share the work on weights and nothing else: each row is what it would be alone, bit for bit. The
    /// activations take about `tokens · (2i + f + …) · 4` bytes; callers cut long prompts into chunks.
    ///
    /// # Errors
    /// If a token is outside the vocabulary, or the last of no tokens is asked for; no state has changed then.
    pub fn forward(&self, cx: &Cx, segments: &mut [Segment<'_>]) -> Result<Mat> {
        self.forward_observed(cx, segments, &mut |_, _| {})
    }

    /// [`Model::forward`], showing activations (tokens of all segments, d) to `observe` on the way.
    pub fn forward_observed(
        &self,
        cx: &Cx,
        segments: &mut [Segment<'_>],
        observe: &mut dyn FnMut(Observed, &Mat),
    ) -> Result<Mat> {
        self.check(segments)?;
        for segment in segments.iter_mut() {
            segment.state.move_to(cx, self.placement);
        }
        let logits = match cx.gpu() {
            Some(gpu) if segments.iter().all(|segment| segment.tokens.len() == 1) => {
                gpu.record(|| self.run(cx, segments, observe))
            }
            _ => self.run(cx, segments, observe),
        };
        cx.check_gpu()?;
        Ok(logits)
    }

    fn run(&self, cx: &Cx, segments: &mut [Segment<'_>], observe: &mut dyn FnMut(Observed, &Mat)) -> Mat {
        let mut h = self.embeddings.lookup(cx, &tokens_of(segments)); // (l, d)
        let mut batch = Batch { segments };
        observe(Observed::Embeddings, &h);
        let eps = self.config.norm_eps;
        let mut normed = None; // that of h, where the step from the block before has computed it
        for (i, layer) in self.layers.iter().enumerate() {
            h = cx.mat_to(layer.place, h);
            let u = normed.take().unwrap_or_else(|| rms_norm(cx, h.view(), &layer.norm, eps));
            let y = layer.mixer.forward(cx, &u, &mut batch, i);
            observe(Observed::Mixer(i), &y);
            match self.layers.get(i + 1).filter(|next| next.place == layer.place) {
                Some(next) => normed = Some(add_rms_norm(cx, &mut h, &y, &next.norm, eps)),
                None => add(cx, &mut h, &y),
            }
            observe(Observed::Block(i), &h);
        }
        let h = take_rows(cx, h, batch.wanted());
        let h = cx.mat_to(self.placement.head(), h);
        batch.finish();
        let u = rms_norm(cx, h.view(), &self.norm_f, eps);
        observe(Observed::Norm, &u);
        self.lm_head.apply(cx, u.view())
    }

    fn check(&self, segments: &[Segment<'_>]) -> Result<()> {
        let vocab_size = self.config.vocab_size;
        for segment in segments {
            if let Some(&token) = segment.tokens.iter().find(|&&t| t as usize >= vocab_size) {
                return Err(Error::Token { token, vocab_size });
            }
            if segment.tokens.is_empty() && segment.logits == LogitRows::Last {
                return Err(Error::NoTokens);
            }
        }
        Ok(())
    }
}

impl Layer {
    fn load(at: &Loader<'_>, config: &Config, kind: BlockKind, place: Place) -> Result<Layer> {
        let (d, mixer) = (config.hidden_size, at.at("mixer"));
        Ok(Layer {
            place,
            norm: at.at("norm").floats("weight", &[d])?,
            mixer: match kind {
                BlockKind::Mamba => Mixer::Mamba(Mamba2::load(&mixer, d, &config.mamba, config.norm_eps)?),
                BlockKind::Attention => Mixer::Attention(Attention::load(&mixer, d, &config.attention)?),
                BlockKind::Mlp => {
                    Mixer::Mlp(Mlp::load(&mixer, d, config.mlp.intermediate_size, config.mlp.bias)?)
                }
                BlockKind::Moe => {
                    let moe = config.moe.as_ref().ok_or(Error::NoExperts)?;
                    Mixer::Moe(Moe::load(&mixer, d, moe, config.mlp.bias)?)
                }
            },
        })
    }
}

impl Mixer {
    /// (l, d) → (l, d).
    fn forward(&self, cx: &Cx, u: &Mat, batch: &mut Batch<'_, '_>, layer: usize) -> Mat {
        match self {
            Mixer::Mamba(mamba) => mamba.forward(cx, u, batch, layer),
            Mixer::Attention(attention) => attention.forward(cx, u, batch, layer),
            Mixer::Mlp(mlp) => mlp.forward(cx, u.view()),
            Mixer::Moe(moe) => moe.forward(cx, u),
        }
    }
}

/// The tokens of all segments; those of a single one, the usual case of decoding, where they are.
fn tokens_of<'t>(segments: &'t [Segment<'_>]) -> Cow<'t, [TokenId]> {
    match segments {
        [only] => Cow::Borrowed(only.tokens),
        _ => segments.iter().flat_map(|s| s.tokens.iter().copied()).collect(),
    }
}

/// The segments of a forward, laid one after the other in the rows of every activation.
pub(crate) struct Batch<'s, 'a> {
    segments: &'s mut [Segment<'a>],
}

impl<'s, 'a> Batch<'s, 'a> {
    /// Rows and states of all sequences in a Mamba layer.
    pub(crate) fn mamba(&mut self, layer: usize) -> impl Iterator<Item = (Range<usize>, &mut MambaState)> {
        self.states(layer).map(|(rows, state)| match state {
            LayerState::Mamba(state) => (rows, state),
            _ => unreachable!("State::new follows the blocks of the configuration"),
        })
    }

    /// Rows and caches of all sequences in an attention layer.
    pub(crate) fn attention(&mut self, layer: usize) -> impl Iterator<Item = (Range<usize>, &mut KvCache)> {
        self.states(layer).map(|(rows, state)| match state {
            LayerState::Attention(cache) => (rows, cache),
            _ => unreachable!("State::new follows the blocks of the configuration"),
        })
    }

    fn states(&mut self, layer: usize) -> impl Iterator<Item = (Range<usize>, &mut LayerState)> {
        let mut end = 0;
        let states = self.segments.iter_mut().map(move |segment| {
            let start = end;
            end += segment.tokens.len();
            (start..end, &mut segment.state.layers[layer])
        });
        states.filter(|(rows, _)| !rows.is_empty())
    }

    /// The rows whose logits are asked for.
    fn wanted(&self) -> impl Iterator<Item = usize> + Clone {
        let mut end = 0;
        self.segments.iter().flat_map(move |segment| {
            let start = end;
            end += segment.tokens.len();
            match segment.logits {
                LogitRows::None => end..end,
                LogitRows::Last => end - 1..end,
                LogitRows::All => start..end,
            }
        })
    }

    /// Advances the positions.
    fn finish(self) {
        for segment in self.segments {
            segment.state.position += segment.tokens.len();
        }
    }
}
