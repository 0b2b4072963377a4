//! FP8 checkpoints as ModelOpt writes them, against the same weights dequantised to F32.

use crate::common::{Cases, cx, fixtures, logits};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tangelo_core::float::{f8e4m3_to_f32, f32_to_f8e4m3};
use tangelo_formats::Checkpoint;
use tangelo_model::Model;

/// The scale is applied once per output instead of once per weight, so rounding differs like that of two F32 engines.
const LOGITS: f32 = 2e-4;
/// Largest E4M3 number.
const FP8_MAX: f32 = 448.0;

/// A tensor to be written: type, shape, bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// `tiny` twice: linear layers in FP8 with scales, and the same rounded values in F32.
fn make(folder: &Path) -> (PathBuf, PathBuf) {
    let bytes = std::fs::read(fixtures().join("tiny/f32/model.safetensors")).expect("the fixture");
    let source = SafeTensors::deserialize(&bytes).expect("the fixture");
    let (mut fp8, mut wide) = (BTreeMap::<String, Stored>::new(), BTreeMap::<String, Stored>::new());
    for (i, (name, tensor)) in source.tensors().into_iter().enumerate() {
        let values: Vec<f32> =
            tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let shape = tensor.shape().to_vec();
        if !name.ends_with("_proj.weight") {
            fp8.insert(name.clone(), (Dtype::F32, shape.clone(), f32_bytes(&values)));
            wide.insert(name, (Dtype::F32, shape, f32_bytes(&values)));
            continue;
        }
        let scale = values.iter().fold(0f32, |m, v| m.max(v.abs())) / FP8_MAX;
        let codes: Vec<u8> = values.iter().map(|v| f32_to_f8e4m3(v / scale)).collect();
        let rounded: Vec<f32> = codes.iter().map(|c| f8e4m3_to_f32(*c) * scale).collect();
        // Both spellings of a single number occur.
        let one = if i % 2 == 0 { vec![] } else { vec![1] };
        for (suffix, value) in [("weight_scale", scale), ("input_scale", 0.01)] {
            let scale_name = name.replace("weight", suffix);
            fp8.insert(scale_name, (Dtype::F32, one.clone(), f32_bytes(&[value])));
        }
        fp8.insert(name.clone(), (Dtype::F8_E4M3, shape.clone(), codes));
        wide.insert(name, (Dtype::F32, shape, f32_bytes(&rounded)));
    }
    fp8.insert("backbone.layers.3.mixer.k_proj.k_scale".into(), (Dtype::F32, vec![1], f32_bytes(&[0.5])));
    fp8.insert("backbone.layers.3.mixer.v_proj.v_scale".into(), (Dtype::F32, vec![], f32_bytes(&[0.5])));
    (write(&folder.join("fp8"), &fp8), write(&folder.join("wide"), &wide))
}

fn write(folder: &Path, tensors: &BTreeMap<String, Stored>) -> PathBuf {
    std::fs::create_dir_all(folder).expect("a folder");
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("sizes match"))
    });
    let bytes = safetensors::serialize(views, None).expect("serialisable");
    std::fs::write(folder.join("model.safetensors"), bytes).expect("written");
    std::fs::copy(fixtures().join("tiny/config.json"), folder.join("config.json")).expect("copied");
    folder.to_path_buf()
}

#[test]
fn fp8_weights_with_scales_are_their_dequantised_values() {
    let folder = std::env::temp_dir().join(format!("tangelo-fp8-{}", std::process::id()));
    let (fp8, wide) = make(&folder);
    let load = |path: &Path| Model::load(&cx(), &Checkpoint::open(path).expect("opens")).expect("loads");
    let (fp8, wide, cx) = (load(&fp8), load(&wide), cx());
    let prompt = Cases::load("tiny").prompt(257);
    let (got, want) = (logits(&fp8, &cx, &prompt).0, logits(&wide, &cx, &prompt).0);
    let error = got.data().iter().zip(want.data()).fold(0f32, |m, (g, w)| m.max((g - w).abs()));
    println!("largest difference {error:e}");
    assert!(error <= LOGITS, "off by {error}");
    let original =
        Model::load(&cx, &Checkpoint::open(&fixtures().join("tiny")).expect("opens")).expect("loads");
    let moved = logits(&original, &cx, &prompt).0;
    let rounding = got.data().iter().zip(moved.data()).fold(0f32, |m, (g, w)| m.max((g - w).abs()));
    assert!(rounding > 100.0 * LOGITS, "rounding to FP8 must show, or this test sees nothing: {rounding}");
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_missing_or_useless_scale_is_refused() {
    let folder = std::env::temp_dir().join(format!("tangelo-fp8-scales-{}", std::process::id()));
    let bytes = std::fs::read(fixtures().join("tiny/f32/model.safetensors")).expect("the fixture");
    let source = SafeTensors::deserialize(&bytes).expect("the fixture");
    for (scale, expected) in [
        (None, "weight_scale is missing"),
        (Some(0.0), "positive number"),
        (Some(f32::NAN), "positive number"),
        (Some(-1.0), "positive number"),
    ] {
        let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
        for (name, tensor) in source.tensors() {
            tensors.insert(name, (Dtype::F32, tensor.shape().to_vec(), tensor.data().to_vec()));
        }
        let name = "backbone.layers.1.mixer.up_proj.weight";
        let shape = tensors[name].1.clone();
        let codes = vec![0x38; shape.iter().product()];
        tensors.insert(name.into(), (Dtype::F8_E4M3, shape, codes));
        if let Some(scale) = scale {
            tensors.insert(format!("{name}_scale"), (Dtype::F32, vec![], f32_bytes(&[scale])));
        }
        let path = write(&folder, &tensors);
        let error =
            Model::load(&cx(), &Checkpoint::open(&path).expect("opens")).expect_err("refused").to_string();
        assert!(error.contains(expected), "{scale:?}: {error}");
    }
    std::fs::remove_dir_all(folder).expect("removed");
}
