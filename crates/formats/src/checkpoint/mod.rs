//! A model on disk, whatever its container, seen through NVIDIA's tensor names.
//!
//! [`Checkpoint::open`] maps the files, reads the configuration and builds one table from checkpoint names to
//! byte ranges: GGUF names are translated by [`crate::gguf::names`], the names that transformers 5 uses in
//! memory (`model.…`, fused experts) by `safetensors_names`. It then checks that every tensor the configuration
//! implies is there with its shape, so that a loader never meets a surprise halfway through.
//!
//! One tensor has two names: files in safetensors hold `mixer.A_log`, GGUF files `mixer.A` = -exp(A_log).

mod companions;
mod fingerprint;
mod open;
mod safetensors_names;

pub(crate) use safetensors_names::canonical;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tangelo_core::DType;

use crate::adapter::Adapter;
use crate::bytes::Bytes;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::generation::GenerationConfig;
use crate::gguf::{self, Gguf};
use crate::tensor::StoredTensor;

/// Container of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A GGUF file.
    Gguf {
        /// Format version, 2 or 3.
        version: u32,
    },
    /// One or more safetensors files.
    Safetensors,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Format::Gguf { version } => write!(f, "GGUF v{version}"),
            Format::Safetensors => f.write_str("safetensors"),
        }
    }
}

/// Where the tokenizer of a checkpoint is.
#[derive(Clone, Debug)]
pub enum TokenizerSource<'a> {
    /// A `tokenizer.json`.
    Json(PathBuf),
    /// Inside the GGUF file, under `tokenizer.ggml.*`.
    Gguf(&'a gguf::Metadata),
    /// Nowhere: the checkpoint works on token ids only.
    Missing,
}

/// A tensor in the table of a checkpoint.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Checkpoint name.
    pub name: String,
    /// Element type, if the program computes with it.
    pub dtype: Option<DType>,
    /// Element type as the file spells it.
    pub dtype_name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// The tensor's bytes in the mapped file.
    pub bytes: Bytes,
}

/// An opened model; see the module's description.
#[derive(Debug)]
pub struct Checkpoint {
    config: Config,
    generation: GenerationConfig,
    format: Format,
    /// Files with weights, in order; none of a model that is in memory.
    files: Vec<PathBuf>,
    /// Folder with the companions (tokenizer, template, licence), if there is one.
    folder: Option<PathBuf>,
    gguf: Option<Gguf>,
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
    /// Ids that end an answer, from everywhere they can be written.
    stop_token_ids: Vec<u32>,
    adapter: Option<Adapter>,
}

impl Checkpoint {
    /// Opens a model: a `.gguf` file, a `.safetensors` file with `config.json` beside it, or a folder with
    /// `config.json` and `model.safetensors`, or an index and its shards, or one GGUF file.
    ///
    /// Costs the time to read the headers; weights are paged in when they are used.
    ///
    /// # Errors
    /// [`Error::NotAModel`] when nothing of the above is there, any error of the parsers with the file it is
    /// about, [`Error::MissingTensor`] and [`Error::TensorShape`] when the weights do not fit the configuration.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        open::open(path)
    }

    /// A model in a GGUF file that is in memory, with nothing beside it; `name` stands for it in messages.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_gguf(bytes: &Bytes, name: &str) -> Result<Checkpoint> {
        open::from_gguf(bytes, Path::new(name), None)
    }

    /// The same model with an adapter beside its weights.
    ///
    /// # Errors
    /// [`Error::Config`] if a part of the adapter has no place in the model.
    pub fn with_adapter(mut self, adapter: Adapter) -> Result<Checkpoint> {
        adapter.check(&self.config)?;
        self.adapter = Some(adapter);
        Ok(self)
    }

    /// What stands beside the weights.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// The checked configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Suggested sampling parameters; all `None` where the files are silent.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// Every token that ends an answer, ascending: the union of what the model configuration, the generation
    /// configuration and the tokenizer configuration name; in GGUF files of the end-of-sequence, end-of-turn and
    /// end-of-message ids and the control tokens `</s>` and `<|im_end|>`.
    pub fn stop_token_ids(&self) -> Vec<u32> {
        self.stop_token_ids.clone()
    }

    /// Container of the weights.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The files that hold weights; none of a model that is part of the program.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// All tensors in file order, each expert apart. Includes tensors that no layer uses (scales, heads for
    /// multi-token prediction).
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The tensor `name`, by its checkpoint name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if it is absent, [`Error::UnsupportedDType`] if its type cannot be read.
    pub fn tensor(&self, name: &str) -> Result<StoredTensor> {
        self.find(name)?
            .ok_or_else(|| Error::MissingTensor { name: name.to_string() }.in_file(self.weights_path()))
    }

    /// The tensor `name` if the checkpoint has it.
    ///
    /// # Errors
    /// [`Error::UnsupportedDType`] if it is there but its type cannot be read.
    pub fn find(&self, name: &str) -> Result<Option<StoredTensor>> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        let Some(dtype) = entry.dtype else {
            let error = Error::UnsupportedDType { name: name.to_string(), found: entry.dtype_name.clone() };
            return Err(error.in_file(self.weights_path()));
        };
        StoredTensor::new(dtype, entry.shape.clone(), entry.bytes.clone()).map(Some)
    }

    /// Metadata of the GGUF file, if it is one.
    pub fn gguf_metadata(&self) -> Option<&gguf::Metadata> {
        self.gguf.as_ref().map(|g| &g.metadata)
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.index.get(name).and_then(|&i| self.entries.get(i))
    }

    /// The file to blame for a tensor: the only one, or the folder of several.
    fn weights_path(&self) -> &Path {
        match self.files.as_slice() {
            [file] => file,
            _ => self.folder.as_deref().unwrap_or(Path::new("the model in memory")),
        }
    }

    /// Compares the table with the tensors that the configuration implies.
    fn check_tensors(&self) -> Result<()> {
        for spec in self.config.tensors() {
            let entry = self.entry(&spec.name).or_else(|| {
                let stem = spec.name.strip_suffix(".A_log")?;
                self.entry(&format!("{stem}.A"))
            });
            let Some(entry) = entry else {
                return Err(Error::MissingTensor { name: spec.name }.in_file(self.weights_path()));
            };
            if entry.shape != spec.shape {
                let (expected, found) = (spec.shape, entry.shape.clone());
                return Err(
                    Error::TensorShape { name: spec.name, expected, found }.in_file(self.weights_path())
                );
            }
        }
        Ok(())
    }
}
