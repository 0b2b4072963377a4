//! Adapters in the layout of PEFT: matrices of low rank that stand beside the projections of a model (LoRA, Hu et al. 2021,
//! arXiv 2106.09685), the lengths of rows (DoRA, Liu et al. 2024, arXiv 2402.09353), and, in a file of our own beside them,
//! the recurrent states that sequences begin with.
//!
//! ```text
//! adapter_config.json            r, lora_alpha, use_dora …
//! adapter_model.safetensors      base_model.model.model.layers.0.mixer.in_proj.lora_A.weight (r, in), … lora_B.weight (out, r)
//! initial_states.safetensors     backbone.layers.0.mixer.initial_state (h·p·n)
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::bytes::Bytes;
use crate::checkpoint::canonical;
use crate::config::Config;
use crate::error::{Error, Result, shown};
use crate::tensor::StoredTensor;
use crate::{json, safetensors};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const STATES: &str = "initial_states.safetensors";
const EMBEDDINGS: &str = "backbone.embeddings";

/// What stands beside one projection W: y = x · (W + scale · B · A)ᵀ, whose rows have the lengths `magnitude` if there are
/// any.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// r.
    pub rank: usize,
    /// (r, in).
    pub a: Vec<f32>,
    /// (out, r).
    pub b: Vec<f32>,
    /// (out).
    pub magnitude: Option<Vec<f32>>,
    /// α / r, or α / √r for rank-stabilised adapters.
    pub scale: f32,
}

/// An adapter; see the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// By the checkpoint name of the projection, without `.weight`.
    layers: BTreeMap<String, LowRank>,
    /// By the checkpoint name of the mixer.
    states: BTreeMap<String, Vec<f32>>,
}

/// What is read of `adapter_config.json`.
#[derive(Deserialize)]
struct Settings {
    lora_alpha: f32,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
}

/// Keys that must be absent, null, empty or one of these values, since what they do is not computed here.
const PLAIN: [(&str, &[&str]); 6] = [
    ("peft_type", &["LORA"]),
    ("bias", &["none"]),
    ("modules_to_save", &[]),
    ("alpha_pattern", &[]),
    ("layer_replication", &[]),
    ("alora_invocation_tokens", &[]),
];
/// Ways to begin that change the weights of the model itself.
const BEGINNINGS: [&str; 4] = ["pissa", "olora", "corda", "loftq"];

impl Settings {
    fn read(path: &Path) -> Result<Settings> {
        let refuse = |problem: String| Err(Error::Adapter { problem }.in_file(path));
        let Some(config) = json::read_file(CONFIG, path)? else {
            return refuse(
                "the folder has no adapter_config.json, so it is no adapter in the layout of PEFT".into(),
            );
        };
        for (key, allowed) in PLAIN {
            let Some(found) = config.get(key) else { continue };
            let is_plain = match found {
                Value::Null => true,
                Value::String(text) => allowed.contains(&text.as_str()),
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                Value::Bool(_) | Value::Number(_) => false,
            };
            if !is_plain {
                let found = shown(&found.to_string());
                return refuse(format!("it has `{key}` = {found}; only plain LoRA and DoRA can be read"));
            }
        }
        let beginning = config.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
        if BEGINNINGS.iter().any(|other| beginning.starts_with(other)) {
            return refuse(format!(
                "it begins with `{}`, which changes the model's own weights",
                shown(beginning)
            ));
        }
        serde_json::from_value(config).map_err(|cause| Error::Json { what: CONFIG, cause }.in_file(path))
    }

    fn scale(&self, rank: usize) -> f32 {
        let divisor = if self.use_rslora { (rank as f32).sqrt() } else { rank as f32 };
        self.lora_alpha / divisor
    }
}

impl Adapter {
    /// Reads the folder of an adapter.
    ///
    /// # Errors
    /// If it is none, or it does more than can be computed here: biases, whole modules, other kinds than LoRA and DoRA.
    pub fn open(folder: &Path) -> Result<Adapter> {
        let settings = Settings::read(&folder.join(CONFIG))?;
        let mut adapter = Adapter { layers: BTreeMap::new(), states: BTreeMap::new() };
        let weights = folder.join(WEIGHTS);
        let mut parts = match weights.is_file() {
            true => read(&weights)?,
            false => BTreeMap::new(),
        };
        let of_a: Vec<String> =
            parts.keys().filter_map(|name| name.strip_suffix(".lora_A.weight")).map(str::to_owned).collect();
        for stem in of_a {
            let layer = layer(&settings, &stem, &mut parts).map_err(|error| error.in_file(&weights))?;
            adapter.layers.insert(stem, layer);
        }
        if let Some(name) = parts.keys().next() {
            let problem = format!("`{}` is not a part of an adapter that can be read", shown(name));
            return Err(Error::Adapter { problem }.in_file(&weights));
        }
        let states = folder.join(STATES);
        if states.is_file() {
            for (name, tensor) in read(&states)? {
                let Some(mixer) = name.strip_suffix(".initial_state") else {
                    let problem = format!("`{}` is not an initial state", shown(&name));
                    return Err(Error::Adapter { problem }.in_file(&states));
                };
                adapter.states.insert(mixer.to_owned(), tensor.to_f32()?);
            }
        }
        if adapter.layers.is_empty() && adapter.states.is_empty() {
            let problem = format!("it has neither {WEIGHTS} nor {STATES} with something in it");
            return Err(Error::Adapter { problem }.in_file(folder));
        }
        Ok(adapter)
    }

    /// What stands beside the projection `stem`, if anything does.
    pub fn layer(&self, stem: &str) -> Option<&LowRank> {
        self.layers.get(stem)
    }

