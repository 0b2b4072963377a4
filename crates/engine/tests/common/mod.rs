//! Fixture models, their prompts, and comparison by bits.
#![allow(dead_code)] // Each test program uses its part.

use std::path::PathBuf;

use tangelo_engine::Sequence;
use tangelo_formats::Checkpoint;
use tangelo_model::Model;
use tangelo_ops::attention::Elements;
use tangelo_ops::{Cx, Simd};

/// Models under the laws: every kind of block, plain and quantised weights. (files, folder of the prompts)
pub const MODELS: [(&str, &str); 7] = [
    ("tiny/f32", "tiny"),
    ("tiny", "tiny"),
    ("odd", "odd"),
    ("moe", "moe"),
    ("moe_latent", "moe_latent"),
    ("quantised/tiny-Q5_0.gguf", "tiny"),
    ("quantised/tiny-Q8_0.gguf", "tiny"),
];

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

pub fn load(name: &str) -> Model {
    Model::load(&cx(), &Checkpoint::open(&fixture(name)).unwrap()).unwrap()
}

pub fn cases(folder: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(fixture(folder).join("cases.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The prompt of `len` tokens.
pub fn prompt(folder: &str, len: usize) -> Vec<u32> {
    ids(&cases(folder)["prompts"][len.to_string()])
}

pub fn cx() -> Cx {
    Cx::new(2, Simd::best()).unwrap()
}

pub fn prefilled(model: &Model, cx: &Cx, tokens: &[u32]) -> Sequence {
    let mut sequence = Sequence::new(model);
    sequence.prefill(model, cx, tokens, tokens.len()).unwrap();
    sequence
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn data_bits(data: &Elements) -> Vec<u32> {
    match data {
        Elements::F32(data) => bits(data),
        Elements::F16(data) => data.iter().map(|&bits| bits.into()).collect(),
    }
}

/// Everything a sequence can be told apart by.
#[derive(Debug, PartialEq)]
pub struct Seen {
    tokens: Vec<u32>,
    logits: Option<Vec<u32>>,
    state: Vec<(String, Vec<usize>, Vec<u32>)>,
}

pub fn seen(model: &Model, sequence: &Sequence) -> Seen {
    let state = sequence.state().tensors(model.config());
    Seen {
        tokens: sequence.tokens().to_vec(),
        logits: sequence.logits().map(bits),
        state: state.into_iter().map(|t| (t.name, t.shape, data_bits(&t.data))).collect(),
    }
}

/// Fails without printing a million numbers.
pub fn assert_same(a: &Seen, b: &Seen, what: &str) {
    assert_eq!(a.tokens, b.tokens, "{what}: tokens");
    assert!(a.logits == b.logits, "{what}: logits differ");
    for (a, b) in a.state.iter().zip(&b.state) {
        assert!(a == b, "{what}: {} differs", a.0);
    }
    assert_eq!(a.state.len(), b.state.len(), "{what}");
}
