//! Writing a random model as a folder in the layout of the hub: weights in one file or several, `config.json`,
//! `generation_config.json` and the tokenizer.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use tangelo_core::DType;
use tangelo_formats::config::TensorSpec;
use tangelo_formats::safetensors::{TensorPlan, Writer};
use tangelo_formats::tensor::storage_bytes;

use super::fp8;
use super::recipe::Recipe;
use crate::output::{self, OutputFile, OutputFolder};
use crate::progress;
use crate::weights::{Job, Transform, Vocabulary, Written};

/// Largest file of weights; a larger tensor gets a file of its own.
const SHARD_BYTES_MAX: u64 = 4 << 30;

/// What to write and how.
#[derive(Debug)]
pub struct Options {
    /// Type of everything that is not kept in F32: F32, F16 or BF16.
    pub dtype: DType,
    /// Whether linear layers are stored in FP8.
    pub fp8: bool,
    /// Threads to compute with.
    pub threads: usize,
}

/// One tensor of a file.
struct Planned {
    plan: TensorPlan,
    content: Content,
}

enum Content {
    Values(TensorSpec, Transform),
    Scalar(f32),
}

impl Planned {
    fn bytes(&self) -> Option<u64> {
        storage_bytes(self.plan.dtype, &self.plan.shape).map(|n| n as u64)
    }
}

/// Writes the folder, which appears when it is complete.
///
/// # Errors
/// If the folder exists and is not empty, or cannot be written.
pub fn write(recipe: &Recipe, options: &Options, vocabulary: &Vocabulary, path: &Path) -> Result<Written> {
    let folder = OutputFolder::create(path)?;
    let planned = plan(recipe, options);
    let tensors = planned.len();
    let sizes: Option<u64> = planned.iter().map(Planned::bytes).sum();
    let bytes = sizes.context("the model is too large for a file")?;
    let bar = progress::bar(&recipe.name, bytes, progress::Unit::Bytes);
    let shards = into_shards(planned, SHARD_BYTES_MAX);
    let mut weight_map = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_string(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        for tensor in shard {
            weight_map.insert(tensor.plan.name.clone(), json!(name));
        }
        let file = OutputFile::create(&folder.part().join(name))?;
        let written = write_shard(recipe, shard, options.threads, file, &|n| bar.inc(n));
        written.map_err(|e| output::explain_write(e, path))?.finish()?;
    }
    bar.finish_and_clear();
    let put = |name: &str, value: &Value| {
        output::write(&folder.part().join(name), format!("{value:#}\n").as_bytes())
    };
    if shards.len() > 1 {
        weight_map.sort_keys();
        let index = json!({ "metadata": { "total_size": bytes }, "weight_map": weight_map });
        put("model.safetensors.index.json", &index)?;
    }
    put("config.json", &config_json(recipe, options)?)?;
    put("generation_config.json", &generation_json(recipe, vocabulary))?;
    if options.fp8 {
        put("hf_quant_config.json", &fp8::hf_quant_config(&recipe.config))?;
    }
    for (name, contents) in vocabulary.files() {
        output::write(&folder.part().join(name), contents)?;
    }
    folder.finish()?;
    Ok(Written { tensors, bytes })
}

/// All tensors in the order of the configuration.
fn plan(recipe: &Recipe, options: &Options) -> Vec<Planned> {
    let mut planned = Vec::new();
    for spec in recipe.config.tensors() {
        let values = recipe.values(&spec);
        let (name, shape) = (spec.name.clone(), spec.shape.clone());
        let (mut dtype, mut transform) = (options.dtype, Transform::Same);
        if recipe.is_f32(&name) {
            dtype = DType::F32;
        }
        if options.fp8 {
            for scale in fp8::scales(&recipe.config, &name, &values) {
                let plan = TensorPlan { name: scale.name, dtype: DType::F32, shape: Vec::new() };
                planned.push(Planned { plan, content: Content::Scalar(scale.value) });
            }
            if fp8::is_quantised(&recipe.config, &name) {
                (dtype, transform) = (DType::F8E4M3, Transform::DivideBy(fp8::weight_scale(&values)));
            }
        }
        planned.push(Planned {
            plan: TensorPlan { name, dtype, shape },
            content: Content::Values(spec, transform),
        });
    }
    planned
}

