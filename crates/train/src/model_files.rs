//! Models on disk: a folder in the layout of the hub.

use std::collections::BTreeMap;
use std::path::Path;

use tangelo_formats::adapter::Adapter as Stored;
use tangelo_formats::{Checkpoint, Config};
use tangelo_ops::Cx;

use crate::adapter::Adapter;
use crate::disk::{read, write, write_tensors};
use crate::error::{Error, Result};
use crate::params::Params;

/// Files of a model's folder that are handed on.
const COMPANIONS: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"];

/// Contents of the files that belong to a model but are not its weights, by name.
pub(crate) type Companions = BTreeMap<&'static str, Vec<u8>>;

/// The files that belong to a model in a folder. `template`: that of a checkpoint, wherever it has it.
pub(crate) fn companions(from: &Path, config: &Config, template: Option<String>) -> Result<Companions> {
    let mut found = BTreeMap::new();
    for name in COMPANIONS {
        let path = from.join(name);
        if path.is_file() {
            found.insert(name, read(&path)?);
        }
    }
    if let Some(template) = template {
        found.insert("chat_template.jinja", template.into_bytes());
    }
    // Base models have no template, and texts need none.
    for needed in ["tokenizer.json", "tokenizer_config.json"] {
        if !found.contains_key(needed) {
            return Err(Error::NoFile { path: from.join(needed) });
        }
    }
    found.entry("generation_config.json").or_insert_with(|| {
        let eos = [2, 11].into_iter().filter(|id| *id < config.vocab_size).collect::<Vec<usize>>();
        format!("{:#}\n", serde_json::json!({"do_sample": false, "eos_token_id": eos})).into_bytes()
    });
    Ok(found)
}

/// Writes a model in f32.
pub(crate) fn write_model(
    folder: &Path,
    companions: &Companions,
    config: &Config,
    params: &Params,
) -> Result<()> {
    for (name, contents) in companions {
        write(&folder.join(name), contents)?;
    }
    let mut config: serde_json::Value = serde_json::from_str(&config.to_json()).unwrap_or_default();
    config["torch_dtype"] = "float32".into();
    write(&folder.join("config.json"), format!("{config:#}\n").as_bytes())?;
    let tensors = params
        .iter()
        .map(|(_, param)| (param.name.clone(), param.shape.clone(), param.in_checkpoint_order(&param.data)));
    write_tensors(&folder.join("model.safetensors"), &tensors.collect())
}

/// Writes to a folder the model in `from` with the adapter in `adapter` put into its weights, and returns how many
/// projections that changed.
///
/// # Errors
/// If a file cannot be read or written, the adapter is for another model, or it holds states, which are no weights.
pub fn merge(cx: &Cx, from: &Path, adapter: &Path, folder: &Path) -> Result<usize> {
    let stored = Stored::open(adapter)?;
    if stored.has_states() {
        return Err(Error::StatesNotMerged { path: adapter.to_path_buf() });
    }
    let checkpoint = Checkpoint::open(from)?.with_adapter(stored.clone())?;
    let config = checkpoint.config();
    let mut params = Params::load(&checkpoint)?;
    for (stem, layer) in stored.layers() {
        let missing = || Error::NoTensor { name: stem.to_owned(), path: from.to_path_buf() };
        let weight = params.find(&format!("{stem}.weight")).ok_or_else(missing)?;
        let [out, inputs] = params.get(weight).matrix();
        // Beside the model for as long as it takes, so that it is put in as the trainer does it.
        let mut beside = Params::default();
        let own = beside.add("weight", &[out, inputs], params.get(weight).data.clone());
        let added = Adapter {
            a: beside.add("a", &[layer.rank, inputs], layer.a.clone()),
            b: beside.add("b", &[out, layer.rank], layer.b.clone()),
            magnitude: layer.magnitude.as_ref().map(|m| beside.add("magnitude", &[out], m.clone())),
            scale: layer.scale,
        };
        params.get_mut(weight).data = added.merged(cx, &beside, own);
    }
    write_model(folder, &companions(from, config, checkpoint.chat_template()?)?, config, &params)?;
    Ok(stored.layers().count())
}
