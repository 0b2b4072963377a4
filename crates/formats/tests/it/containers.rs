//! Containers the fixtures do not come in: shards, the names of transformers, FP8 with scales, files in the
//! hub's cache, and GGUF files that this crate has written itself.

use crate::common::{TempFolder, fixtures, gguf_file, plan, safetensors_file, small_config};
use tangelo_core::DType;
use tangelo_formats::gguf::{self, TensorPlan, names::Layout};
use tangelo_formats::{Checkpoint, Format};

/// Same tensors under the same names.
fn assert_same(a: &Checkpoint, b: &Checkpoint) {
    assert_eq!(a.config(), b.config());
    assert_eq!(a.tensors().len(), b.tensors().len());
    for entry in a.tensors() {
        assert_eq!(a.tensor(&entry.name).unwrap(), b.tensor(&entry.name).unwrap(), "{}", entry.name);
    }
}

#[test]
fn shards_make_one_checkpoint() {
    let config = small_config('E');
    let whole = TempFolder::new();
    whole.write("config.json", config.to_json());
    whole.write("model.safetensors", safetensors_file(&plan(&config)));
    let whole_checkpoint = Checkpoint::open(&whole.0).unwrap();
    let bytes = |name: &str| whole_checkpoint.tensor(name).unwrap().bytes.to_vec();

    let sharded = TempFolder::new();
    sharded.write("config.json", config.to_json());
    let mut weight_map = serde_json::Map::new();
    for (i, part) in plan(&config).chunks(10).enumerate() {
        let file = format!("model-{:05}-of-00009.safetensors", i + 1);
        let plans = part
            .iter()
            .map(|(name, dtype, shape)| tangelo_formats::safetensors::TensorPlan {
                name: name.clone(),
                dtype: *dtype,
                shape: shape.clone(),
            })
            .collect();
        let mut writer =
            tangelo_formats::safetensors::Writer::new(Vec::new(), &Default::default(), plans).unwrap();
        for (name, _, _) in part {
            weight_map.insert(name.clone(), file.clone().into());
            writer.tensor(name, |out| out.write_all(&bytes(name))).unwrap();
        }
        sharded.write(&file, writer.finish().unwrap());
    }
    let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": weight_map});
    sharded.write("model.safetensors.index.json", index.to_string());
    let sharded = Checkpoint::open(&sharded.0).unwrap();
    assert!(sharded.files().len() > 1);
    assert_eq!(sharded.format(), Format::Safetensors);
    assert_same(&whole_checkpoint, &sharded);
    assert_eq!(whole_checkpoint.fingerprint(), sharded.fingerprint());
}

#[test]
fn names_of_transformers_are_understood() {
    let config = small_config('E');
    let moe = config.moe.clone().unwrap();
    let mut tensors = Vec::new();
    for (name, dtype, shape) in plan(&config) {
        let renamed = name.replace("backbone.", "model.");
        match name.split_once(".experts.") {
            Some((layer, "0.up_proj.weight" | "0.down_proj.weight")) => {
                let (_, projection) = renamed.split_once(".experts.0.").unwrap();
                let layer = layer.replace("backbone.", "model.");
                let stack = format!("{layer}.experts.{}", projection.trim_end_matches(".weight"));
                tensors.push((stack, dtype, vec![moe.num_experts, shape[0], shape[1]]));
            }
            Some(_) => {}
            None => tensors.push((renamed, dtype, shape)),
        }
    }
    let folder = TempFolder::new();
    folder.write("config.json", config.to_json());
    folder.write("model.safetensors", safetensors_file(&tensors));
    let checkpoint = Checkpoint::open(&folder.0).unwrap();
    let expert =
        |e: usize| checkpoint.tensor(&format!("backbone.layers.2.mixer.experts.{e}.up_proj.weight")).unwrap();
    assert_eq!(expert(1).shape, [2, 4]);
    let (first, second) = (expert(0).to_f32().unwrap(), expert(1).to_f32().unwrap());
    let step = second[0] - first[0];
    assert_eq!(step, 8.0 / 16.0, "an expert follows the eight values of the one before");
    assert!(first.iter().zip(&second).all(|(a, b)| b - a == step));
}

