//! `tangelo generate` from end to end, on fixture models whose answers transformers has given too.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::program::{arg, fixture, output, refused, run, run_with_input, scratch};
use serde_json::Value;

/// Runs `generate MODEL` and returns its JSON.
fn json(model: &Path, args: &[&str]) -> Value {
    let args = [&["generate", arg(model), "--json"], args].concat();
    serde_json::from_str(&run(&args)).expect("one JSON object")
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id")).collect()
}

fn joined(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// What goes to standard output and to standard error.
fn streams(args: &[&str]) -> (String, String) {
    let output = output(args, b"");
    assert!(output.status.success(), "{output:?}");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr))
}

/// The fixture without some of its files.
fn tiny_without(test: &str, missing: &[&str]) -> PathBuf {
    let folder = scratch(test);
    for entry in fs::read_dir(fixture("tiny")).expect("the fixture") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        if path.is_file() && !missing.contains(&name.as_str()) {
            fs::copy(&path, folder.join(name)).expect("a copy");
        }
    }
    folder
}

#[test]
fn greedy_answers_are_those_of_transformers() {
    for (model, cases) in [
        ("tiny", "tiny"),
        ("tiny/f32", "tiny"),
        ("tiny/gguf/f32.gguf", "tiny"),
        ("tiny/gguf/bf16.gguf", "tiny"),
        ("odd", "odd"),
        ("moe", "moe"),
    ] {
        let cases = fs::read(fixture(cases).join("cases.json")).expect("the cases");
        let cases: Value = serde_json::from_slice(&cases).expect("JSON");
        for case in cases["greedy"].as_array().expect("a list") {
            let (prompt, want) = (joined(&ids(&case["prompt"])), ids(&case["output"]));
            let n = want.len().to_string();
            let got = json(&fixture(model), &["--ids", &prompt, "--greedy", "-n", &n]);
            assert_eq!(ids(&got["token_ids"]), want, "{model}");
            assert_eq!(
                (got["finish_reason"].as_str(), got["answer_tokens"].as_u64()),
                (Some("length"), Some(64))
            );
        }
    }
}

#[test]
fn a_seeded_answer_is_the_recorded_one_however_it_is_computed() {
    let model = fixture("tiny");
    let prompt = ["--prompt", "Draw a box.", "--system", "Be brief.", "-n", "60"];
    let asked = [&["generate", arg(&model), "--seed", "29"], &prompt[..]].concat();
    let (out, err) = streams(&asked);
    assert_eq!(err, include_str!("transcripts/generate.reasoning.txt"));
    assert_eq!(out, include_str!("transcripts/generate.txt"));
    for how in [&["--chunk", "1"][..], &["--threads", "1"], &["--threads", "3", "--simd", "reference"]] {
        assert_eq!(streams(&[&asked[..], how].concat()), (out.clone(), err.clone()), "{how:?}");
    }
    let other = streams(&[&["generate", arg(&model), "--seed", "30"], &prompt[..]].concat());
    assert_ne!(other.0, out, "another seed");
}

#[test]
fn the_prompt_may_come_from_standard_input() {
    let model = fixture("tiny");
    let given = run(&["generate", arg(&model), "--raw", "--greedy", "-n", "12", "-p", "one\ntwo"]);
    let read = run_with_input(&["generate", arg(&model), "--raw", "--greedy", "-n", "12"], b"one\ntwo\n");
    assert_eq!(given, read);
    let not_text = output(&["generate", arg(&model)], b"\xff\xfe");
    assert_eq!(not_text.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&not_text.stderr).starts_with("error: standard input is not a text"));
    refused(&["generate", arg(&model), "--raw"], 1, "the prompt is empty");
}