    /// All projections that are adapted.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &LowRank)> {
        self.layers.iter().map(|(stem, layer)| (stem.as_str(), layer))
    }

    /// The state (h, p, n) that sequences begin with in a mixer, if it is learned.
    pub fn state(&self, mixer: &str) -> Option<&[f32]> {
        self.states.get(mixer).map(Vec::as_slice)
    }

    /// Whether first states are learned.
    pub fn has_states(&self) -> bool {
        !self.states.is_empty()
    }

    /// Bytes that it takes beside a model, or instead of a part of it, by projection.
    pub fn bytes(&self) -> impl Iterator<Item = (&str, u64)> {
        let bytes = |layer: &LowRank| match layer.magnitude {
            Some(_) => layer.a.len() / layer.rank * (layer.b.len() / layer.rank),
            None => layer.a.len() + layer.b.len(),
        };
        self.layers().map(move |(stem, layer)| (stem, (bytes(layer) * size_of::<f32>()) as u64))
    }

    /// Checks that every part has a place in a model.
    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        let shapes: BTreeMap<String, Vec<usize>> =
            config.tensors().into_iter().map(|spec| (spec.name, spec.shape)).collect();
        let foreign = |name: &str, expected: String| {
            let problem =
                format!("it has a part for `{}`, {expected}: is it for another model?", shown(name));
            Err(Error::Adapter { problem })
        };
        for (stem, layer) in &self.layers {
            let Some([out, inputs]) = shapes.get(&format!("{stem}.weight")).map(Vec::as_slice) else {
                return foreign(stem, "which is no projection of the model".into());
            };
            if stem == EMBEDDINGS {
                return foreign(stem, "which is looked up and not multiplied".into());
            }
            let found = [layer.b.len() / layer.rank, layer.a.len() / layer.rank];
            if found != [*out, *inputs] {
                let expected =
                    format!("of {} by {}, where the model has {out} by {inputs}", found[0], found[1]);
                return foreign(stem, expected);
            }
        }
        let size = config.mamba.inner_size() * config.mamba.state_size;
        for (mixer, state) in &self.states {
            if !shapes.contains_key(&format!("{mixer}.A_log")) || state.len() != size {
                return foreign(mixer, format!("a state of {} numbers", state.len()));
            }
        }
        Ok(())
    }

    /// Everything that results depend on, as bytes.
    pub(crate) fn fields(&self, field: &mut impl FnMut(&[u8])) {
        let mut floats = |floats: &[f32]| {
            field(&floats.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        };
        for layer in self.layers.values() {
            floats(&[layer.scale]);
            floats(&layer.a);
            floats(&layer.b);
            floats(layer.magnitude.as_deref().unwrap_or_default());
        }
        self.states.values().for_each(|state| floats(state));
        self.layers.keys().chain(self.states.keys()).for_each(|name| field(name.as_bytes()));
    }
}

/// All tensors of a file under the names of the checkpoint.
fn read(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let file = Bytes::map_file(path)?;
    let header = safetensors::parse_header(&file, file.len()).map_err(|error| error.in_file(path))?;
    let mut found = BTreeMap::new();
    for tensor in header.tensors {
        let name = tensor.name.strip_prefix("base_model.model.").unwrap_or(&tensor.name);
        let name = canonical(name).replace("lora_magnitude_vector.weight", "lora_magnitude_vector");
        let (Some(dtype), Some(bytes)) = (tensor.dtype, file.slice(tensor.range)) else {
            return Err(Error::UnsupportedDType { name, found: tensor.dtype_name }.in_file(path));
        };
        found.insert(name, StoredTensor::new(dtype, tensor.shape, bytes).map_err(|e| e.in_file(path))?);
    }
    Ok(found)
}

/// Takes the parts of one projection.
fn layer(settings: &Settings, stem: &str, parts: &mut BTreeMap<String, StoredTensor>) -> Result<LowRank> {
    let mut part = |kind: &str| parts.remove(&format!("{stem}.lora_{kind}"));
    let (a, b, magnitude) = (part("A.weight"), part("B.weight"), part("magnitude_vector"));
    let missing = |kind: &str| Error::MissingTensor { name: format!("{stem}.lora_{kind}") };
    let (a, b) = (a.ok_or_else(|| missing("A.weight"))?, b.ok_or_else(|| missing("B.weight"))?);
    let (rank, inputs) = match *a.shape.as_slice() {
        [rank, inputs] if rank > 0 => (rank, inputs),
        _ => {
            let (name, expected) = (format!("{stem}.lora_A.weight"), vec![1, 1]);
            return Err(Error::TensorShape { name, expected, found: a.shape });
        }
    };
    let out = match b.shape.as_slice() {
        &[out, r] if r == rank => out,
        found => {
            let (name, expected) =
                (format!("{stem}.lora_B.weight"), vec![found.first().copied().unwrap_or(0), rank]);
            return Err(Error::TensorShape { name, expected, found: found.to_vec() });
        }
    };
    let magnitude = magnitude.map(|m| m.to_f32()).transpose()?;
    if settings.use_dora != magnitude.is_some() || magnitude.as_ref().is_some_and(|m| m.len() != out) {
        let expected =
            if settings.use_dora { "one for each row" } else { "none, since `use_dora` is not set" };
        let problem = format!("the lengths of `{}` are not as expected: {expected}", shown(stem));
        return Err(Error::Adapter { problem });
    }
    debug_assert_eq!(a.num_elements(), rank.saturating_mul(inputs));
    Ok(LowRank { rank, a: a.to_f32()?, b: b.to_f32()?, magnitude, scale: settings.scale(rank) })
}