#[test]
fn fp8_weights_come_with_their_scales() {
    let config = small_config('-');
    let mut tensors = plan(&config);
    let layer = "backbone.layers.2.mixer.up_proj";
    tensors.iter_mut().find(|t| t.0 == format!("{layer}.weight")).unwrap().1 = DType::F8E4M3;
    tensors.push((format!("{layer}.weight_scale"), DType::F32, vec![]));
    tensors.push((format!("{layer}.input_scale"), DType::F32, vec![1]));
    tensors.push(("backbone.layers.1.mixer.k_proj.k_scale".into(), DType::F32, vec![]));
    let folder = TempFolder::new();
    folder.write("config.json", config.to_json());
    folder.write("model.safetensors", safetensors_file(&tensors));
    let checkpoint = Checkpoint::open(&folder.0).unwrap();
    let weight = checkpoint.tensor(&format!("{layer}.weight")).unwrap();
    assert_eq!(weight.dtype, DType::F8E4M3);
    assert_eq!(weight.to_f32().unwrap(), [1.0; 8]);
    for (name, shape) in [("weight_scale", &[][..]), ("input_scale", &[1])] {
        let scale = checkpoint.tensor(&format!("{layer}.{name}")).unwrap();
        assert_eq!((scale.shape.as_slice(), scale.to_f32().unwrap().len()), (shape, 1));
    }
    assert!(checkpoint.find("backbone.layers.1.mixer.k_proj.k_scale").unwrap().is_some());
    assert!(checkpoint.find("backbone.layers.1.mixer.v_proj.v_scale").unwrap().is_none());
}

#[test]
fn a_gguf_file_opens_by_magic_and_from_its_folder() {
    let file = gguf_file(&small_config('-'), |_, _| {});
    let folder = TempFolder::new();
    let blob = Checkpoint::open(&folder.write("0123abcd", &file)).unwrap();
    assert_eq!(blob.format(), Format::Gguf { version: 3 });
    assert_eq!(blob.format().to_string(), "GGUF v3");
    folder.write("model.gguf", &file);
    assert_same(&blob, &Checkpoint::open(&folder.0).unwrap());
    let mut version2 = file;
    version2[4] = 2;
    let old = Checkpoint::open(&folder.write("model.gguf", &version2)).unwrap();
    assert_eq!(old.format(), Format::Gguf { version: 2 });
}

/// Writes a GGUF file from a safetensors checkpoint by the table of names alone.
fn convert(source: &Checkpoint) -> Vec<u8> {
    let metadata = gguf::arch::metadata_from_config(source.config(), "converted").unwrap();
    let tensors = gguf::names::from_config(source.config()).unwrap();
    let plan = |t: &gguf::names::GgufTensor| TensorPlan {
        name: t.name.clone(),
        dtype: DType::F32,
        shape: t.shape.clone(),
    };
    let mut writer = gguf::Writer::new(Vec::new(), &metadata, tensors.iter().map(plan).collect()).unwrap();
    for tensor in &tensors {
        let values = tensor.sources.iter().flat_map(|name| source.tensor(name).unwrap().to_f32().unwrap());
        let value = |x: f32| if tensor.layout == Layout::NegativeExp { -x.exp() } else { x };
        let mut values = values.map(value);
        writer.tensor(&tensor.name, |out| values.try_for_each(|x| out.write_all(&x.to_le_bytes()))).unwrap();
    }
    writer.finish().unwrap()
}

