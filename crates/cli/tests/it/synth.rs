//! `tangelo synth`: the weights of the fixtures made again bit for bit, the types of the published files, and what
//! happens to wrong wishes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tangelo_core::DType;
use tangelo_formats::{Checkpoint, gguf};
use tangelo_model::{LogitRows, Model, Segment};
use tangelo_ops::{Cx, Simd};

use crate::program::{arg, fixture, refused, run, scratch};

/// Makes a model from a fixture's configuration.
fn synth(fixture_name: &str, out: &Path, extra: &[&str]) -> String {
    let config = fixture(fixture_name).join("config.json");
    let mut args = vec!["synth", "--config", arg(&config), "--out", arg(out)];
    args.extend(extra);
    run(&args)
}

#[test]
fn fixtures_are_made_again_bit_for_bit() {
    let folder = scratch("synth-fixtures");
    let cases = [
        ("tiny", &[][..]),
        ("odd", &["--f32-params", "A_log,D,dt_bias"]),
        ("moe", &[]),
        ("moe_latent", &["--name", "moe_latent"]),
    ];
    for (name, extra) in cases {
        for (quant, original) in [("bf16", "model.safetensors"), ("f32", "f32/model.safetensors")] {
            let out = folder.join(format!("{name}-{quant}"));
            synth(name, &out, &[&["--format", "safetensors", "--quant", quant], extra].concat());
            let made = fs::read(out.join("model.safetensors")).expect("weights");
            assert!(made == fs::read(fixture(name).join(original)).expect("a fixture"), "{name} {quant}");
            let (made, given) = (Checkpoint::open(&out), Checkpoint::open(&fixture(name)));
            assert_eq!(made.expect("a model").config().tensors(), given.expect("a model").config().tensors());
        }
    }
}

/// Against files made by llama.cpp's converter.
#[test]
fn gguf_files_hold_what_a_converter_puts_in_them() {
    let folder = scratch("synth-gguf");
    for name in ["tiny", "moe", "moe_latent"] {
        for quant in ["f32", "bf16"] {
            let out = folder.join(format!("{name}-{quant}.gguf"));
            let tokenizer = fixture(name);
            synth(name, &out, &["--quant", quant, "--tokenizer", arg(&tokenizer)]);
            let (ours, theirs) = (fs::read(&out), fs::read(fixture(name).join(format!("gguf/{quant}.gguf"))));
            compare_gguf(&ours.expect("our file"), &theirs.expect("their file"), &format!("{name} {quant}"));
        }
    }
}

pub fn compare_gguf(ours: &[u8], theirs: &[u8], what: &str) {
    let (a, b) = (gguf::parse(ours).expect("ours"), gguf::parse(theirs).expect("theirs"));
    assert_eq!(a.tensors.len(), b.tensors.len(), "{what}");
    for t in &b.tensors {
        let found = a.tensors.iter().find(|o| o.name == t.name).expect(&t.name);
        assert_eq!((found.dtype, &found.shape), (t.dtype, &t.shape), "{what} {}", t.name);
        let (found, expected) = (&ours[found.range.clone()], &theirs[t.range.clone()]);
        if t.name.ends_with("ssm_a") {
            // Their exponential may be off by one unit in the last place.
            let bits = |bytes: &[u8]| -> Vec<u32> {
                bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
            };
            for (x, y) in bits(found).into_iter().zip(bits(expected)) {
                assert!(x.abs_diff(y) <= 1, "{what} {}", t.name);
            }
        } else if t.name.ends_with("attn_q.weight") || t.name.ends_with("attn_k.weight") {
            // That converter reorders the rows of each head, a habit from rotary embeddings.
            let rows = |bytes: &[u8]| -> Vec<Vec<u8>> {
                let mut rows: Vec<_> = bytes.chunks(bytes.len() / t.shape[0]).map(<[u8]>::to_vec).collect();
                rows.sort();
                rows
            };
            assert!(rows(found) == rows(expected), "{what} {}", t.name);
        } else {
            assert!(found == expected, "{what} {}", t.name);
        }
    }
    let provenance = |key: &str| {
        let ours_alone = ["general.name", "general.size_label", "tokenizer.ggml.add_bos_token"];
        key.starts_with("general.sampling.")
            || key.ends_with("rope.scaling.finetuned")
            || ours_alone.contains(&key)
    };
    for (key, value) in b.metadata.iter().filter(|(key, _)| !provenance(key)) {
        // The converter writes a context of 2^20 whatever the model has.
        if !key.ends_with("context_length") {
            assert_eq!(a.metadata.get(key).map(shown), Some(shown(value)), "{what} {key}");
        }
    }
}

