//! What a model takes on a device, and how much of it goes there, before anything is loaded.
//!
//! Without a device in the machine the needs are still known, and with `--vram-budget` how much of the model would go to
//! one that has so much memory.

use anyhow::{Result, ensure};
use tangelo_formats::Checkpoint;
use tangelo_model::{Bytes, Demand, Placement};
use tangelo_ops::Place;
use tangelo_ops::attention::KvType;
use tangelo_ops::cuda::Properties;

use crate::args::CHUNK_TOKENS_GPU;
use crate::commands::logits::parse_chunk;
use crate::device::{Device, DeviceArgs, context_planned, parse_size};

/// Options about the device; all but the first need it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OffloadArgs {
    /// Show what the model takes on a GPU too: auto, cpu (none is looked for), cuda or cuda:N
    #[arg(long, value_name = "DEVICE", num_args = 0..=1, default_missing_value = "auto", conflicts_with = "shape")]
    device: Option<Device>,
    /// Memory of the GPU that may be used, such as 6GiB
    #[arg(long, value_name = "SIZE", requires = "device", value_parser = parse_size)]
    vram_budget: Option<u64>,
    /// Tokens of context that there must be room for [default: 8192]
    #[arg(long, value_name = "N", requires = "device", value_parser = parse_chunk)]
    context: Option<usize>,
    /// Prompt tokens given to the model at a time
    #[arg(long, value_name = "N", requires = "device", default_value_t = CHUNK_TOKENS_GPU, value_parser = parse_chunk)]
    chunk: usize,
    /// Type of the cached keys and values
    #[arg(long, value_name = "TYPE", requires = "device", default_value_t, value_parser = crate::args::kv_parser())]
    kv: KvType,
}

/// The facts.
#[derive(Clone, Debug)]
pub struct Offload {
    /// The device and its bytes that are free; `None` if there is none.
    pub device: Option<(Properties, u64)>,
    /// Tokens of context.
    pub context: usize,
    /// Tokens read at a time.
    pub chunk: usize,
    /// Type of keys and values.
    pub kv: KvType,
    /// What the whole model takes.
    pub whole: Bytes,
    /// What goes there; `None` if nothing is known of the memory.
    pub fit: Option<Fit>,
}

/// What goes to a device.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// Bytes that may be used.
    pub budget: u64,
    /// Which parts go there.
    pub placement: Placement,
    /// What they take.
    pub bytes: Bytes,
    /// How many layers they are.
    pub layers: usize,
    /// Layers of the model.
    pub layers_in_all: usize,
}

impl OffloadArgs {
    /// The facts, if they are asked for.
    ///
    /// # Errors
    /// If a GPU is asked for by name and cannot be used, or the model is not made for such a context.
    pub fn of(self, checkpoint: &Checkpoint) -> Result<Option<Offload>> {
        let Some(device) = self.device else { return Ok(None) };
        let longest = checkpoint.config().max_position_embeddings;
        ensure!(
            self.context.is_none_or(|context| context <= longest),
            "--context is too long: the model is made for at most {longest} tokens"
        );
        let gpu = DeviceArgs::new(device, self.vram_budget).open()?;
        let context = context_planned(self.context, checkpoint.config());
        let demand = Demand::of(checkpoint, self.kv, context, self.chunk);
        let budget = gpu.as_ref().map(|gpu| gpu.left_bytes()).or(self.vram_budget);
        let device = match &gpu {
            Some(gpu) => Some((gpu.properties().clone(), gpu.free_bytes()?.0)),
            None => None,
        };
        Ok(Some(Offload {
            device,
            context,
            chunk: self.chunk,
            kv: self.kv,
            whole: demand.on_device(Placement::all_on(Place::Device)),
            fit: budget.map(|budget| Fit::of(&demand, budget, checkpoint.config().blocks.len())),
        }))
    }

    /// Whether they are asked for.
    pub fn is_asked(self) -> bool {
        self.device.is_some()
    }
}

impl Fit {
    fn of(demand: &Demand, budget: u64, layers_in_all: usize) -> Fit {
        let placement = demand.fit(budget);
        let layers = placement.first_on_device.map_or(0, |first| layers_in_all - first);
        Fit { budget, placement, bytes: demand.on_device(placement), layers, layers_in_all }
    }

    /// What goes there, in words.
    pub fn words(&self) -> String {
        let Fit { layers, layers_in_all, placement, .. } = self;
        match (placement.first_on_device, placement.embeddings) {
            (None, _) => "nothing: there is no room for the head and its activations".into(),
            (Some(_), Place::Device) => "the whole model".into(),
            (Some(0), Place::Host) => "all layers; the table of embeddings stays on the processor".into(),
            (Some(_), Place::Host) => format!("the last {layers} of {layers_in_all} layers and the head"),
        }
    }
}
