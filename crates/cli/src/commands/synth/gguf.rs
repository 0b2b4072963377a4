//! Writing a random model as a GGUF file.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use tangelo_formats::config::TensorSpec;
use tangelo_formats::gguf::names::{self, GgufTensor, Layout};
use tangelo_formats::gguf::{TensorPlan, Value, Writer, arch};
use tangelo_formats::tensor::storage_bytes;

use super::Written;
use super::encode::{Job, Transform};
use super::mix::Mix;
use super::recipe::Recipe;
use super::vocabulary::Vocabulary;
use crate::output::{self, OutputFile};
use crate::progress;

/// Writes the file, which appears when it is complete.
///
/// # Errors
/// If GGUF cannot express the model or the file cannot be written.
pub fn write(
    recipe: &Recipe,
    mix: &Mix,
    vocabulary: &Vocabulary,
    path: &Path,
    threads: usize,
) -> Result<Written> {
    let config = &recipe.config;
    let tensors = names::from_config(config)?;
    let types = mix.types(config, &tensors);
    let mut metadata = arch::metadata_from_config(config, &recipe.name)?;
    metadata.set("general.file_type", Value::U32(mix.file_type));
    vocabulary.put(&mut metadata);

    let plan = |(tensor, dtype): (&GgufTensor, _)| TensorPlan {
        name: tensor.name.clone(),
        dtype,
        shape: tensor.shape.clone(),
    };
    let plans: Vec<TensorPlan> = tensors.iter().zip(types).map(plan).collect();
    let sizes = plans.iter().map(|p| storage_bytes(p.dtype, &p.shape).map(|n| n as u64));
    let bytes = sizes.sum::<Option<u64>>().context("the model is too large for a file")?;
    let bar = progress::bar(&recipe.name, bytes, progress::Unit::Bytes);

    let specs: HashMap<String, TensorSpec> =
        config.tensors().into_iter().map(|spec| (spec.name.clone(), spec)).collect();
    let mut writer = Writer::new(OutputFile::create(path)?, &metadata, plans.clone())?;
    for (tensor, plan) in tensors.iter().zip(&plans) {
        let sources =
            tensor.sources.iter().filter_map(|name| specs.get(name)).map(|spec| recipe.values(spec));
        let transform =
            if tensor.layout == Layout::NegativeExp { Transform::NegativeExp } else { Transform::Same };
        let job = Job::new(sources.collect(), &tensor.shape, plan.dtype, transform);
        let written = writer.tensor(&tensor.name, |out| job.write(threads, out, &mut |n| bar.inc(n)));
        written.map_err(|e| output::explain_write(e, path))?;
    }
    let file = writer.finish().map_err(|e| output::explain_write(e, path))?;
    bar.finish_and_clear();
    file.finish()?;
    Ok(Written { tensors: tensors.len(), bytes })
}