/// A value without the width of its integers, in which writers differ.
fn shown(value: &gguf::Value) -> String {
    match value {
        gguf::Value::Array(array) => {
            array.to_u64s().map_or_else(|| format!("{array:?}"), |n| format!("{n:?}"))
        }
        other => other.as_u64().map_or_else(|| format!("{other:?}"), |n| n.to_string()),
    }
}

fn logits(path: &Path) -> Vec<f32> {
    let cx = Cx::new(1, Simd::best()).expect("a context");
    let model = Model::load(&cx, &Checkpoint::open(path).expect("a model")).expect("its tensors");
    let segment = Segment { tokens: &[5, 40, 100], state: &mut model.new_state(), logits: LogitRows::Last };
    let logits = model.forward(&cx, &mut [segment]).expect("logits");
    logits.row(0).to_vec()
}

#[test]
fn every_type_can_be_opened_and_run() {
    let folder = scratch("synth-types");
    let exact = folder.join("exact.gguf");
    synth("shape4b", &exact, &["--quant", "bf16"]);
    let expected = logits(&exact);
    for quant in ["q8_0", "q4_0", "q3_k_m", "q4_k_m", "iq4_nl", "f16"] {
        let out = folder.join(format!("{quant}.gguf"));
        synth("shape4b", &out, &["--quant", quant]);
        let found = logits(&out);
        let mean = found.iter().zip(&expected).map(|(x, y)| (x - y).abs()).sum::<f32>() / found.len() as f32;
        assert!(found.iter().all(|x| x.is_finite()) && mean < 1.5, "{quant}: {mean}");
        assert!(quant == "f16" || mean > 0.0, "{quant} is not quantised");
    }
}

#[test]
fn fp8_has_scales_and_exclusions() {
    let folder = scratch("synth-fp8");
    let out = folder.join("fp8");
    synth("shape4b", &out, &["--format", "safetensors", "--fp8"]);
    let checkpoint = Checkpoint::open(&out).expect("a model");
    let tensor = |name: &str| checkpoint.tensor(&format!("backbone.layers.{name}")).expect(name);
    // The pattern is M-M-M*-M-: layer 4 feeds attention.
    assert_eq!(tensor("0.mixer.in_proj.weight").dtype, DType::F8E4M3);
    assert_eq!(tensor("1.mixer.down_proj.weight").dtype, DType::F8E4M3);
    assert_eq!(tensor("4.mixer.in_proj.weight").dtype, DType::BF16);
    assert_eq!(tensor("5.mixer.k_proj.weight").dtype, DType::BF16);
    assert_eq!(tensor("5.mixer.k_proj.k_scale").shape, [] as [usize; 0]);
    let scale = tensor("0.mixer.in_proj.weight_scale").to_f32().expect("a scalar")[0];
    let stored = tensor("0.mixer.in_proj.weight").to_f32().expect("FP8 values");
    let exact = folder.join("bf16");
    synth("shape4b", &exact, &["--format", "safetensors"]);
    let exact_model = Checkpoint::open(&exact).expect("a model");
    let exact_values = exact_model.tensor("backbone.layers.0.mixer.in_proj.weight").expect("the tensor");
    let largest = stored.iter().fold(0f32, |max, x| max.max(x.abs()));
    assert!((440.0..=448.0).contains(&largest), "{largest}");
    for (x, y) in stored.iter().zip(exact_values.to_f32().expect("values")) {
        // Three bits of mantissa, and steps of 2^-9 below 2^-6.
        assert!((x * scale - y).abs() <= (y.abs() / 16.0).max(scale / 1024.0) * 1.01, "{x} {y}");
    }
    let mean: f32 = logits(&out).iter().zip(logits(&exact)).map(|(x, y)| (x - y).abs()).sum::<f32>() / 2048.0;
    assert!(mean > 0.0 && mean < 0.5, "{mean}");
    let read = |name: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(out.join(name)).expect(name)).expect("JSON")
    };
    assert_eq!(read("config.json")["quantization_config"]["quant_method"], "modelopt");
    let excluded = read("hf_quant_config.json")["quantization"]["exclude_modules"].clone();
    let excluded = excluded.as_array().expect("a list");
    assert!(excluded.iter().any(|n| n == "backbone.layers.4.mixer.in_proj") && !excluded.is_empty());
}