#[test]
fn reasoning_and_answer_go_separate_ways() {
    let model = fixture("tiny");
    let asked = ["-p", "Hello", "--seed", "3", "-n", "60"];
    let report = json(&model, &asked);
    let (text, reasoning) = (report["text"].as_str(), report["reasoning"].as_str());
    let (text, reasoning) = (text.expect("an answer"), reasoning.expect("reasoning"));
    assert!(!text.is_empty() && !reasoning.is_empty(), "seed 3 closes its reasoning: {report}");
    let plain = [&["generate", arg(&model)], &asked[..]].concat();
    let (out, err) = streams(&plain);
    assert_eq!(
        (out.trim_end_matches('\n'), err.trim_end()),
        (text.trim_end_matches('\n'), reasoning.trim_end())
    );
    let (hidden_out, hidden_err) = streams(&[&plain[..], &["--hide-reasoning"]].concat());
    assert_eq!((hidden_out, hidden_err.as_str()), (out, ""));
    let quick = json(&model, &["-p", "Hello", "--seed", "3", "-n", "20", "--no-think"]);
    assert!(quick["reasoning"].is_null());
    assert!(quick["prompt_tokens"].as_u64() < report["prompt_tokens"].as_u64().map(|n| n + 2));
}

#[test]
fn a_thinking_budget_closes_the_reasoning() {
    const CLOSE: u64 = 13; // `</think>`
    let asked = |budget: &str| {
        // Without its own end and without stop tokens the reasoning would fill all 40 tokens.
        let never = ["--logit-bias", "13=-inf", "--logit-bias", "2=-inf", "--logit-bias", "11=-inf"];
        let asked = ["-p", "Hello", "--seed", "3", "-n", "40", "--thinking-budget", budget];
        json(&fixture("tiny"), &[&asked[..], &never].concat())
    };
    let at_once = asked("0");
    assert_eq!(ids(&at_once["token_ids"])[0], CLOSE);
    assert!(at_once["reasoning"].is_null() && at_once["text"].as_str().is_some_and(|text| !text.is_empty()));
    let never = asked("1000");
    assert!(!ids(&never["token_ids"]).contains(&CLOSE));
    assert_eq!(never["text"], "");
}

#[test]
fn stop_strings_end_the_answer_and_are_not_part_of_it() {
    let model = fixture("tiny");
    let asked = ["--raw", "-p", "The box", "--greedy", "-n", "40"];
    let whole = json(&model, &asked);
    let text = whole["text"].as_str().expect("a text");
    let from = text.char_indices().nth(20).expect("a long text").0;
    let stop: String = text[from..].chars().take(6).collect();
    let first = text.find(&stop).expect("it is there");
    let stopped = json(&model, &[&asked[..], &["--stop", "never in there", "--stop", &stop]].concat());
    assert_eq!(stopped["text"].as_str(), Some(&text[..first]));
    assert_eq!(stopped["finish_reason"], "stop");
    assert!(stopped["answer_tokens"].as_u64() < whole["answer_tokens"].as_u64());
}

#[test]
fn logprobs_are_reported_for_every_token() {
    let report = json(&fixture("tiny"), &["--raw", "-p", "Box", "--greedy", "-n", "9", "--logprobs", "3"]);
    let logprobs = report["logprobs"].as_array().expect("a list");
    assert_eq!(logprobs.len(), 9);
    for (entry, id) in logprobs.iter().zip(ids(&report["token_ids"])) {
        let top = entry["top"].as_array().expect("a list");
        assert_eq!((entry["id"].as_u64(), top.len()), (Some(id), 3));
        assert_eq!(
            (&top[0]["id"], &top[0]["logprob"]),
            (&entry["id"], &entry["logprob"]),
            "greedy takes the best"
        );
        let values: Vec<f64> = top.iter().map(|t| t["logprob"].as_f64().expect("a number")).collect();
        assert!(values.is_sorted_by(|a, b| a >= b) && values[0] < 0.0, "{values:?}");
    }
}

