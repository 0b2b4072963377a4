//! `.state` files: a sequence on disk, restored bit for bit without running the model.
//!
//! The container is safetensors, so that any reader of it can look inside. `__metadata__` holds strings:
//!
//! | key | value |
//! | --- | --- |
//! | `format` | `tangelo-state` |
//! | `version` | [`VERSION`], decimal |
//! | `model` | fingerprint of the weights, 64 hexadecimal digits |
//! | `position` | number of tokens, decimal |
//! | `kv` | type of keys and values, `f32` or `f16`; absent in version 1, which had f32 only |
//! | `template` | whatever the writer uses to tell chat templates apart; may be absent |
//! | `sha256` | 64 hexadecimal digits, of the values above (see `hash_metadata`) and all bytes after the header; in versions 1 and 2 of the latter only |
//!
//! and the tensors, in this order and with K, D, … as in `tangelo_model`, are
//!
//! | name | type | shape |
//! | --- | --- | --- |
//! | `tokens` | U32 | (position) |
//! | `logits` | F32 | (vocabulary): those after the last token; absent if the sequence had none |
//! | `layers.{i}.conv`, `layers.{i}.ssm` | F32 | (k − 1, i + 2·g·n), (h, p, n); Mamba layers |
//! | `layers.{i}.k`, `layers.{i}.v` | F32 or F16, as `kv` says | (position, K, D); attention layers |
//!
//! A state goes on only as it began: one whose keys and values are f16 is refused by a run that keeps them as f32, and
//! the other way round.
//!
//! A reader believes nothing: the header is bounded, version and model are compared first, every tensor must have
//! the one shape that model and position imply, and the file must have exactly the bytes of these tensors; only
//! then is memory taken, and the hash is checked before the sequence is handed out. The hash protects against damage,
//! not against malice: whoever can write the file can write the hash.

mod read;
mod write;

pub(crate) use read::read_tokens;
pub use read::{Restored, restore};
pub use write::save;

use std::collections::HashMap;

use safetensors::Dtype;
use sha2::{Digest as _, Sha256};
use tangelo_model::{LayerState, Model};
use tangelo_ops::attention::KvType;

/// The version written, and the newest that is read.
pub const VERSION: u32 = 3;
const FORMAT: &str = "tangelo-state";
/// Bytes of the header length at the start of a safetensors file.
const LENGTH_BYTES: u64 = 8;
/// Elements converted at a time.
const CONVERTED_AT_ONCE: usize = 1 << 14;

/// What is wrong with a state file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Something else than a state file.
    #[error("this is not a state file ({reason}): give a file written by saving a conversation or a state")]
    NotAState {
        /// What gave it away.
        reason: String,
    },
    /// Written by a later version of this program.
    #[error(
        "the state file has version {found}, but this program reads up to {VERSION}: update the program, or make the \
         state again"
    )]
    NewerVersion {
        /// Version of the file.
        found: u32,
    },
    /// Made by other weights.
    #[error(
        "the state was saved from another model (fingerprint {found}, this model has {expected}): load that model, or \
         make the state again"
    )]
    OtherModel {
        /// Fingerprint in the file, shortened.
        found: String,
        /// Fingerprint of the model, shortened.
        expected: String,
    },
    /// Keys and values are of another type than those of this run.
    #[error(
        "the state keeps keys and values as {found}, but this run keeps them as {expected}: run with --kv {found}, or \
         make the state again"
    )]
    OtherKv {
        /// Type in the file.
        found: KvType,
        /// Type of the run.
        expected: KvType,
    },
    /// A longer or shorter file than its header announces.
    #[error(
        "the state file has {found} bytes instead of {expected}: it was cut short or changed, make it again"
    )]
    Size {
        /// Bytes the header implies.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A header that contradicts the model or itself.
    #[error("the state file is damaged ({what}): make it again")]
    Damaged {
        /// Where.
        what: String,
    },
    /// The hash does not fit the data.
    #[error(
        "the state file is damaged (the SHA-256 of its data is not the one in its header): make it again"
    )]
    Hash,
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq)]
struct Spec {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Spec {
    /// Bytes; `None` if the shape is absurd.
    fn num_bytes(&self) -> Option<usize> {
        let element = if self.dtype == Dtype::F16 { size_of::<u16>() } else { size_of::<u32>() };
        self.shape.iter().try_fold(element, |bytes, &n| bytes.checked_mul(n))
    }
}

/// The tensors of a file, in order.
fn layout(model: &Model, position: usize, has_logits: bool) -> Vec<Spec> {
    let config = model.config();
    let (mamba, attention) = (&config.mamba, &config.attention);
    let spec = |name: String, dtype, shape: &[usize]| Spec { name, dtype, shape: shape.to_vec() };
    let mut specs = vec![spec("tokens".into(), Dtype::U32, &[position])];
    if has_logits {
        specs.push(spec("logits".into(), Dtype::F32, &[config.vocab_size]));
    }
    for (i, layer) in model.new_state().layers().iter().enumerate() {
        let mut part = |part: &str, dtype, shape: &[usize]| {
            specs.push(spec(format!("layers.{i}.{part}"), dtype, shape));
        };
        match layer {
            LayerState::Mamba(_) => {
                part("conv", Dtype::F32, &[mamba.conv_kernel - 1, mamba.conv_size()]);
                part("ssm", Dtype::F32, &[mamba.num_heads, mamba.head_dim, mamba.state_size]);
            }
            LayerState::Attention(_) => {
                let shape = [position, attention.num_kv_heads, attention.head_dim];
                let dtype = match model.kv_type() {
                    KvType::F32 => Dtype::F32,
                    KvType::F16 => Dtype::F16,
                };
                part("k", dtype, &shape);
                part("v", dtype, &shape);
            }
            LayerState::Stateless => {}
        }
    }
    specs
}

/// What the hash says about the header: which model, how long, which type, which template.
fn hash_metadata(hasher: &mut Sha256, metadata: &HashMap<String, String>) {
    for key in ["model", "position", "kv", "template"] {
        let value = metadata.get(key).map_or("", String::as_str);
        hasher.update((value.len() as u64).to_le_bytes());
        hasher.update(value.as_bytes());
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
