//! The index of a sharded checkpoint, opened as a folder: this one target needs files, because the index is
//! only read together with the shards that it names.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tangelo_formats::Checkpoint;
use tangelo_formats::safetensors::parse_header;

use super::{Target, fixture};

const SHARD: &str = "model-00001-of-00001.safetensors";

pub(super) const TARGET: Target = Target {
    name: "index",
    what: "model.safetensors.index.json with the shard it names",
    run: target,
    seeds,
    dictionary: &[SHARD, "\"weight_map\"", "../", "/", "config.json", "\"metadata\"", "\"total_size\":"],
};

/// A folder of this process with the configuration and the shard; the index changes.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = crate::watch::folder().join(format!("index-{}", std::process::id()));
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes);
        std::fs::create_dir_all(&folder)
            .and_then(|()| write("config.json", &fixture("tiny/config.json")))
            .and_then(|()| write(SHARD, &fixture("tiny/model.safetensors")))
            .expect("the build folder can be written");
        folder
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let shard = fixture("tiny/model.safetensors");
    let header = parse_header(&shard, shard.len()).expect("the fixture is well-formed");
    let map: serde_json::Map<_, _> = header.tensors.iter().map(|t| (t.name.clone(), SHARD.into())).collect();
    vec![
        serde_json::json!({ "metadata": { "total_size": shard.len() }, "weight_map": map })
            .to_string()
            .into_bytes(),
    ]
}

/// Opens the folder with `data` as its index and looks at every tensor.
pub fn target(data: &[u8]) -> bool {
    let folder = folder();
    std::fs::write(folder.join("model.safetensors.index.json"), data)
        .expect("the build folder can be written");
    let Ok(checkpoint) = Checkpoint::open(folder) else { return false };
    let names: Vec<String> = checkpoint.tensors().map(|t| t.name.clone()).collect();
    names.iter().all(|name| checkpoint.tensor(name).is_ok())
}
