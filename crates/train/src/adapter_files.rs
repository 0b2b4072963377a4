//! Adapters on disk, in the layout of PEFT, and learned states beside them.
//!
//! ```text
//! adapter_config.json            rank, α, targets
//! adapter_model.safetensors      base_model.model.model.layers.0.mixer.in_proj.lora_A.weight and so on
//! initial_states.safetensors     backbone.layers.0.mixer.initial_state and so on, (h, p, n) in one dimension
//! ```

use std::path::Path;

use serde_json::json;
use tangelo_formats::Adapter;

use crate::adapter::Settings;
use crate::disk::{self, Named, write_tensors};
use crate::error::{Error, Result};
use crate::params::Params;
use crate::recipe::Recipe;

const WEIGHTS: &str = "adapter_model.safetensors";
const STATES: &str = "initial_states.safetensors";
/// How names of states end.
const STATE: &str = ".initial_state";

/// The name that PEFT has for a parameter: that of the module in transformers, where `backbone` is `model`.
fn peft_name(name: &str) -> String {
    format!("base_model.model.{}", name.replacen("backbone.", "model.", 1))
}

fn is_state(name: &str) -> bool {
    name.ends_with(STATE)
}

/// Writes the parameters that learn.
pub(crate) fn write(folder: &Path, recipe: &Recipe, settings: &Settings, params: &Params) -> Result<()> {
    let learned = || params.iter().map(|(_, param)| param).filter(|param| param.is_trained);
    let tensors = |of_states: bool| -> Named<'_> {
        let wanted = learned().filter(|param| is_state(&param.name) == of_states);
        let name = |name: &str| if of_states { name.to_owned() } else { peft_name(name) };
        wanted.map(|param| (name(&param.name), param.shape.clone(), param.data.as_slice().into())).collect()
    };
    for (file, tensors) in [(WEIGHTS, tensors(false)), (STATES, tensors(true))] {
        if !tensors.is_empty() {
            write_tensors(&folder.join(file), &tensors)?;
        }
    }
    let config = json!({
        "base_model_name_or_path": recipe.model.from,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": settings.rank,
        "target_modules": settings.targets,
        "task_type": "CAUSAL_LM",
        "use_dora": settings.dora,
    });
    disk::write(&folder.join("adapter_config.json"), format!("{config:#}\n").as_bytes())
}

/// Reads the parameters that learn.
pub(crate) fn read(folder: &Path, params: &mut Params) -> Result<()> {
    let adapter = Adapter::open(folder)?;
    let learned: Vec<_> = params.ids().filter(|id| params.get(*id).is_trained).collect();
    for id in learned {
        let param = params.get_mut(id);
        match part(&adapter, &param.name).filter(|part| part.len() == param.data.len()) {
            Some(part) => param.data.copy_from_slice(part),
            None => return Err(Error::NoTensor { name: param.name.clone(), path: folder.to_path_buf() }),
        }
    }
    Ok(())
}

fn part<'a>(adapter: &'a Adapter, name: &str) -> Option<&'a [f32]> {
    if let Some(mixer) = name.strip_suffix(STATE) {
        return adapter.state(mixer);
    }
    let (stem, kind) = name.split_once(".lora_")?;
    let layer = adapter.layer(stem)?;
    match kind {
        "A.weight" => Some(&layer.a),
        "B.weight" => Some(&layer.b),
        _ => layer.magnitude.as_deref(),
    }
}
