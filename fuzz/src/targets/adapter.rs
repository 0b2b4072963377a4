//! An adapter in the layout of PEFT, opened as a folder and put beside a model: the configuration is the first line, the
//! weights are the rest.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tangelo_formats::{Adapter, Checkpoint};

use super::{Target, fixture};

pub(super) const TARGET: Target = Target {
    name: "adapter",
    what: "adapter_config.json and adapter_model.safetensors",
    run: target,
    seeds,
    dictionary: &[
        "\"r\":",
        "\"lora_alpha\":",
        "\"use_dora\":true",
        "\"use_rslora\":true",
        "\"bias\":\"all\"",
        ".lora_A.weight",
        ".lora_B.weight",
        ".lora_magnitude_vector",
        "\"data_offsets\":[0,0]",
        "\"shape\":[0]",
    ],
};

/// Where adapter and model meet: a projection of the model, outputs by inputs.
const PROJECTION: (&str, usize, usize) = ("base_model.model.model.layers.1.mixer.up_proj", 160, 64);
const RANK: usize = 2;

/// A folder of this process with a model; the adapter changes.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = crate::watch::folder().join(format!("adapter-{}", std::process::id()));
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes);
        std::fs::create_dir_all(&folder)
            .and_then(|()| write("config.json", &fixture("tiny/config.json")))
            .and_then(|()| write("model.safetensors", &fixture("tiny/model.safetensors")))
            .expect("the build folder can be written");
        folder
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let (name, out, inputs) = PROJECTION;
    [false, true]
        .map(|dora| {
            let mut parts = vec![("lora_A.weight", vec![RANK, inputs]), ("lora_B.weight", vec![out, RANK])];
            parts.extend(dora.then(|| ("lora_magnitude_vector", vec![out])));
            let (mut header, mut end) = (serde_json::Map::new(), 0);
            for (part, shape) in parts {
                let start = end;
                end += 4 * shape.iter().product::<usize>();
                let entry =
                    serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
                header.insert(format!("{name}.{part}"), entry);
            }
            let config = serde_json::json!({ "r": RANK, "lora_alpha": 4.0, "use_dora": dora });
            let header = serde_json::Value::from(header).to_string();
            let length = (header.len() as u64).to_le_bytes();
            [format!("{config}\n").as_bytes(), &length, header.as_bytes(), &vec![0; end]].concat()
        })
        .to_vec()
}

/// Opens the adapter and puts it beside the model.
pub fn target(data: &[u8]) -> bool {
    let folder = folder();
    let (config, weights) = data.split_at(data.iter().position(|b| *b == b'\n').unwrap_or(data.len()));
    for (name, bytes) in [("adapter_config.json", config), ("adapter_model.safetensors", weights)] {
        let bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        std::fs::write(folder.join(name), bytes).expect("the build folder can be written");
    }
    let Ok(adapter) = Adapter::open(folder) else { return false };
    Checkpoint::open(folder).is_ok_and(|checkpoint| checkpoint.with_adapter(adapter).is_ok())
}
