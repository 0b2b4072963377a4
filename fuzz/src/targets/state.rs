//! A `.state` file, restored into the model that wrote it.
//!
//! The contents are hashed, so a damaged file is refused at the latest there; to get past it, the target puts the
//! right hash into half of the inputs, those whose last byte is even.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tangelo_engine::{Sequence, state_file};
use tangelo_formats::Checkpoint;
use tangelo_model::Model;
use tangelo_ops::{Cx, Simd};

use super::Target;

pub(super) const TARGET: Target = Target {
    name: "state",
    what: "a .state file, restored",
    run: target,
    seeds,
    dictionary: &[
        "\"format\":\"tangelo-state\"",
        "\"version\":\"1\"",
        "\"position\":\"",
        "\"dtype\":\"F32\"",
        "\"dtype\":\"U32\"",
        "layers.0.ssm",
        "layers.0.conv",
        "\"data_offsets\":[0,0]",
        "\"shape\":[0]",
    ],
};

/// Hexadecimal digits of a hash in the header.
const HASH_DIGITS: usize = 64;
/// What stands before them.
const HASH_KEY: &[u8] = b"\"sha256\":\"";

fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tiny");
        let checkpoint = Checkpoint::open(&folder).expect("the fixture is well-formed");
        Model::load(&Cx::new(1, Simd::best()).expect("one thread can be had"), &checkpoint)
            .expect("the fixture is well-formed")
    })
}

/// A file of this process.
fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        std::fs::create_dir_all(crate::watch::folder()).expect("the build folder can be written");
        crate::watch::folder().join(format!("{}.state", std::process::id()))
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let cx = Cx::new(1, Simd::best()).expect("one thread can be had");
    let save = |tokens: &[u32]| {
        let mut sequence = Sequence::new(model());
        sequence.prefill(model(), &cx, tokens, tokens.len()).expect("the tokens are in the vocabulary");
        state_file::save(&sequence, model(), Some("template"), path())
            .expect("the build folder can be written");
        std::fs::read(path()).expect("it was written")
    };
    vec![save(&[1, 40, 41]), save(&[5; 20])]
}

/// Restores the file.
pub fn target(data: &[u8]) -> bool {
    let mut data = data.to_vec();
    if data.last().is_some_and(|last| last % 2 == 0) {
        mend_hash(&mut data);
    }
    std::fs::write(path(), &data).expect("the build folder can be written");
    state_file::restore(path(), model()).is_ok()
}

/// Writes the hash of the header's values and the data into the header, if there is a place for it.
fn mend_hash(data: &mut [u8]) {
    let Some((length, _)) = data.split_first_chunk::<8>() else { return };
    let start = usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|n| n.checked_add(8));
    let Some((head, contents)) = start.and_then(|start| data.split_at_checked(start)) else { return };
    let header: Value = serde_json::from_slice(head.get(8..).unwrap_or_default()).unwrap_or_default();
    let value = |key: &str| header["__metadata__"][key].as_str().unwrap_or_default();
    let mut hasher = Sha256::new();
    // Older versions hash the data alone.
    if !["1", "2"].contains(&value("version")) {
        for text in ["model", "position", "kv", "template"].map(value) {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
    }
    hasher.update(contents);
    let hash: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let key = data.windows(HASH_KEY.len()).position(|w| w == HASH_KEY).map(|at| at + HASH_KEY.len());
    if let Some(place) = key.and_then(|at| data.get_mut(at..at + HASH_DIGITS)) {
        place.copy_from_slice(hash.as_bytes());
    }
}
