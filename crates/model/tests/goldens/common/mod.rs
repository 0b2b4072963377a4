//! What the golden tests share: fixtures, their cases and their goldens.

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tangelo_formats::Checkpoint;
use tangelo_model::{LogitRows, Model, Segment, State};
use tangelo_ops::{Cx, Mat};

/// The repository's fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// A model of the fixtures: `tiny`, `tiny/f32`, `tiny/gguf/bf16.gguf` …
pub fn load(path: &str) -> Model {
    let checkpoint = Checkpoint::open(&fixtures().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    Model::load(&cx(), &checkpoint).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A context with the machine's best instruction set (or the one forced by the environment).
pub fn cx() -> Cx {
    Cx::from_env().expect("a context")
}

/// A golden array.
pub struct Golden {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Golden {
    pub fn row(&self, r: usize) -> &[f64] {
        let width = self.shape[1..].iter().product::<usize>();
        &self.data[r * width..(r + 1) * width]
    }
}

/// All arrays of a golden file.
pub fn goldens(file: &str) -> BTreeMap<String, Golden> {
    let bytes = std::fs::read(fixtures().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let tensors = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{file}: {e}"));
    let decode = |name: &str| {
        let t = tensors.tensor(name).expect("listed");
        let data = match t.dtype() {
            Dtype::F64 => t.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::F32 => {
                t.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
            }
            other => panic!("{file} {name}: {other:?}"),
        };
        Golden { shape: t.shape().to_vec(), data }
    };
    tensors.names().into_iter().map(|name| (name.to_string(), decode(name))).collect()
}

/// `cases.json` of a fixture.
pub struct Cases(Value);

impl Cases {
    pub fn load(fixture: &str) -> Cases {
        let path = fixtures().join(fixture).join("cases.json");
        Cases(serde_json::from_str(&std::fs::read_to_string(path).expect("cases")).expect("JSON"))
    }

    /// (length, ids) of every prompt.
    pub fn prompts(&self) -> Vec<(usize, Vec<u32>)> {
        let prompts = self.0["prompts"].as_object().expect("prompts");
        prompts.iter().map(|(len, ids)| (len.parse().expect("a length"), numbers(ids))).collect()
    }

    /// The prompt of this length.
    pub fn prompt(&self, len: usize) -> Vec<u32> {
        numbers(&self.0["prompts"][len.to_string()])
    }

    /// Positions whose logits the float64 goldens hold.
    pub fn rows(&self, len: usize) -> Vec<usize> {
        numbers(&self.0["logit_rows_f64"][len.to_string()]).iter().map(|&r| r as usize).collect()
    }

    pub fn text_ids(&self) -> Vec<u32> {
        numbers(&self.0["text_ids"])
    }

    /// (prompt, greedy continuation).
    pub fn greedy(&self) -> Vec<(Vec<u32>, Vec<u32>)> {
        let cases = self.0["greedy"].as_array().expect("greedy");
        cases.iter().map(|c| (self.prompt_of(&c["prompt"]), numbers(&c["output"]))).collect()
    }

    /// A prompt given as ids or as the length of one of the prompts.
    fn prompt_of(&self, value: &Value) -> Vec<u32> {
        if value.is_array() { numbers(value) } else { self.prompt(number(value) as usize) }
    }
}

fn number(value: &Value) -> u32 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).expect("a number") as u32
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list").iter().map(number).collect()
}

/// Logits of all tokens, from the beginning of a sequence.
pub fn logits(model: &Model, cx: &Cx, tokens: &[u32]) -> (Mat, State) {
    let mut state = model.new_state();
    let segment = Segment { tokens, state: &mut state, logits: LogitRows::All };
    let logits = model.forward(cx, &mut [segment]).expect("ids are in range");
    (logits, state)
}

/// The largest difference.
pub fn max_error<'a>(got: impl IntoIterator<Item = &'a f32>, want: impl IntoIterator<Item = &'a f64>) -> f64 {
    let (mut got, mut want) = (got.into_iter(), want.into_iter());
    let mut worst = 0.0f64;
    loop {
        match (got.next(), want.next()) {
            (Some(g), Some(w)) => worst = worst.max((f64::from(*g) - w).abs()),
            (None, None) => return worst,
            _ => panic!("different lengths"),
        }
    }
}

/// log p(target) under the softmax of a row of logits.
pub fn log_probability(logits: &[f32], target: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - largest).exp()).sum();
    f64::from(logits[target as usize] - largest) - sum.ln()
}

/// KL(softmax(want) ‖ softmax(got)).
pub fn divergence(want: &[f64], got: &[f32]) -> f64 {
    let got: Vec<f64> = got.iter().map(|x| f64::from(*x)).collect();
    let log_softmax = |x: &[f64]| {
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|v| (v - largest).exp()).sum();
        x.iter().map(|v| v - largest - sum.ln()).collect::<Vec<f64>>()
    };
    let (p, q) = (log_softmax(want), log_softmax(&got));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}