#[test]
fn stats_and_the_report_say_what_it_took() {
    let model = fixture("tiny");
    let report = json(&model, &["-p", "Hello", "-n", "5"]);
    let seed = report["seed"].as_u64().expect("a seed").to_string();
    assert_eq!(report["token_ids"], json(&model, &["-p", "Hello", "-n", "5", "--seed", &seed])["token_ids"]);
    for time in ["load_s", "prompt_s", "answer_s", "prompt_tokens_per_s", "answer_tokens_per_s"] {
        assert!(report["timings"][time].as_f64().is_some_and(|t| t > 0.0), "{time}");
    }
    let (_, err) = streams(&["generate", arg(&model), "-p", "x", "-n", "5", "--seed", "9", "--stats"]);
    assert!(
        err.contains("answer 5 tokens in ") && err.contains("tokens/s") && err.contains("seed 9"),
        "{err}"
    );
}

#[test]
fn models_without_text_take_token_ids() {
    let mute =
        tiny_without("generate-mute", &["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]);
    refused(&["generate", arg(&mute), "-p", "hello"], 1, "--ids");
    let ids = run(&["generate", arg(&mute), "--ids", "1,2,3", "--greedy", "-n", "4"]);
    let with_text = json(&fixture("tiny"), &["--ids", "1,2,3", "--greedy", "-n", "4"]);
    assert_eq!(ids.trim_end(), joined(&self::ids(&with_text["token_ids"])));
    let plain = tiny_without("generate-plain", &["chat_template.jinja"]);
    refused(&["generate", arg(&plain), "-p", "hello"], 1, "`generate --raw`");
    let template = fixture("tiny").join("chat_template.jinja");
    let asked = ["-p", "hello", "--seed", "1", "-n", "9"];
    let supplied = json(&plain, &[&asked[..], &["--chat-template", arg(&template)]].concat());
    assert_eq!(supplied["token_ids"], json(&fixture("tiny"), &asked)["token_ids"]);
}

#[test]
fn what_cannot_be_done_is_refused_in_one_sentence() {
    let tiny = fixture("tiny");
    let generate = |args: &[&'static str], status: i32, expected: &str| {
        refused(&[&["generate", arg(&tiny), "-p", "hello"], args].concat(), status, expected);
    };
    generate(&["--context", "20"], 1, "the context holds 20");
    let (_, err) = streams(&["generate", arg(&tiny), "-p", "hello", "--context", "40", "--greedy"]);
    assert!(err.ends_with("the answer was cut: the context of 40 tokens is full\n"), "{err}");
    generate(&["--context", "5000"], 1, "made for at most 4096");
    generate(&["--top-p", "2"], 2, "top_p must be above 0");
    generate(&["--logit-bias", "512=1"], 2, "logit_bias must be about tokens of the vocabulary");
    generate(&["--raw", "--system", "x"], 2, "cannot be used with");
    generate(&["--think", "--no-think"], 2, "cannot be used with");
    generate(&["--logprobs", "3"], 2, "--json");
    generate(&["--tools", "no-such-file"], 1, "no-such-file");
    generate(&["--thinkin-budget", "3"], 2, "unexpected argument");
    refused(&["generate", arg(&tiny), "--ids", "512"], 1, "its ids are 0 to 511");
    refused(&["generate", arg(&tiny), "--ids", "x"], 2, "`x` is not a token id");
    refused(&["generate", "no-such-model", "-p", "x"], 1, "no-such-model");
}

#[test]
fn a_closed_output_ends_the_answer_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tangelo"))
        .args([
            "generate",
            arg(&fixture("tiny")),
            "--raw",
            "-p",
            "x",
            "--seed",
            "1",
            "--logit-bias",
            "2=-inf",
        ])
        .args(["--logit-bias", "11=-inf"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut few = [0; 4];
    child.stdout.take().expect("a pipe").read_exact(&mut few).expect("the beginning of an answer");
    let output = child.wait_with_output().expect("the program ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
