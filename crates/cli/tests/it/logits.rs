//! `tangelo logits`: agreement with the goldens through the program, one file whatever the options, and refusals.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tangelo_ops::Simd;

use crate::program::{arg, fixture, output, refused, run, scratch};

/// Of the f32 engine against float64 (`fixtures/README.md`, "Tolerances").
const LOGIT_TOLERANCE: f64 = 2e-4;

fn prompt(fixture_name: &str, length: &str) -> String {
    let cases = fs::read_to_string(fixture(fixture_name).join("cases.json")).expect("the cases");
    let cases: Value = serde_json::from_str(&cases).expect("JSON");
    let ids = cases["prompts"][length].as_array().expect("a prompt");
    ids.iter().map(Value::to_string).collect::<Vec<_>>().join(",")
}

fn write_logits(model: &Path, ids: &str, out: &Path, extra: &[&str]) -> Vec<u8> {
    run(&[&["logits", "--model", arg(model), "--ids", ids, "--out", arg(out)], extra].concat());
    fs::read(out).expect("the logits")
}

#[test]
fn logits_are_those_of_the_goldens() {
    let folder = scratch("logits-goldens");
    let goldens = fs::read(fixture("tiny/goldens_f64.safetensors")).expect("goldens");
    let goldens = SafeTensors::deserialize(&goldens).expect("safetensors");
    let golden = goldens.tensor("logits.9").expect("logits of nine tokens");
    let models = ["tiny", "tiny/model.safetensors", "tiny/gguf/f32.gguf"];
    for model in models {
        let file = write_logits(&fixture(model), &prompt("tiny", "9"), &folder.join("out"), &[]);
        let file = SafeTensors::deserialize(&file).expect("safetensors");
        assert_eq!(file.names(), ["logits"], "{model}");
        let logits = file.tensor("logits").expect("logits");
        assert_eq!((logits.dtype(), logits.shape()), (Dtype::F32, golden.shape()), "{model}");
        let found = logits.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)));
        let expected = golden.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b));
        let error = found.zip(expected).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(error <= LOGIT_TOLERANCE, "{model}: {error:e}");
    }
}

#[test]
fn one_prefix_one_answer() {
    let folder = scratch("logits-laws");
    let ids = prompt("tiny", "50");
    for model in ["tiny", "quantised/tiny-Q5_0.gguf"] {
        let write = |extra: &[&str]| write_logits(&fixture(model), &ids, &folder.join("out"), extra);
        let expected = write(&[]);
        for chunk in ["1", "7", "50", "64"] {
            assert!(write(&["--chunk", chunk]) == expected, "{model}: chunks of {chunk}");
        }
        for threads in ["1", "2", "4"] {
            assert!(write(&["--threads", threads, "--chunk", "9"]) == expected, "{model}: {threads} threads");
        }
        for simd in Simd::available() {
            assert!(write(&["--simd", simd.name(), "--threads", "1"]) == expected, "{model}: {simd}");
        }
    }
}

#[test]
fn ids_come_from_a_file_or_standard_input() {
    let folder = scratch("logits-ids");
    let model = fixture("tiny");
    let expected = write_logits(&model, "3,1,4", &folder.join("a"), &[]);
    let (list, out) = (folder.join("ids.json"), folder.join("b"));
    fs::write(&list, "[3, 1,\n 4]\n").expect("a file");
    run(&["logits", "--model", arg(&model), "--ids-file", arg(&list), "--out", arg(&out)]);
    assert!(fs::read(&out).expect("the logits") == expected);
    let args = ["logits", "--model", arg(&model), "--ids-file", "-", "--out", arg(&out)];
    fs::remove_file(&out).expect("the file goes");
    assert!(output(&args, b"3 1 4").status.success());
    assert!(fs::read(&out).expect("the logits") == expected);
}

#[test]
fn wrong_wishes_are_refused_and_leave_nothing() {
    let folder = scratch("logits-refused");
    let (tiny, out) = (fixture("tiny"), folder.join("x"));
    let with = |args: &[&str], status: i32, expected: &str| {
        refused(&[&["logits", "--out", arg(&out), "--model"], args].concat(), status, expected);
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0, "{args:?}");
    };
    let model = arg(&tiny);
    with(&[model], 2, "--ids");
    with(&[model, "--ids", ""], 2, "at least one");
    with(&[model, "--ids", "1,x"], 2, "`x`");
    with(&[model, "--ids", "1", "--chunk", "0"], 2, "--chunk");
    with(&[model, "--ids", "1", "--simd", "neon9"], 2, "avx512");
    with(&[model, "--ids", "1", "--threads", "0"], 2, "--threads");
    with(&[model, "--ids", "511,512"], 1, "token id 512");
    with(&[model, "--ids-file", "no/ids"], 1, "no/ids");
    with(&["no/model.gguf", "--ids", "1"], 1, "no/model.gguf");
    let nowhere = PathBuf::from("no/such/folder/x");
    refused(&["logits", "--model", model, "--ids", "1", "--out", arg(&nowhere)], 1, "does not exist");
    refused(&["logits", "--model", model, "--ids", "1", "--out", arg(&folder)], 1, "is a folder");
}
