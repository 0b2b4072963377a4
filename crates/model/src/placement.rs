//! Which parts of a model are on the context's GPU, and what that takes.
//!
//! The layers from some layer on, with the final norm and the head: so activations cross over once per forward. The table
//! of embeddings is looked up, not multiplied, and stays on the host before any layer has to.

use crate::state::State;
use tangelo_formats::config::{BlockKind, Config};
use tangelo_formats::{Adapter, Checkpoint};
use tangelo_ops::Place;
use tangelo_ops::attention::{KvType, PAGE};

/// Where the parts of a model are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Layers before this one are on the host; the others, the final norm and the head on the device. `None` if
    /// nothing is there.
    pub first_on_device: Option<usize>,
    /// Where the table of embeddings is.
    pub embeddings: Place,
}

impl Placement {
    /// Everything in one place.
    pub fn all_on(place: Place) -> Placement {
        let first_on_device = (place == Place::Device).then_some(0);
        Placement { first_on_device, embeddings: place }
    }

    /// Where a layer is.
    pub fn layer(self, layer: usize) -> Place {
        match self.first_on_device {
            Some(first) if layer >= first => Place::Device,
            _ => Place::Host,
        }
    }

    /// Where the final norm and the head are.
    pub fn head(self) -> Place {
        self.layer(usize::MAX)
    }
}

/// What the parts of a model take on a device, in bytes, for one sequence of `context` tokens read `chunk` at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Weights and state of each layer.
    layers: Vec<Bytes>,
    /// The final norm and the head.
    head: u64,
    /// The table of embeddings.
    embeddings: u64,
    /// Activations.
    scratch: u64,
}

/// What a layer, or all of a device, takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Of weights.
    pub weights: u64,
    /// Of the memory of one sequence.
    pub state: u64,
    /// Of activations.
    pub scratch: u64,
}

impl Bytes {
    /// All together.
    pub fn total(self) -> u64 {
        self.weights + self.state + self.scratch
    }
}

impl Demand {
    /// What the model of a checkpoint takes.
    pub fn of(checkpoint: &Checkpoint, kv_type: KvType, context: usize, chunk: usize) -> Demand {
        let config = checkpoint.config();
        let state = |kind: &BlockKind| match kind {
            BlockKind::Mamba => State::bytes_fixed(config) / config.num_blocks(BlockKind::Mamba),
            BlockKind::Attention => {
                let per_token =
                    State::bytes_per_token(config, kv_type) / config.num_blocks(BlockKind::Attention);
                per_token * context.next_multiple_of(PAGE)
            }
            BlockKind::Mlp | BlockKind::Moe => 0,
        };
        let layer = |kind| Bytes { state: state(kind) as u64, ..Bytes::default() };
        let mut demand = Demand {
            layers: config.blocks.iter().map(layer).collect(),
            head: 0,
            embeddings: 0,
            scratch: scratch_bytes(config, chunk.min(context)),
        };
        for entry in checkpoint.tensors() {
            let bytes = entry.bytes.len() as u64;
            let layer = entry.name.strip_prefix("backbone.layers.").and_then(|rest| rest.split('.').next());
            match layer.and_then(|layer| demand.layers.get_mut(layer.parse::<usize>().ok()?)) {
                Some(layer) => layer.weights += bytes,
                None if entry.name.starts_with("backbone.embeddings") => demand.embeddings += bytes,
                None => demand.head += bytes,
            }
        }
        for (stem, bytes) in checkpoint.adapter().into_iter().flat_map(Adapter::bytes) {
            let layer = stem.strip_prefix("backbone.layers.").and_then(|rest| rest.split('.').next());
            match layer.and_then(|layer| demand.layers.get_mut(layer.parse::<usize>().ok()?)) {
                Some(layer) => layer.weights += bytes,
                None => demand.head += bytes,
            }
        }
        if config.tie_word_embeddings {
            demand.head += demand.embeddings;
        }
        demand
    }

    /// What a device holds under a placement.
    pub fn on_device(&self, placement: Placement) -> Bytes {
        let Some(first) = placement.first_on_device else { return Bytes::default() };
        let mut sum = Bytes { weights: self.head, state: 0, scratch: self.scratch };
        for layer in &self.layers[first.min(self.layers.len())..] {
            sum.weights += layer.weights;
            sum.state += layer.state;
        }
        if placement.embeddings == Place::Device {
            sum.weights += self.embeddings;
        }
        sum
    }

    /// The placement that leaves least on the host within `budget` bytes of a device.
    pub fn fit(&self, budget: u64) -> Placement {
        let embedded = Placement::all_on(Place::Device);
        let without = |first| Placement { first_on_device: Some(first), embeddings: Place::Host };
        let candidates = [embedded].into_iter().chain((0..=self.layers.len()).map(without));
        let fits = |placement: &Placement| self.on_device(*placement).total() <= budget;
        candidates.into_iter().find(fits).unwrap_or(Placement::all_on(Place::Host))
    }
}

/// Bytes of activations at most alive at one time in a forward of `tokens` tokens: the residual stream, what a mixer reads,
/// makes and returns, and the 8-bit form of what is multiplied; and one row of logits.
fn scratch_bytes(config: &Config, tokens: usize) -> u64 {
    let (d, mamba) = (config.hidden_size, &config.mamba);
    let widest = |kind: &BlockKind| match kind {
        BlockKind::Mamba => mamba.in_proj_size() + mamba.conv_size() + 3 * mamba.inner_size(),
        BlockKind::Attention => 3 * config.attention.q_size() + 2 * config.attention.kv_size(),
        BlockKind::Mlp => 2 * config.mlp.intermediate_size,
        BlockKind::Moe => config.moe.as_ref().map_or(0, |moe| 2 * moe.shared_intermediate_size + 4 * d),
    };
    let mixer = config.blocks.iter().map(widest).max().unwrap_or(0);
    ((tokens * (4 * d + mixer) + 2 * config.vocab_size) * size_of::<f32>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_stays_on_the_host_embeddings_first() {
        let layer = |weights| Bytes { weights, state: 10, scratch: 0 };
        let demand = Demand { layers: vec![layer(100), layer(200)], head: 50, embeddings: 40, scratch: 7 };
        let all = Placement::all_on(Place::Device);
        assert_eq!(demand.on_device(all), Bytes { weights: 390, state: 20, scratch: 7 });
        let first = |budget| {
            let placement = demand.fit(budget);
            (placement.first_on_device, placement.embeddings)
        };
        assert_eq!(first(417), (Some(0), Place::Device));
        assert_eq!(first(416), (Some(0), Place::Host));
        assert_eq!(first(376), (Some(1), Place::Host));
        assert_eq!(first(57), (Some(2), Place::Host), "the head alone");
        assert_eq!(first(56), (None, Place::Host));
        assert_eq!(demand.on_device(demand.fit(56)).total(), 0);
    }
}
