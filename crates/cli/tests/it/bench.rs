//! `tangelo bench`: the document's fields and ratios on a tiny model, the page, and refusals.

use std::fs;

use serde_json::{Value, json};

use crate::program::{arg, fixture, refused, run, scratch};

/// Little enough to be done in a moment.
const SMALL: [&str; 8] = ["--prompt", "48,16", "--generate", "4", "--threads", "2", "--repetitions", "3"];

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// A line of llama-bench about the tiny model.
fn line(prompt: u64, generate: u64, depth: u64, speed: f64) -> String {
    let line = json!({
        "build_commit": "abc1234", "model_type": "nemotron_h", "model_n_params": 296_536, "n_threads": 2,
        "n_prompt": prompt, "n_gen": generate, "n_depth": depth, "avg_ts": speed, "samples_ts": [speed],
    });
    format!("{line}\n")
}

/// The fields of a prefill or decode that follow from its samples.
fn check_spread(row: &Value) {
    let mut samples: Vec<f64> = row["samples"].as_array().expect("samples").iter().map(number).collect();
    samples.sort_by(f64::total_cmp);
    let spread = [&row["min"], &row["tokens_per_s"], &row["max"]].map(number);
    assert_eq!(samples, spread, "three samples: the least, the median, the greatest");
    assert!(spread[0] > 0.0);
}

/// The machine's limits of a record: bytes, int8 and f32 operations per second.
fn limits(record: &Value) -> [f64; 3] {
    ["read_bytes_per_s", "int8_ops_per_s", "f32_flops_per_s"].map(|key| number(&record["limits"][key]))
}

fn check_facts(record: &Value) {
    assert!(limits(record).iter().all(|limit| *limit > 1e6), "{record}");
    let counts = ["threads", "chunk", "repetitions", "generate"].map(|key| number(&record[key]));
    assert_eq!(counts, [2.0, 32.0, 3.0, 4.0]);
    assert_eq!(record["model"]["parameters"], 296_536);
    assert_eq!(record["model"]["types"][0]["type"], "BF16");
    let command = record["command"].as_str().expect("the command line");
    assert!(command.starts_with("tangelo bench ") && command.contains("--depth 70,0"), "{command}");
    assert!(record["version"].is_string() && record["simd"].is_string());
    assert!(number(&record["unix_time_s"]) > 1.7e9);
    assert!(record["device"].is_null(), "{record}");
    for key in ["commit", "cpu", "peak_rss_bytes"] {
        assert!(record.get(key).is_some(), "{key} is there even if it is not known");
    }
    if cfg!(target_os = "linux") {
        // More than the model and less than with the buffer for the read bandwidth.
        let peak = number(&record["peak_rss_bytes"]);
        assert!(peak > 1e6 && peak < 200e6, "{peak}");
    }
}

fn check_prefill(record: &Value) {
    let prefill = record["prefill"].as_array().expect("prefill");
    assert_eq!(prefill.iter().map(|p| number(&p["tokens"])).collect::<Vec<_>>(), [48.0, 16.0]);
    let [_, int8_rate, f32_rate] = limits(record);
    for row in prefill {
        check_spread(row);
        // In a file of floats, both fractions are of the same operations.
        let (int8, f32) = (number(&row["fraction_of_int8"]), number(&row["fraction_of_f32"]));
        assert!(int8 > 0.0 && (int8 * int8_rate / (f32 * f32_rate) - 1.0).abs() < 1e-9, "{row}");
    }
    let ttft = number(&record["ttft_ms"]);
    assert!((ttft - 48e3 / number(&prefill[0]["tokens_per_s"])).abs() < 1e-9 * ttft);
    assert!(number(&record["ttft_with_load_ms"]) > 1e3 * number(&record["load_s"]));
}

fn check_decode(record: &Value) {
    let decode = record["decode"].as_array().expect("decode");
    let tests: Vec<_> = decode.iter().map(|d| (number(&d["depth"]), number(&d["batch"]))).collect();
    assert_eq!(tests, [(0.0, 1.0), (0.0, 3.0), (70.0, 1.0), (70.0, 3.0)]);
    let [weights, state, kv] =
        ["weights", "state", "kv_per_position"].map(|key| number(&record["bytes_per_token"][key]));
    let bytes: Vec<f64> = decode.iter().map(|d| number(&d["bytes_per_step"])).collect();
    // Steps 1 to 4 attend to so many positions, 2.5 on average.
    assert!((bytes[0] - weights - 2.0 * state - 2.5 * kv).abs() < 1e-3, "{bytes:?}");
    assert!((bytes[1] - weights - 3.0 * (bytes[0] - weights)).abs() < 1e-3, "{bytes:?}");
    assert!((bytes[2] - bytes[0] - 70.0 * kv).abs() < 1e-3, "{bytes:?}");
    let [bandwidth, ..] = limits(record);
    for row in decode {
        check_spread(row);
        assert!(number(&row["p50_ms"]) > 0.0 && number(&row["p50_ms"]) <= number(&row["p99_ms"]));
        let steps = number(&row["tokens_per_s"]) / number(&row["batch"]);
        let fraction = steps * number(&row["bytes_per_step"]) / bandwidth;
        assert!((number(&row["fraction_of_bandwidth"]) / fraction - 1.0).abs() < 1e-9, "{row}");
    }
}

