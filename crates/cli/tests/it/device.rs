//! `--device`: an emulated card gives the processor's answers, and what cannot be used is refused in one sentence.
//!
//! The program finds the emulator as it finds a driver, by the name of its library in the loader's path.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::program::{arg, fixture, output_in, refused, refused_in, run};
use serde_json::Value;

/// What a model of a few hundred kilobytes is asked, so that it takes as little of a device. Its stops are never chosen.
const ASKED: [&str; 14] = [
    "--ids",
    "5,6,7,8,9",
    "--greedy",
    "--logit-bias",
    "2=-inf",
    "--logit-bias",
    "11=-inf",
    "-n",
    "6",
    "--context",
    "64",
    "--chunk",
    "4",
    "--json",
];

/// The environment of a machine with an emulated card; `None`, and a line that says so, where there is no emulator.
fn card<'a>(settings: &[(&'a str, &'a str)]) -> Option<Vec<(&'a str, &'a str)>> {
    let folder = tangelo_emulator::folder().and_then(Path::to_str);
    if folder.is_none() {
        eprintln!("skipped: the emulator was not built");
    }
    Some([&[("LD_LIBRARY_PATH", folder?), tangelo_emulator::KERNELS], settings].concat())
}

fn quantised() -> PathBuf {
    fixture("quantised/tiny-Q8_0.gguf")
}

/// `generate` on that machine.
fn generate(settings: &[(&str, &str)], args: &[&str]) -> Option<Output> {
    let model = quantised();
    Some(output_in(&card(settings)?, &[&["generate", arg(&model)], &ASKED[..], args].concat(), b""))
}

/// The ids of an answer, and what was said besides.
fn answer(output: Output) -> (Value, String) {
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{errors}");
    let json: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    (json["token_ids"].clone(), errors)
}

#[track_caller]
fn refuses(settings: &[(&str, &str)], args: &[&str], expected: &str) {
    let model = quantised();
    if let Some(environment) = card(settings) {
        refused_in(&environment, &[&["generate", arg(&model)], &ASKED[..], args].concat(), 1, expected);
    }
}

#[test]
fn a_card_gives_the_answer_of_the_processor() {
    let Some(cpu) = generate(&[], &["--device", "cpu"]) else { return };
    let (ids, _) = answer(cpu);
    assert_eq!(ids.as_array().map(Vec::len), Some(6));
    for device in ["cuda:0", "auto"] {
        let on_card = generate(&[], &["--device", device]).expect("there is an emulator");
        assert_eq!(answer(on_card), (ids.clone(), String::new()), "{device}");
    }
}

#[test]
fn layers_that_do_not_fit_stay_on_the_processor() {
    let Some(cpu) = generate(&[], &["--device", "cpu"]) else { return };
    let partial = ["--device", "cuda:0", "--vram-budget", "400KiB"];
    let (ids, note) = answer(generate(&[], &partial).expect("there is an emulator"));
    assert_eq!(ids, answer(cpu).0);
    assert!(
        note.starts_with("note: the first ") && note.contains("of 8 layers stay on the processor"),
        "{note}"
    );
    assert_eq!(note.lines().count(), 1, "{note}");
}

#[test]
fn a_card_with_too_little_memory_is_refused_by_name_and_left_alone_by_auto() {
    // A quarter of a gibibyte is left free, so that nothing may be used.
    let small = [("TANGELO_EMULATED_MEMORY", "200000000")];
    refuses(&small, &["--device", "cuda:0"], "too little for any layer of this model");
    refuses(&[], &["--device", "cuda:0", "--vram-budget", "1KiB"], "compute with --device cpu");
    let (Some(auto), Some(cpu)) =
        (generate(&small, &["--device", "auto"]), generate(&[], &["--device", "cpu"]))
    else {
        return;
    };
    let (ids, note) = answer(auto);
    assert_eq!(ids, answer(cpu).0);
    assert!(note.starts_with("note: computing on the processor: ") && note.lines().count() == 1, "{note}");
}

#[test]
fn an_old_card_is_refused_by_name_and_left_alone_by_auto() {
    let old = [("TANGELO_EMULATED_CAPABILITY", "7.5")];
    refuses(&old, &["--device", "cuda:0"], "has compute capability 7.5, 8.0 is needed");
    if let Some(auto) = generate(&old, &["--device", "auto"]) {
        let (ids, note) = answer(auto);
        assert_eq!(ids.as_array().map(Vec::len), Some(6));
        assert!(note.starts_with("note: computing on the processor: ") && note.contains("7.5"), "{note}");
    }
}

#[test]
fn a_card_that_is_not_there_or_is_lost_is_told_in_a_sentence() {
    refuses(&[], &["--device", "cuda:7"], "there is no device cuda:7: this machine has 1");
    // While the prompt is read, and within a later step.
    for launch in ["9", "150"] {
        refuses(&[("TANGELO_EMULATED_FAULT", launch)], &["--device", "cuda:0"], "what was on it is lost");
    }
}

