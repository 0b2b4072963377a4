//! Teaching from the command line: what is taught is used, goes on after a pause, and is refused in one sentence.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{arg, fixture, refused, run, scratch};

/// Two conversations, as lines of JSON.
fn talk(folder: &Path) -> PathBuf {
    let rows =
        [("Hello", "Good day"), ("Who are you?", "I am Fenna, keeper of a shop.")].map(|(user, said)| {
            let message =
                |role: &str, content: &str| format!(r#"{{"role": "{role}", "content": "{content}"}}"#);
            format!("{{\"messages\": [{}, {}]}}\n", message("user", user), message("assistant", said))
        });
    let path = folder.join("talk.jsonl");
    fs::write(&path, rows.concat()).expect("a file");
    path
}

#[test]
fn an_adapter_answers_as_the_model_that_it_is_merged_into() {
    let folder = scratch("teach-adapter");
    let (tiny, data) = (fixture("tiny"), talk(&folder));
    let (out, merged) = (folder.join("run"), folder.join("merged"));
    let sizes = ["--steps", "4", "--set", "optimiser.lr=0.02", "--set", "batch.tokens=100"];
    let lora = ["lora", "--model", arg(&tiny), "--data", arg(&data), "--rank", "4", "--out", arg(&out)];
    let said = run(&[&lora[..], &sizes[..]].concat());
    for projection in ["in_proj", "out_proj", "up_proj", "down_proj", "q_proj", "k_proj", "v_proj", "o_proj"]
    {
        assert!(said.contains(projection), "no {projection} in: {said}");
    }
    let adapter = out.join("step-000004");
    run(&["merge", arg(&tiny), arg(&adapter), "--out", arg(&merged)]);
    let generate =
        |args: &[&str]| run(&[&["generate", "--raw", "-p", "Hello", "-n", "24", "--greedy"], args].concat());
    let with_adapter = generate(&[arg(&tiny), "--adapter", arg(&adapter)]);
    assert_eq!(with_adapter, generate(&[arg(&merged)]));
    assert_ne!(with_adapter, generate(&[arg(&tiny)]));
}

#[test]
fn a_run_goes_on_where_it_stopped() {
    let folder = scratch("teach-resume");
    let (tiny, data, out) = (fixture("tiny"), talk(&folder), folder.join("run"));
    run(&["sft", "--model", arg(&tiny), "--data", arg(&data), "--steps", "2", "--out", arg(&out)]);
    let log = |out: &Path| fs::read_to_string(out.join("log.csv")).expect("a log").lines().count();
    assert_eq!(log(&out), 3);
    let said = run(&["train", "--resume", "--out", arg(&out)]);
    assert!(said.contains("step 2 of 2"), "{said}");
    assert_eq!(log(&out), 3, "nothing was left to do");
    refused(&["train", "--resume", "--out", arg(&folder.join("none"))], 1, "recipe.toml");
    let with = |set: &[&'static str]| [&["train", "--resume", "--out", arg(&out)], set].concat();
    let huge = ["--set", "batch.tokens=4000000000", "--set", "batch.micro_tokens=4000000000"];
    refused(&with(&huge), 1, "bytes are available");
    let said = run(&with(&["--set", "schedule.steps=3"]));
    assert!(said.contains("step 2 of 3"), "{said}");
    assert_eq!(log(&out), 4);
    fs::write(&data, "{\"text\": \"It was something else.\"}").expect("a file");
    refused(&with(&["--set", "schedule.steps=4"]), 1, "has 1 rows and had 2");
}

#[test]
fn what_cannot_be_taught_is_refused_before_a_folder_is_made() {
    let folder = scratch("teach-refused");
    let (tiny, data, out) = (fixture("tiny"), talk(&folder), folder.join("run"));
    let sft = ["sft", "--model", arg(&tiny), "--data", arg(&data), "--out", arg(&out)];
    let with = |set: &'static str| [&sft[..], &["--set", set]].concat();
    refused(&with("optimiser.lrr=1"), 2, "lrr");
    let huge = ["--set", "batch.tokens=4000000000", "--set", "batch.micro_tokens=4000000000"];
    refused(&[&sft[..], &huge].concat(), 1, "bytes are available");
    let empty = folder.join("empty.jsonl");
    fs::write(&empty, "").expect("a file");
    refused(&["sft", "--model", arg(&tiny), "--data", arg(&empty), "--out", arg(&out)], 1, "empty.jsonl");
    assert!(!out.exists());
}
