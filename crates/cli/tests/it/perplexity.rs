//! `tangelo perplexity`: the log-probabilities of the goldens, whatever the windows and chunks, and refusals.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

use crate::program::{arg, fixture, output, refused, run, scratch};

/// Per token, of the f32 engine against float64 (`fixtures/README.md`, "Tolerances").
const TOLERANCE: f64 = 1e-4;

fn text_and_ids() -> (String, Vec<u64>) {
    let cases = fs::read_to_string(fixture("tiny/cases.json")).expect("the cases");
    let cases: Value = serde_json::from_str(&cases).expect("JSON");
    let ids = cases["text_ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id"));
    (cases["text"].as_str().expect("a text").to_string(), ids.collect())
}

/// The fixtures' text as a file.
fn text_file(folder: &Path) -> PathBuf {
    let path = folder.join("text");
    fs::write(&path, text_and_ids().0).expect("a file");
    path
}

fn measure(model: &Path, file: &Path, extra: &[&str]) -> Value {
    let text = run(&[&["perplexity", arg(model), "--file", arg(file), "--json"], extra].concat());
    serde_json::from_str(&text).expect("one JSON document")
}

fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().expect(key)
}

#[test]
fn the_text_is_as_surprising_as_in_the_goldens() {
    let folder = scratch("perplexity-goldens");
    let file = text_file(&folder);
    let (text, ids) = text_and_ids();
    for name in ["tiny", "odd", "moe"] {
        let goldens = fs::read(fixture(name).join("goldens_f64.safetensors")).expect("goldens");
        let goldens = SafeTensors::deserialize(&goldens).expect("safetensors");
        let logprobs = goldens.tensor("text.logprobs").expect("log-probabilities");
        let expected: Vec<f64> =
            logprobs.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        assert_eq!(expected.len(), ids.len() - 1);
        let mean = -expected.iter().sum::<f64>() / expected.len() as f64;
        let report = measure(&fixture(name), &file, &["--bos"]);
        let found = number(&report, "nats_per_token");
        assert!((found - mean).abs() <= TOLERANCE, "{name}: {found} for {mean}");
        assert_eq!(report["tokens_scored"], expected.len());
        assert!((number(&report, "perplexity") - found.exp()).abs() < 1e-9);
        let bits = number(&report, "nats") / 2f64.ln() / text.len() as f64;
        assert!((number(&report, "bits_per_byte") - bits).abs() < 1e-9, "{name}");
    }
}

#[test]
fn chunks_do_not_matter_and_windows_do() {
    let folder = scratch("perplexity-chunks");
    let (file, tiny) = (text_file(&folder), fixture("tiny"));
    let nats = |extra: &[&str]| number(&measure(&tiny, &file, extra), "nats");
    let whole = nats(&[]);
    // Sums of the same f64 numbers in groups: equal but for the rounding of the sum.
    for chunk in ["1", "7", "1000"] {
        assert!((nats(&["--chunk-tokens", chunk]) - whole).abs() < 1e-9 * whole, "chunks of {chunk}");
    }
    assert_eq!(nats(&["--context", "182", "--stride", "5"]), whole, "one window holds the text");
    assert!((nats(&["--context", "20"]) - whole).abs() > 1e-3);
}

/// Windows of 64 and 32 tokens, computed again from the logits of each window alone.
#[test]
fn windows_score_what_no_earlier_one_has() {
    let folder = scratch("perplexity-windows");
    let (file, tiny) = (text_file(&folder), fixture("tiny"));
    let (_, ids) = text_and_ids();
    let out = folder.join("logits");
    let mut expected = 0.0;
    let mut scored = 1;
    for start in (0..).step_by(32) {
        let end = ids.len().min(start + 64);
        let list = ids[start..end].iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        run(&["logits", "--model", arg(&tiny), "--ids", &list, "--out", arg(&out)]);
        let bytes = fs::read(&out).expect("logits");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let logits = file.tensor("logits").expect("logits");
        let logits: Vec<f64> =
            logits.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        for i in scored..end {
            let row = &logits[(i - 1 - start) * 512..][..512];
            expected += row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[ids[i] as usize];
        }
        scored = end;
        if end == ids.len() {
            break;
        }
    }
    let found = number(&measure(&tiny, &file, &["--bos", "--context", "64"]), "nats");
    assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
}

#[test]
fn text_is_printed_for_people() {
    let folder = scratch("perplexity-text");
    let report = run(&["perplexity", arg(&fixture("tiny")), "--file", arg(&text_file(&folder))]);
    let labels: Vec<&str> = report.lines().map(|line| line[..16].trim_end()).collect();
    assert_eq!(
        labels,
        ["tokens scored", "nats per token", "perplexity", "bits per byte", "windows", "speed"]
    );
    assert!(report.starts_with("tokens scored   181 of 182\n"), "{report}");
}

#[test]
fn wrong_wishes_are_refused() {
    let folder = scratch("perplexity-refused");
    let (tiny, empty) = (fixture("tiny"), folder.join("empty"));
    fs::write(&empty, "").expect("a file");
    let model = arg(&tiny);
    refused(&["perplexity", model], 2, "--file");
    refused(&["perplexity", model, "--file", "x", "--context", "8", "--stride", "8"], 2, "--stride 8");
    refused(&["perplexity", model, "--file", "no/text"], 1, "no/text");
    refused(&["perplexity", model, "--file", arg(&empty)], 1, "0 tokens");
    let output = output(&["perplexity", model, "--file", "-"], b"\xff\xfe");
    assert!(String::from_utf8_lossy(&output.stderr).contains("not UTF-8"));
}