/// The fixture files were written by llama.cpp's converter: ours must hold the same tensors in the same shapes.
#[test]
fn written_files_equal_those_of_llama_cpp() {
    for name in ["tiny", "moe", "moe_latent"] {
        let ours = convert(&Checkpoint::open(&fixtures().join(name).join("f32")).unwrap());
        let theirs = std::fs::read(fixtures().join(name).join("gguf/f32.gguf")).unwrap();
        let (a, b) = (gguf::parse(&ours).unwrap(), gguf::parse(&theirs).unwrap());
        assert_eq!(a.tensors.len(), b.tensors.len());
        for tensor in &b.tensors {
            let mine =
                a.tensors.iter().find(|t| t.name == tensor.name).unwrap_or_else(|| panic!("{}", tensor.name));
            assert_eq!((mine.dtype, &mine.shape), (tensor.dtype, &tensor.shape), "{}", tensor.name);
            let reordered = tensor.name.contains("attn_q") || tensor.name.contains("attn_k");
            // Ours is -exp in this test's arithmetic, theirs in numpy's.
            let computed = tensor.name.ends_with("ssm_a");
            if !reordered && !computed {
                assert!(ours[mine.range.clone()] == theirs[tensor.range.clone()], "{}", tensor.name);
            }
        }
        for (key, value) in b.metadata.iter() {
            let said_elsewhere = ["context_length", "rope.scaling.finetuned", "tokenizer.", "general."];
            if !said_elsewhere.iter().any(|k| key.contains(k)) {
                assert_eq!(a.metadata.get(key), Some(value), "{key}");
            }
        }
    }
}

#[test]
fn companions_in_their_other_forms() {
    let folder = TempFolder::new();
    folder.write("config.json", small_config('-').to_json());
    folder.write("model.safetensors", safetensors_file(&plan(&small_config('-'))));
    let open = || Checkpoint::open(&folder.0).unwrap();
    assert_eq!((open().chat_template().unwrap(), open().license()), (None, None));
    assert_eq!(open().stop_token_ids(), [2]);

    folder.write(
        "tokenizer_config.json",
        r#"{"chat_template": "one", "eos_token": {"content": "<end>"},
        "added_tokens_decoder": {"7": {"content": "<end>"}}}"#,
    );
    assert_eq!(open().chat_template().unwrap().as_deref(), Some("one"));
    assert_eq!(open().stop_token_ids(), [2, 7]);
    folder.write(
        "tokenizer_config.json",
        r#"{"eos_token": "<end>", "chat_template":
        [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]}"#,
    );
    assert_eq!(open().chat_template().unwrap().as_deref(), Some("three"));
    assert_eq!(open().stop_token_ids(), [2], "nothing says which id <end> is");
    folder.write(
        "tokenizer.json",
        r#"{"model": {}, "added_tokens": [{"id": 9, "content": "<end>", "special": true}]}"#,
    );
    assert_eq!(open().stop_token_ids(), [2, 9]);
    folder.write("chat_template.jinja", "four");
    assert_eq!(open().chat_template().unwrap().as_deref(), Some("four"), "the file goes before the key");

    folder.write("LICENSE", "\n  Some Licence 1.0\nwords");
    assert_eq!(open().license().as_deref(), Some("Some Licence 1.0"));
    folder.write("README.md", "---\nlicense: apache-2.0\n---\n");
    assert_eq!(open().license().as_deref(), Some("apache-2.0"));
    let gguf =
        gguf_file(&small_config('-'), |m, _| m.set("general.license", gguf::Value::String("mit".into())));
    let gguf = Checkpoint::open(&folder.write("model.gguf", gguf)).unwrap();
    assert_eq!(gguf.license().as_deref(), Some("mit"));
    assert_eq!(gguf.chat_template().unwrap().as_deref(), Some("four"), "the file beside it, as it has none");

    folder.write("tokenizer_config.json", r#"{"chat_template": 7}"#);
    std::fs::remove_file(folder.0.join("chat_template.jinja")).unwrap();
    let error = open().chat_template().unwrap_err().to_string();
    assert!(error.contains("`chat_template` should be a string or a list of named templates"), "{error}");
}

#[test]
fn a_fingerprint_sees_every_bit_of_a_small_model() {
    let folder = TempFolder::new();
    let config = small_config('-');
    folder.write("config.json", config.to_json());
    let bytes = safetensors_file(&plan(&config));
    let fingerprint =
        |bytes: &[u8]| Checkpoint::open(&folder.write("model.safetensors", bytes)).unwrap().fingerprint();
    let original = fingerprint(&bytes);
    for at in (bytes.len() - 64..bytes.len()).chain([bytes.len() - 500]) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_ne!(fingerprint(&changed), original);
    }
    assert_eq!(fingerprint(&bytes), original);
    let mut other = config.clone();
    other.norm_eps = 2e-5;
    folder.write("config.json", other.to_json());
    assert_ne!(fingerprint(&bytes), original, "the configuration is part of the identity");
}
