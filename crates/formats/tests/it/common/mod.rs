//! What several tests need: fixture paths, temporary folders, random numbers, a GGUF builder that can lie and
//! a model small enough to be damaged at every byte.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tangelo_core::DType;
use tangelo_formats::gguf::{self, Metadata, TensorPlan};
use tangelo_formats::{Config, safetensors};

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// A folder that is removed with everything in it when the test ends.
pub struct TempFolder(pub PathBuf);

impl TempFolder {
    pub fn new() -> TempFolder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tangelo-formats-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        TempFolder(path)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // A folder that cannot be removed is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// splitmix64: the same damage in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Bytes of a GGUF file, put down one value at a time without any check.
#[derive(Clone, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    /// Magic, version 3 and the two counts.
    pub fn header(num_tensors: u64, num_pairs: u64) -> Raw {
        Raw(b"GGUF".to_vec()).u32(3).u64(num_tensors).u64(num_pairs)
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Raw {
        self.0.extend(bytes);
        self
    }

    pub fn u32(self, x: u32) -> Raw {
        self.bytes(&x.to_le_bytes())
    }

    pub fn u64(self, x: u64) -> Raw {
        self.bytes(&x.to_le_bytes())
    }

    pub fn string(self, s: &str) -> Raw {
        self.u64(s.len() as u64).bytes(s.as_bytes())
    }

    /// Name, dimensions (fastest first), type, offset.
    pub fn tensor(self, name: &str, dims: &[u64], dtype: u32, offset: u64) -> Raw {
        let mut raw = self.string(name).u32(dims.len() as u32);
        for &d in dims {
            raw = raw.u64(d);
        }
        raw.u32(dtype).u64(offset)
    }

    /// Padding to 32 bytes and `n` bytes of data.
    pub fn data(mut self, n: usize) -> Raw {
        self.0.resize(self.0.len().next_multiple_of(32) + n, 0);
        self
    }
}

/// The smallest model with all four kinds of layers but one: `M*-`, or `M*E`.
pub fn small_config(last: char) -> Config {
    let text = format!(
        r#"{{"model_type": "nemotron_h", "hybrid_override_pattern": "M*{last}", "hidden_size": 4, "vocab_size": 3,
        "intermediate_size": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2,
        "mamba_num_heads": 2, "mamba_head_dim": 2, "ssm_state_size": 1, "n_groups": 1, "conv_kernel": 2,
        "n_routed_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 2,
        "moe_shared_expert_intermediate_size": 2, "eos_token_id": 2}}"#
    );
    Config::from_json(&text).unwrap()
}

/// A GGUF file of a model, in F32: element i of tensor j is j + i / 16. `edit` may change metadata and tensors.
pub fn gguf_file(config: &Config, edit: impl FnOnce(&mut Metadata, &mut Vec<TensorPlan>)) -> Vec<u8> {
    let mut metadata = gguf::arch::metadata_from_config(config, "small").unwrap();
    let plan = |t: gguf::names::GgufTensor| TensorPlan { name: t.name, dtype: DType::F32, shape: t.shape };
    let mut tensors: Vec<_> = gguf::names::from_config(config).unwrap().into_iter().map(plan).collect();
    edit(&mut metadata, &mut tensors);
    let mut writer = gguf::Writer::new(Vec::new(), &metadata, tensors.clone()).unwrap();
    for (j, t) in tensors.iter().enumerate() {
        let n: usize = t.shape.iter().product();
        writer.tensor(&t.name, |out| values(j, n).try_for_each(|x| out.write_all(&x.to_le_bytes()))).unwrap();
    }
    writer.finish().unwrap()
}

/// The same for safetensors.
pub fn safetensors_file(tensors: &[(String, DType, Vec<usize>)]) -> Vec<u8> {
    let plan = |(name, dtype, shape): &(String, DType, Vec<usize>)| safetensors::TensorPlan {
        name: name.clone(),
        dtype: *dtype,
        shape: shape.clone(),
    };
    let plans = tensors.iter().map(plan).collect();
    let mut writer = safetensors::Writer::new(Vec::new(), &Default::default(), plans).unwrap();
    for (j, (name, dtype, shape)) in tensors.iter().enumerate() {
        let n: usize = shape.iter().product();
        let fill = |out: &mut dyn std::io::Write| match dtype {
            DType::F32 => values(j, n).try_for_each(|x| out.write_all(&x.to_le_bytes())),
            other => out.write_all(&vec![0x38; n * other.block_bytes()]),
        };
        writer.tensor(name, fill).unwrap();
    }
    writer.finish().unwrap()
}

fn values(j: usize, n: usize) -> impl Iterator<Item = f32> {
    (0..n).map(move |i| j as f32 + i as f32 / 16.0)
}

/// The tensors of a configuration as a plan for [`safetensors_file`].
pub fn plan(config: &Config) -> Vec<(String, DType, Vec<usize>)> {
    config.tensors().into_iter().map(|t| (t.name, DType::F32, t.shape)).collect()
}
