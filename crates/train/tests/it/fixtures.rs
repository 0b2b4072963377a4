//! Models and texts that the tests share.

use std::path::{Path, PathBuf};

use tangelo_formats::Checkpoint;
use tangelo_ops::{Cx, Simd};
use tangelo_train::{Batch, Network, Params};

pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

pub fn cx() -> Cx {
    Cx::new(2, Simd::best()).expect("available")
}

/// A model of the fixtures.
pub struct Opened {
    pub checkpoint: Checkpoint,
    pub params: Params,
    pub network: Network,
}

impl Opened {
    pub fn new(name: &str) -> Opened {
        let checkpoint = Checkpoint::open(&path(name)).expect("a checkpoint");
        let params = Params::load(&checkpoint).expect("plain weights");
        let network = Network::new(checkpoint.config(), &params).expect("a dense model");
        Opened { checkpoint, params, network }
    }
}

/// Sequences of these lengths, tokens and marks following from a seed; every third token is not taught.
pub fn batch(lengths: &[usize], vocabulary: usize, weight: f32) -> Batch {
    let mut batch = Batch::default();
    let mut seed = 12345u64;
    for &len in lengths {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % vocabulary
        };
        let tokens: Vec<u32> = (0..=len).map(|_| next() as u32).collect();
        let weights: Vec<f32> = (0..=len).map(|i| if i % 3 == 2 { 0.0 } else { weight }).collect();
        batch.push(&tokens, &weights);
    }
    batch
}
