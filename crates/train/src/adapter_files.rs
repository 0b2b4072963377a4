//! Adapters on disk, in the layout of PEFT, and learned states beside them.
//!
//! ```text
//! adapter_config.json            rank, α, targets
//! adapter_model.safetensors      base_model.model.model.layers.0.mixer.in_proj.lora_A.weight and so on
//! initial_states.safetensors     backbone.layers.0.mixer.initial_state and so on, (h, p, n) in one dimension
//! ```

use std::path::Path;

use serde_json::json;

use crate::adapter::Settings;
use crate::disk::{self, Named, Tensors, write_tensors};
use crate::error::Result;
use crate::params::Params;
use crate::recipe::Recipe;

const WEIGHTS: &str = "adapter_model.safetensors";
const STATES: &str = "initial_states.safetensors";

/// The name that PEFT has for a parameter: that of the module in transformers, where `backbone` is `model`.
fn peft_name(name: &str) -> String {
    format!("base_model.model.{}", name.replacen("backbone.", "model.", 1))
}

fn is_state(name: &str) -> bool {
    name.ends_with(".initial_state")
}

/// Writes the parameters that learn.
pub(crate) fn write(folder: &Path, recipe: &Recipe, settings: &Settings, params: &Params) -> Result<()> {
    let learned = || params.iter().map(|(_, param)| param).filter(|param| param.is_trained);
    let tensors = |of_states: bool| -> Named {
        let wanted = learned().filter(|param| is_state(&param.name) == of_states);
        let name = |name: &str| if of_states { name.to_owned() } else { peft_name(name) };
        wanted.map(|param| (name(&param.name), param.shape.clone(), param.data.clone())).collect()
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
    for (file, of_states) in [(WEIGHTS, false), (STATES, true)] {
        let wanted: Vec<_> = params
            .iter()
            .filter(|(_, param)| param.is_trained && is_state(&param.name) == of_states)
            .map(|(id, _)| id)
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let tensors = Tensors::read(&folder.join(file))?;
        for id in wanted {
            let name = params.get(id).name.clone();
            let name = if of_states { name } else { peft_name(&name) };
            tensors.copy(&name, &mut params.get_mut(id).data)?;
        }
    }
    Ok(())
}
