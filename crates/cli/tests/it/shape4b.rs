//! A model with the proportions of Nemotron 3 Nano 4B, a seventh as wide, made by `synth` from its closed formula:
//! its numbers against float64 transformers, and one answer for one prefix whatever the command line says.

use crate::program::{arg, fixture, run, scratch};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tangelo_ops::Simd;

/// As for every f32 run (`fixtures/README.md`); weights are BF16, activations f32.
const LOGITS: f64 = 2e-4;
const VOCABULARY: usize = 2048;

fn cases() -> Value {
    let text = std::fs::read_to_string(fixture("shape4b/cases.json")).expect("the fixture");
    serde_json::from_str(&text).expect("JSON")
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().expect("a list").iter().map(|v| v.as_u64().expect("a number") as usize).collect()
}

fn ids(cases: &Value, len: &str) -> String {
    numbers(&cases["prompts"][len]).iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn synth(folder: &Path, format: &str, quant: &str) -> PathBuf {
    let config = fixture("shape4b/config.json");
    let out = folder.join(quant);
    let args = ["synth", "--config", arg(&config), "--name", "shape4b", "--format", format, "--quant", quant];
    run(&[&args[..], &["--out", arg(&out)]].concat());
    out
}

/// The bytes of the file that `logits` writes.
fn logits(model: &Path, ids: &str, options: &[&str]) -> Vec<u8> {
    let out = model.with_extension("logits");
    run(&[&["logits", "--model", arg(model), "--ids", ids, "--out", arg(&out)], options].concat());
    std::fs::read(out).expect("written")
}

#[test]
fn logits_agree_with_float64_at_every_prompt_length() {
    let folder = scratch("shape4b-goldens");
    let model = synth(&folder, "safetensors", "bf16");
    let bytes = std::fs::read(fixture("shape4b/goldens_f64.safetensors")).expect("the fixture");
    let goldens = SafeTensors::deserialize(&bytes).expect("the fixture");
    let cases = cases();
    for len in cases["prompts"].as_object().expect("prompts").keys() {
        let golden = goldens.tensor(&format!("logits.{len}")).expect("a golden");
        let want: Vec<f64> =
            golden.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        let file = logits(&model, &ids(&cases, len), &[]);
        let tensors = SafeTensors::deserialize(&file).expect("our own file");
        let got = tensors.tensor("logits").expect("one tensor");
        let got: Vec<f32> = got.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        for (at, row) in numbers(&cases["logit_rows_f64"][len]).into_iter().enumerate() {
            let (got, want) =
                (&got[row * VOCABULARY..][..VOCABULARY], &want[at * VOCABULARY..][..VOCABULARY]);
            let error = got.iter().zip(want).fold(0f64, |m, (g, w)| m.max((f64::from(*g) - w).abs()));
            assert!(error <= LOGITS, "{len} tokens, position {row}: off by {error}");
        }
    }
}

#[test]
fn one_prefix_has_one_answer_whatever_the_command_line() {
    let folder = scratch("shape4b-laws");
    let ids = ids(&cases(), "50");
    for (format, quant) in
        [("safetensors", "bf16"), ("gguf", "q4_k_m"), ("gguf", "q3_k_m"), ("gguf", "iq4_nl")]
    {
        let model = synth(&folder, format, quant);
        let whole = logits(&model, &ids, &["--chunk", "50", "--threads", "1"]);
        for chunk in ["1", "7", "49"] {
            assert!(
                logits(&model, &ids, &["--chunk", chunk, "--threads", "2"]) == whole,
                "{quant} by {chunk}"
            );
        }
        for simd in Simd::available() {
            let options = ["--simd", simd.name(), "--threads", "4"];
            assert!(logits(&model, &ids, &options) == whole, "{quant} with {simd}");
        }
    }
}