#[test]
fn the_weights_depend_on_name_and_seed_alone() {
    let folder = scratch("synth-names");
    let make = |name: &str, extra: &[&str]| {
        let out = folder.join(name);
        synth("tiny", &out, &[&["--quant", "q8_0"], extra].concat());
        let bytes = fs::read(&out).expect("a file");
        let start = gguf::parse(&bytes).expect("a GGUF file").tensors[0].range.start;
        bytes[start..].to_vec()
    };
    let (plain, threads) = (make("a.gguf", &[]), make("b.gguf", &["--threads", "3"]));
    assert!(plain == threads && plain == make("c.gguf", &["--name", "tiny"]));
    let seeds = [make("d.gguf", &["--seed", "1"]), make("e.gguf", &["--seed", "2"])];
    assert!(seeds[0] != plain && seeds[0] != seeds[1]);
    assert!(seeds[0] == make("f.gguf", &["--seed", "1"]));
}

#[test]
fn companions_are_written_or_made_up() {
    let folder = scratch("synth-companions");
    let made_up = folder.join("made-up");
    synth("tiny", &made_up, &["--format", "safetensors"]);
    assert_eq!(run(&["tokenize", arg(&made_up), "--text", "<think>a", "--json"]).lines().count(), 1);
    let generation = fs::read_to_string(made_up.join("generation_config.json")).expect("a file");
    let generation: Value = serde_json::from_str(&generation).expect("JSON");
    assert_eq!(generation["eos_token_id"], serde_json::json!([2, 11]));
    let given = folder.join("given");
    let tokenizer = fixture("tokenizer/tokenizer512");
    synth("tiny", &given, &["--format", "safetensors", "--tokenizer", arg(&tokenizer)]);
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        assert_eq!(fs::read(given.join(name)).expect(name), fs::read(tokenizer.join(name)).expect(name));
    }
}

#[test]
fn wrong_wishes_are_refused_and_leave_nothing() {
    let folder = scratch("synth-refused");
    let out = folder.join("x");
    let tiny = fixture("tiny/config.json");
    let odd = fixture("odd/config.json");
    let with = |args: &[&str], status: i32, expected: &str| {
        let args = [&["synth", "--out", arg(&out)], args].concat();
        refused(&args, status, expected);
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0, "{args:?}");
    };
    with(&[], 2, "--shape");
    with(&["--shape", "nemotron-5"], 2, "nemotron-3-nano-4b");
    with(&["--config", arg(&tiny), "--quant", "q9"], 2, "q4_k_m");
    with(&["--config", arg(&tiny), "--fp8"], 2, "--format safetensors");
    with(&["--config", arg(&tiny), "--format", "safetensors", "--quant", "q8_0"], 2, "--format gguf");
    with(&["--config", "no/config.json"], 1, "no/config.json");
    with(&["--config", arg(&odd)], 1, "safetensors");
    let large = fixture("tokenizer/tokenizer2048");
    with(&["--config", arg(&tiny), "--tokenizer", arg(&large)], 1, "2048");
    let nowhere = PathBuf::from("no/such/folder/x.gguf");
    refused(&["synth", "--config", arg(&tiny), "--out", arg(&nowhere)], 1, "does not exist");
    fs::create_dir_all(out.join("full")).expect("a folder");
    let args = ["synth", "--config", arg(&tiny), "--format", "safetensors", "--out", arg(&out)];
    refused(&args, 1, "exists already");
}

/// Ctrl-C while a large model is written.
#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_nothing() {
    let folder = scratch("synth-interrupted");
    for (format, out) in [("gguf", "x.gguf"), ("safetensors", "x")] {
        let out = folder.join(out);
        let args =
            ["synth", "--shape", "nemotron-h-4b", "--format", format, "--threads", "1", "--out", arg(&out)];
        let mut child =
            Command::new(env!("CARGO_BIN_EXE_tangelo")).args(args).spawn().expect("the program starts");
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::read_dir(&folder).expect("a folder").count() == 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(5));
        }
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "the program has ended by itself");
        assert_eq!(child.wait().expect("the program ends").code(), Some(130), "{format}");
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0, "{format}");
    }
}
