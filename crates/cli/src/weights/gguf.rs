//! Writing a model as a GGUF file.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use tangelo_formats::config::{Config, TensorSpec};
use tangelo_formats::gguf::names::{self, GgufTensor, Layout};
use tangelo_formats::gguf::{Metadata, TensorPlan, Value, Writer, arch};
use tangelo_formats::tensor::storage_bytes;

use super::encode::{Job, Transform};
use super::mix::Mix;
use super::vocabulary::Vocabulary;
use super::{Elements, Written};
use crate::output::{self, OutputFile};
use crate::progress;

/// A model that is to be written.
pub trait Source {
    /// Its sizes.
    fn config(&self) -> &Config;
    /// `general.name` of the file.
    fn name(&self) -> &str;
    /// Adds what else is known of it.
    fn describe(&self, _: &mut Metadata) {}
    /// The elements of a tensor of [`Config::tensors`].
    ///
    /// # Errors
    /// If they cannot be read.
    fn elements(&self, spec: &TensorSpec) -> Result<Box<dyn Elements>>;
}

/// Writes the file, which appears when it is complete.
///
/// # Errors
/// If GGUF cannot express the model, its tensors cannot be read or the file cannot be written.
pub fn write_gguf(
    source: &dyn Source,
    mix: &Mix,
    vocabulary: &Vocabulary,
    path: &Path,
    threads: usize,
) -> Result<Written> {
    let config = source.config();
    let tensors = names::from_config(config)?;
    let types = mix.types(config, &tensors);
    let mut metadata = arch::metadata_from_config(config, source.name())?;
    metadata.set("general.file_type", Value::U32(mix.file_type));
    vocabulary.put(&mut metadata);
    source.describe(&mut metadata);

    let plan = |(tensor, dtype): (&GgufTensor, _)| TensorPlan {
        name: tensor.name.clone(),
        dtype,
        shape: tensor.shape.clone(),
    };
    let plans: Vec<TensorPlan> = tensors.iter().zip(types).map(plan).collect();
    let sizes = plans.iter().map(|p| storage_bytes(p.dtype, &p.shape).map(|n| n as u64));
    let bytes = sizes.sum::<Option<u64>>().context("the model is too large for a file")?;
    let bar = progress::bar(source.name(), bytes, progress::Unit::Bytes);

    let specs: HashMap<String, TensorSpec> =
        config.tensors().into_iter().map(|spec| (spec.name.clone(), spec)).collect();
    let mut writer = Writer::new(OutputFile::create(path)?, &metadata, plans.clone())?;
    for (tensor, plan) in tensors.iter().zip(&plans) {
        let specs = tensor.sources.iter().filter_map(|name| specs.get(name));
        let sources = specs.map(|spec| source.elements(spec)).collect::<Result<Vec<_>>>()?;
        let transform =
            if tensor.layout == Layout::NegativeExp { Transform::NegativeExp } else { Transform::Same };
        let job = Job::new(sources, &tensor.shape, plan.dtype, transform);
        let written = writer.tensor(&tensor.name, |out| job.write(threads, out, &mut |n| bar.inc(n)));
        written.map_err(|e| output::explain_write(e, path))?;
    }
    let file = writer.finish().map_err(|e| output::explain_write(e, path))?;
    bar.finish_and_clear();
    file.finish()?;
    Ok(Written { tensors: tensors.len(), bytes })
}