fn check_comparison(record: &Value) {
    let ratios = record["compare"]["ratios"].as_array().expect("ratios");
    let [prefill, decode] = ratios.as_slice() else { panic!("two tests have counterparts: {ratios:?}") };
    assert_eq!((&prefill["test"], &prefill["tokens"]), (&json!("prefill"), &json!(48)));
    assert_eq!(
        (&prefill["ours"], number(&prefill["theirs"])),
        (&record["prefill"][0]["tokens_per_s"], 500.0)
    );
    assert_eq!((&decode["test"], &decode["depth"]), (&json!("decode"), &json!(70)));
    assert_eq!((&decode["ours"], number(&decode["theirs"])), (&record["decode"][2]["tokens_per_s"], 25.0));
    for ratio in ratios {
        let expected = number(&ratio["ours"]) / number(&ratio["theirs"]);
        assert!((number(&ratio["ratio"]) / expected - 1.0).abs() < 1e-9, "{ratio}");
    }
    let notes = record["compare"]["notes"].to_string();
    assert!(notes.contains("llama.cpp's decode of 128 tokens at depth 0 has no counterpart"), "{notes}");
}

#[test]
fn the_document_is_complete_and_consistent() {
    let folder = scratch("bench-document");
    let (file, out) = (folder.join("theirs.jsonl"), folder.join("record.json"));
    fs::write(&file, line(48, 0, 0, 500.0) + &line(0, 4, 70, 25.0) + &line(0, 128, 0, 9.0)).expect("a file");
    let tiny = fixture("tiny");
    let rest = ["--depth", "70,0", "--batch", "1,3", "--chunk", "32", "--json"];
    let files = ["--compare", arg(&file), "--out", arg(&out)];
    let text = run(&[&["bench", arg(&tiny)], &SMALL[..], &rest, &files].concat());
    assert_eq!(fs::read_to_string(&out).expect("the record"), text);
    let record: Value = serde_json::from_str(&text).expect("one JSON document");
    check_facts(&record);
    check_prefill(&record);
    check_decode(&record);
    check_comparison(&record);
}

#[test]
fn the_page_is_for_people() {
    let model = fixture("quantised/tiny-Q5_0.gguf");
    let page = run(&[&["bench", arg(&model)], &SMALL[..]].concat());
    for expected in [
        "tiny-Q5_0.gguf\n",
        "\nLimits of the machine\n",
        "\nPrefill, tokens/s\n",
        "\nDecode of 4 tokens, tokens/s\n",
    ] {
        assert!(page.contains(expected), "{page}");
    }
    assert!(!page.contains("of f32") && !page.contains("Beside"), "{page}");
    assert!(page.lines().all(|line| line.len() <= 100), "{page}");
}

#[test]
fn wrong_wishes_are_refused_before_the_work() {
    let folder = scratch("bench-refused");
    let (tiny, file) = (fixture("tiny"), folder.join("table.md"));
    fs::write(&file, "| model | t/s |\n").expect("a file");
    let model = arg(&tiny);
    refused(&["bench"], 2, "<MODEL>");
    refused(&["bench", model, "--batch", "0"], 2, "--batch");
    refused(&["bench", model, "--prompt", "0", "--generate", "0"], 2, "nothing to measure");
    refused(&["bench", "no/such.gguf"], 1, "no/such.gguf");
    refused(&["bench", model, "--depth", "4096"], 1, "4160");
    refused(&["bench", model, "--prompt", "5000"], 1, "5000");
    refused(&["bench", model, "--compare", "no/such.jsonl"], 1, "no/such.jsonl");
    refused(&["bench", model, "--compare", arg(&file)], 1, "line 1: expected a JSON object");
    refused(&["bench", model, "--out", "no/such/folder/x.json"], 1, "make it first");
    let out = folder.join("record.json");
    refused(&["bench", "no/such.gguf", "--out", arg(&out)], 1, "no/such.gguf");
    assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 1, "nothing is left behind");
}