/// Cuts the list where a file would become too large, and sorts each file as the safetensors library does: the
/// widest types first, so that all are aligned, then by name.
fn into_shards(planned: Vec<Planned>, bytes_max: u64) -> Vec<Vec<Planned>> {
    let mut shards: Vec<Vec<Planned>> = Vec::new();
    let mut filled = 0u64;
    for tensor in planned {
        let bytes = tensor.bytes().unwrap_or(u64::MAX);
        match shards.last_mut() {
            Some(shard) if filled.saturating_add(bytes) <= bytes_max => shard.push(tensor),
            _ => {
                shards.push(vec![tensor]);
                filled = 0;
            }
        }
        filled = filled.saturating_add(bytes);
    }
    for shard in &mut shards {
        shard.sort_by(|a, b| {
            let width = |t: &Planned| t.plan.dtype.block_bytes();
            width(b).cmp(&width(a)).then_with(|| a.plan.name.cmp(&b.plan.name))
        });
    }
    shards
}

fn write_shard(
    recipe: &Recipe,
    shard: &[Planned],
    threads: usize,
    file: OutputFile,
    on_bytes: &dyn Fn(u64),
) -> Result<OutputFile, tangelo_formats::Error> {
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let plans = shard.iter().map(|tensor| tensor.plan.clone()).collect();
    let mut writer = Writer::new(file, &metadata, plans)?;
    for tensor in shard {
        let TensorPlan { name, dtype, shape } = &tensor.plan;
        writer.tensor(name, |out| match &tensor.content {
            Content::Scalar(x) => out.write_all(&x.to_le_bytes()),
            Content::Values(spec, transform) => {
                let job = Job::new(vec![Box::new(recipe.values(spec))], shape, *dtype, *transform);
                job.write(threads, out, &mut |n| on_bytes(n))
            }
        })?;
    }
    writer.finish()
}

fn config_json(recipe: &Recipe, options: &Options) -> Result<Value> {
    let mut config: Value = serde_json::from_str(&recipe.config.to_json())?;
    config["torch_dtype"] = json!(match options.dtype {
        DType::F32 => "float32",
        DType::F16 => "float16",
        _ => "bfloat16",
    });
    if options.fp8 {
        config["quantization_config"] = fp8::quantization_config(&recipe.config);
    }
    Ok(config)
}

/// Sampling as the published models suggest it, stopping at the end of a turn as well as of a text.
fn generation_json(recipe: &Recipe, vocabulary: &Vocabulary) -> Value {
    let config = &recipe.config;
    let mut eos = config.eos_token_ids.clone();
    eos.extend(vocabulary.end_of_turn());
    eos.sort_unstable();
    eos.dedup();
    json!({
        "bos_token_id": config.bos_token_id,
        "do_sample": true,
        "eos_token_id": eos,
        "pad_token_id": config.pad_token_id,
        "temperature": 1.0,
        "top_p": 0.95,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &str, dtype: DType, elements: usize) -> Planned {
        let plan = TensorPlan { name: name.into(), dtype, shape: vec![elements] };
        Planned { plan, content: Content::Scalar(0.0) }
    }

    #[test]
    fn files_are_cut_between_tensors_and_sorted_inside() {
        let list = vec![
            planned("b", DType::BF16, 10),
            planned("a", DType::BF16, 10),
            planned("scale", DType::F32, 1),
            planned("large", DType::BF16, 100),
            planned("last", DType::F8E4M3, 1),
        ];
        let shards = into_shards(list, 50);
        let names: Vec<Vec<&str>> =
            shards.iter().map(|s| s.iter().map(|t| t.plan.name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["scale", "a", "b"], vec!["large"], vec!["last"]]);
    }
}