#[test]
fn without_a_driver_only_a_named_card_is_missed() {
    if Path::new("/proc/driver/nvidia").exists() {
        eprintln!("skipped: this machine has a driver");
        return;
    }
    let model = quantised();
    let asked = |device| [&["generate", arg(&model)], &ASKED[..], &["--device", device]].concat();
    refused(&asked("cuda:0"), 1, "no NVIDIA driver was found");
    let ids = |device| -> Value {
        let page: Value = serde_json::from_str(&run(&asked(device))).expect("a document");
        page["token_ids"].clone()
    };
    assert_eq!(ids("auto"), ids("cpu"));
    refused(&asked("gpu"), 2, "expected auto, cpu, cuda or cuda:N");
}

#[test]
fn bench_names_the_card_and_its_own_limit() {
    let model = quantised();
    let Some(environment) = card(&[]) else { return };
    // Activations of 64 tokens take more than a second sequence, for which there must be room at either budget.
    let small = ["--prompt", "64", "--generate", "2", "--repetitions", "1", "--chunk", "64", "--json"];
    let record = |args: &[&str]| -> Value {
        let output = output_in(&environment, &[&["bench", arg(&model)], &small[..], args].concat(), b"");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    };
    let whole = record(&["--device", "cuda:0"]);
    let peak = whole["device"]["peak_bytes"].as_u64().expect("a number");
    // The weights and some more.
    assert!(whole["device"]["name"] == "emulated device" && (300_000..30_000_000).contains(&peak), "{whole}");
    let limits = &whole["limits"];
    assert!(
        limits["read_bytes_per_s"].as_f64() > Some(1e6) && limits["int8_ops_per_s"].is_null(),
        "{limits}"
    );
    assert!(whole["decode"][0]["fraction_of_bandwidth"].is_number(), "{whole}");
    assert!(whole["prefill"][0]["fraction_of_int8"].is_null(), "{whole}");
    // In two places there is no one limit.
    let partial = record(&["--device", "cuda:0", "--vram-budget", "760KiB"]);
    assert!(partial["device"]["peak_bytes"].as_u64().is_some_and(|bytes| bytes <= 760 << 10), "{partial}");
    assert!(partial["limits"]["read_bytes_per_s"].is_null(), "{partial}");
}

/// What `show` says of the device.
fn shown(settings: &[(&str, &str)], args: &[&str]) -> Option<Value> {
    let model = quantised();
    let output = output_in(&card(settings)?, &[&["show", arg(&model), "--json"], args].concat(), b"");
    assert!(output.status.success(), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    Some(document["device"].clone())
}

#[test]
fn show_tells_what_a_card_would_hold() {
    let args = ["--device", "cuda:0", "--context", "128", "--chunk", "16"];
    let Some(device) = shown(&[], &args) else { return };
    assert_eq!(
        (device["name"].as_str(), device["capability"].as_str()),
        (Some("emulated device"), Some("8.6"))
    );
    let bytes =
        ["weights", "state", "activations", "total"].map(|key| device["bytes"][key].as_u64().expect(key));
    // 45 KiB of recurrent state and two pages of 64 positions of 768 bytes.
    assert_eq!(bytes[1], (45 << 10) + 128 * 768);
    assert_eq!(bytes[..3].iter().sum::<u64>(), bytes[3]);
    let fit = &device["fit"];
    assert_eq!((fit["layers"].as_u64(), fit["embeddings"].as_bool()), (Some(8), Some(true)));
    assert_eq!(fit["bytes"], device["bytes"]);
    assert_eq!(fit["usable_bytes"].as_u64(), Some((2 << 30) - (256 << 20)), "of 2 GiB");
    let halved = shown(&[], &[&args[..], &["--kv", "f16"]].concat()).expect("as before");
    assert_eq!(halved["bytes"]["state"].as_u64(), Some((45 << 10) + 64 * 768));
    let tight = shown(&[], &[&args[..], &["--vram-budget", "300KiB"]].concat()).expect("as before");
    let layers = tight["fit"]["layers"].as_u64().expect("a number");
    assert!(
        (1..8).contains(&layers) && tight["fit"]["bytes"]["total"].as_u64() <= Some(300 << 10),
        "{tight}"
    );
}

#[test]
fn show_needs_no_card_for_what_one_would_hold() {
    let model = quantised();
    let page = run(&["show", arg(&model), "--device", "cpu", "--context", "128", "--vram-budget", "2GiB"]);
    for line in [
        "\nOn a device\n  device            none was looked for or found\n",
        "for 128 tokens, keys and values in f32\n",
        "  may be used          2.00 GiB\n",
        "  the whole model\n",
    ] {
        assert!(page.contains(line), "{page}");
    }
    refused(
        &["show", arg(&model), "--device", "cpu", "--context", "5000000"],
        1,
        "made for at most 1048576 tokens",
    );
    refused(&["show", arg(&model), "--context", "64"], 2, "--device");
    let sizes = fixture("shape4b");
    refused(&["show", arg(&sizes), "--device", "cpu"], 1, "has no weights");
}
