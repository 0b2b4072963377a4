//! The memory of one sequence: a state of constant size per Mamba layer and a growing cache per attention layer.
//!
//! A state is a value. Cloning it forks the sequence (recurrent parts are copied, full pages of the cache are
//! shared), keeping a clone allows going back to it, and [`State::tensors`] turns it into named arrays that
//! [`State::from_tensors`] turns back, bit for bit.

use crate::error::{Error, Result};
use crate::mamba2::MambaState;
use crate::placement::Placement;
use tangelo_formats::config::{BlockKind, Config};
use tangelo_ops::attention::{Elements, KvCache, KvType};
use tangelo_ops::{Cx, Place};

/// What one block remembers.
#[derive(Clone, Debug)]
pub enum LayerState {
    /// Convolution inputs and recurrent state.
    Mamba(MambaState),
    /// Keys and values of all positions.
    Attention(KvCache),
    /// MLP and mixture blocks remember nothing.
    Stateless,
}

/// What a sequence has in memory after its first `position` tokens.
#[derive(Clone, Debug)]
pub struct State {
    pub(crate) layers: Vec<LayerState>,
    pub(crate) position: usize,
}

/// A part of a state as a named array: `layers.{i}.conv` (k − 1, i + 2·g·n), `layers.{i}.ssm` (h, p, n),
/// `layers.{i}.k` and `layers.{i}.v` (position, K, D).
#[derive(Clone, Debug, PartialEq)]
pub struct StateTensor {
    /// Unique in the state.
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    /// As many elements as the shape says: those of `k` and `v` in the type of the cache, the others f32.
    pub data: Elements,
}

impl State {
    /// The state before the first token, which is to keep keys and values as `kv_type`.
    pub fn new(config: &Config, kv_type: KvType) -> State {
        let layer = |kind: &BlockKind| match kind {
            BlockKind::Mamba => LayerState::Mamba(MambaState::new(&config.mamba)),
            BlockKind::Attention => LayerState::Attention(KvCache::new(
                config.attention.num_kv_heads,
                config.attention.head_dim,
                kv_type,
            )),
            BlockKind::Mlp | BlockKind::Moe => LayerState::Stateless,
        };
        State { layers: config.blocks.iter().map(layer).collect(), position: 0 }
    }

    /// Moves its parts to where the layers of a model are. A new state, and one from a file, is on the host.
    pub(crate) fn move_to(&mut self, cx: &Cx, placement: Placement) {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            match layer {
                LayerState::Mamba(state) => state.move_to(cx, placement.layer(i)),
                LayerState::Attention(cache) => cache.move_to(cx, placement.layer(i)),
                LayerState::Stateless => {}
            }
        }
    }

    /// Whether a part is on a device.
    pub fn is_on_device(&self) -> bool {
        self.layers.iter().any(|layer| match layer {
            LayerState::Mamba(state) => state.ssm.place() == Place::Device,
            LayerState::Attention(cache) => cache.place() == Place::Device,
            LayerState::Stateless => false,
        })
    }

    /// Number of tokens this state has seen.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The parts, one per block.
    pub fn layers(&self) -> &[LayerState] {
        &self.layers
    }

    /// Bytes held, counting shared pages in full.
    pub fn bytes(&self) -> usize {
        let layer = |layer: &LayerState| match layer {
            LayerState::Mamba(state) => (state.conv.len() + state.ssm.len()) * size_of::<f32>(),
            LayerState::Attention(cache) => cache.bytes(),
            LayerState::Stateless => 0,
        };
        self.layers.iter().map(layer).sum()
    }

    /// Bytes of the parts that do not grow.
    pub fn bytes_fixed(config: &Config) -> usize {
        let mamba = &config.mamba;
        let scalars = mamba.inner_size() * mamba.state_size + (mamba.conv_kernel - 1) * mamba.conv_size();
        config.num_blocks(BlockKind::Mamba) * scalars * size_of::<f32>()
    }

    /// Bytes per token of the parts that grow (they grow by pages of 64 tokens).
    pub fn bytes_per_token(config: &Config, kv_type: KvType) -> usize {
        config.num_blocks(BlockKind::Attention) * 2 * config.attention.kv_size() * kv_type.bytes()
    }

    /// All parts as named arrays.
    pub fn tensors(&self, config: &Config) -> Vec<StateTensor> {
        let mamba = &config.mamba;
        let mut tensors = Vec::new();
        let mut push = |layer: usize, part: &str, shape: Vec<usize>, data: Elements| {
            tensors.push(StateTensor { name: format!("layers.{layer}.{part}"), shape, data });
        };
        for (i, layer) in self.layers.iter().enumerate() {
            match layer {
                LayerState::Mamba(state) => {
                    push(
                        i,
                        "conv",
                        vec![mamba.conv_kernel - 1, mamba.conv_size()],
                        Elements::F32(state.conv.to_vec()),
                    );
                    let shape = vec![mamba.num_heads, mamba.head_dim, mamba.state_size];
                    push(i, "ssm", shape, Elements::F32(state.ssm.to_vec()));
                }
                LayerState::Attention(cache) => {
                    let shape = vec![self.position, cache.num_kv_heads(), cache.head_dim()];
                    let (keys, values) = cache.elements();
                    push(i, "k", shape.clone(), keys);
                    push(i, "v", shape, values);
                }
                LayerState::Stateless => {}
            }
        }
        tensors
    }

    /// The inverse of [`State::tensors`] of a state that keeps keys and values as `kv_type`: `take` hands over the
    /// data of a named array.
    pub fn from_tensors(
        config: &Config,
        kv_type: KvType,
        position: usize,
        mut take: impl FnMut(&str) -> Option<Elements>,
    ) -> Result<State> {
        let mut state = State::new(config, kv_type);
        let mut part = |layer: usize, name: &str, kv_type: KvType, len: usize| {
            let name = format!("layers.{layer}.{name}");
            let data = take(&name).ok_or_else(|| Error::State { what: format!("{name} is missing") })?;
            if (data.kv_type(), data.len()) != (kv_type, len) {
                let found = format!("{} elements of {}", data.len(), data.kv_type());
                let what = format!("{name} has {found} instead of {len} of {kv_type}");
                return Err(Error::State { what });
            }
            Ok(data)
        };
        for (i, layer) in state.layers.iter_mut().enumerate() {
            match layer {
                LayerState::Mamba(state) => {
                    for (name, floats) in [("conv", &mut state.conv), ("ssm", &mut state.ssm)] {
                        if let Elements::F32(data) = part(i, name, KvType::F32, floats.len())? {
                            *floats = data.into();
                        }
                    }
                }
                LayerState::Attention(cache) => {
                    let width = cache.num_kv_heads() * cache.head_dim();
                    let len = position.checked_mul(width);
                    let len = len.ok_or_else(|| Error::State { what: format!("position {position}") })?;
                    let keys = part(i, "k", kv_type, len)?;
                    cache.append_elements(&keys, &part(i, "v", kv_type, len)?);
                }
                LayerState::Stateless => {}
            }
        }
        state.position = position;
        Ok(state)
    }
}
