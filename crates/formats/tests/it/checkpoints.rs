//! The fixture models, opened from every container they come in, must be the same model.

use std::path::{Path, PathBuf};

use tangelo_core::DType;
use tangelo_formats::{BlockKind, Checkpoint, Config, Format, TokenizerSource};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&fixtures().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn config(name: &str) -> Config {
    let text = std::fs::read_to_string(fixtures().join(name).join("config.json")).unwrap();
    Config::from_json(&text).unwrap()
}

#[test]
fn configurations_in_both_vocabularies() {
    for (name, pattern) in [
        ("tiny", "M-M*-M-*"),
        ("odd", "MM-*M-*M"),
        ("moe", "ME*EM*ME"),
        ("moe_latent", "ME*E"),
        ("shape4b", "M-M-M*-M-"),
    ] {
        assert_eq!(config(name).pattern(), pattern, "{name}");
    }
    let odd = config("odd");
    assert_eq!((odd.mamba.num_heads, odd.mamba.head_dim, odd.mamba.num_groups), (6, 20, 3));
    assert_eq!((odd.mamba.state_size, odd.mamba.conv_kernel), (24, 3));
    assert_eq!((odd.mamba.proj_bias, odd.mlp.bias), (true, true));
    assert_eq!((odd.mamba.time_step_limit, odd.norm_eps), ((0.02, 0.4), 1e-3));
    assert_eq!((odd.attention.num_heads, odd.attention.num_kv_heads), (5, 1));
    let latent = config("moe_latent").moe.unwrap();
    assert_eq!((latent.latent_size, latent.num_groups, latent.num_groups_kept), (Some(48), 3, 2));
    assert_eq!((latent.norm_topk_prob, latent.routed_scaling_factor), (false, 1.25));
    let tiny = config("tiny");
    assert_eq!(tiny.mamba.time_step_limit, (0.0, f32::INFINITY));
    assert_eq!((tiny.bos_token_id, tiny.eos_token_ids, tiny.pad_token_id), (Some(1), vec![2], Some(0)));
}

#[test]
fn float32_and_bfloat16_files_hold_the_same_values() {
    for name in ["tiny", "odd", "moe", "moe_latent"] {
        let bf16 = open(name);
        let f32 = open(&format!("{name}/f32"));
        let file = open(&format!("{name}/f32/model.safetensors"));
        assert_eq!(bf16.config(), f32.config());
        let specs = bf16.config().tensors();
        assert_eq!(bf16.tensors().len(), specs.len(), "{name} has no tensors beside those of its layers");
        for spec in specs {
            let narrow = bf16.tensor(&spec.name).unwrap();
            let wide = f32.tensor(&spec.name).unwrap();
            assert_eq!(wide.dtype, DType::F32);
            assert_eq!(narrow.shape, spec.shape);
            assert_eq!(narrow.to_f32().unwrap(), wide.to_f32().unwrap(), "{name} {}", spec.name);
            assert_eq!(wide, file.tensor(&spec.name).unwrap());
        }
    }
}

/// The rows of q and k as llama.cpp's converter orders them: the halves of each head interleaved.
fn interleave_halves(rows: &[f32], columns: usize, head_dim: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len());
    for head in rows.chunks(head_dim * columns) {
        for i in 0..head_dim / 2 {
            out.extend(&head[i * columns..][..columns]);
            out.extend(&head[(i + head_dim / 2) * columns..][..columns]);
        }
    }
    out
}

#[test]
fn gguf_files_hold_the_same_tensors() {
    for name in ["tiny", "moe", "moe_latent"] {
        for kind in ["f32", "bf16"] {
            let reference = open(&format!("{name}/f32"));
            let gguf = open(&format!("{name}/gguf/{kind}.gguf"));
            assert_eq!(gguf.format(), Format::Gguf { version: 3 });
            for spec in reference.config().tensors() {
                let mut expected = reference.tensor(&spec.name).unwrap().to_f32().unwrap();
                if spec.name.ends_with(".A_log") {
                    assert!(gguf.find(&spec.name).unwrap().is_none());
                    let a = gguf.tensor(&spec.name.replace("A_log", "A")).unwrap();
                    assert_eq!((a.dtype, &a.shape), (DType::F32, &spec.shape));
                    for (found, log) in a.to_f32().unwrap().iter().zip(&expected) {
                        let wanted = -f64::from(*log).exp();
                        assert!((f64::from(*found) / wanted - 1.0).abs() < 1e-6, "{found} {wanted}");
                    }
                    continue;
                }
                if spec.name.ends_with("q_proj.weight") || spec.name.ends_with("k_proj.weight") {
                    expected =
                        interleave_halves(&expected, spec.shape[1], reference.config().attention.head_dim);
                }
                let found = gguf.tensor(&spec.name).unwrap();
                assert_eq!(found.shape, spec.shape, "{}", spec.name);
                assert_eq!(found.to_f32().unwrap(), expected, "{name} {kind} {}", spec.name);
            }
        }
    }
}

#[test]
fn gguf_configurations_equal_those_of_config_json() {
    for name in ["tiny", "moe", "moe_latent"] {
        let mut expected = config(name);
        let gguf = open(&format!("{name}/gguf/f32.gguf"));
        // The converter writes 2^20 for every model of the family, and the tokenizer's eos instead of the
        // model's; widths of layer kinds that are absent are not kept.
        assert_eq!(gguf.config().max_position_embeddings, 1 << 20);
        expected.max_position_embeddings = 1 << 20;
        assert_eq!(gguf.config().eos_token_ids, [11]);
        expected.eos_token_ids = vec![11];
        assert_eq!(gguf.config(), &expected, "{name}");
    }
}

#[test]
fn quantised_files_open() {
    for dtype in [DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::IQ4NL] {
        let c = open(&format!("quantised/tiny-{dtype}.gguf"));
        let in_proj = c.tensor("backbone.layers.0.mixer.in_proj.weight").unwrap();
        assert_eq!((in_proj.dtype, in_proj.shape.as_slice()), (dtype, &[472, 64][..]));
        assert!(in_proj.bytes.is_mapped());
        assert!(in_proj.to_f32().unwrap_err().to_string().contains(dtype.name()));
    }
}

#[test]
fn companions_are_found() {
    let folder = open("tiny");
    assert_eq!(folder.stop_token_ids(), [2, 11]);
    assert!(
        matches!(folder.tokenizer_source(), TokenizerSource::Json(path) if path.ends_with("tokenizer.json"))
    );
    assert_eq!(folder.generation().top_p, Some(0.95));
    assert_eq!((folder.format(), folder.files().len()), (Format::Safetensors, 1));
    let template = folder.chat_template().unwrap().unwrap();
    assert!(template.contains("<|im_start|>"));
    assert_eq!(folder.license(), None);

    let gguf = open("tiny/gguf/bf16.gguf");
    assert_eq!(gguf.stop_token_ids(), [2, 11]);
    let TokenizerSource::Gguf(metadata) = gguf.tokenizer_source() else { panic!("the tokenizer is inside") };
    let tokens = metadata.get_str_array("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!((tokens.len(), tokens.get(10)), (512, Some("<|im_start|>")));
    assert_eq!(gguf.chat_template().unwrap().unwrap(), template);
    assert_eq!(gguf.generation().top_p, Some(0.95));

    let bare = open("tiny/f32");
    assert!(matches!(bare.tokenizer_source(), TokenizerSource::Missing));
    assert_eq!((bare.chat_template().unwrap(), bare.stop_token_ids()), (None, vec![2]));
}

#[test]
fn fingerprints_tell_files_apart_and_ignore_where_they_lie() {
    let tiny = open("tiny").fingerprint();
    assert_eq!(tiny, open("tiny/model.safetensors").fingerprint());
    let others = ["tiny/f32", "tiny/gguf/bf16.gguf", "tiny/gguf/f32.gguf", "odd", "quantised/tiny-Q4_0.gguf"];
    let mut all: Vec<_> = others.into_iter().map(|name| open(name).fingerprint()).collect();
    all.push(tiny);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), others.len() + 1);
}

#[test]
fn an_absent_tensor_is_named_with_its_file() {
    let error = open("tiny").tensor("backbone.layers.0.mixer.q_proj.weight").unwrap_err().to_string();
    assert!(
        error.contains("tiny/model.safetensors: tensor `backbone.layers.0.mixer.q_proj.weight` is missing")
    );
    assert!(error.ends_with("download it again"), "{error}");
    assert_eq!(open("tiny").config().num_blocks(BlockKind::Mamba), 3);
}
