//! Speed and memory of a model of the published sizes, beside llama.cpp's.
//!
//! Both programs read and write the same numbers of tokens on the same file, first a short run (a prompt, an answer at
//! depth 0), then a long one (a long prompt, an answer at depth), since the most memory of each is compared. Memory is
//! what more of the device is in use than before, by whatever.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::record::Record;
use super::run::{Fault, run};
use super::{Check, FOLDER, answers, machine};

const SHAPE: &str = "nemotron-3-nano-4b";
const SYNTH_LIMIT: Duration = Duration::from_secs(240);
const BENCH_LIMIT: Duration = Duration::from_secs(150);

/// Numbers of tokens of a run.
#[derive(Clone, Copy)]
struct Sizes {
    /// As the run is called in the record.
    name: &'static str,
    prompt: &'static str,
    generate: &'static str,
    depth: &'static str,
}

const RUNS: [Sizes; 2] = [
    Sizes { name: "short", prompt: "512", generate: "128", depth: "0" },
    Sizes { name: "long", prompt: "8192", generate: "128", depth: "32768" },
];
const QUICK_RUNS: [Sizes; 2] = [
    Sizes { name: "short", prompt: "16", generate: "4", depth: "0" },
    Sizes { name: "long", prompt: "48", generate: "4", depth: "64" },
];

/// All runs of both programs.
pub fn measure_all(check: &Check<'_>, record: &mut Record) {
    let mut model = None;
    record.step("the model", || {
        let path = model_file(check)?;
        model = Some(path.clone());
        Ok(path)
    });
    let (mut ours, mut theirs) = (json!({}), json!({}));
    for sizes in if check.options.quick { QUICK_RUNS } else { RUNS } {
        let name = sizes.name;
        record.step(&format!("speed, {name}"), || {
            let model = model.as_deref().ok_or_else(no_model)?;
            ours[name] = bench(check, model, sizes)?;
            Ok(summary(&ours[name]))
        });
        record.step(&format!("speed of llama.cpp, {name}"), || {
            let model = model.as_deref().ok_or_else(no_model)?;
            theirs[name] = llama_bench(check, model, sizes)?;
            Ok(summary(&theirs[name]))
        });
    }
    record.step("time to first token of transformers in BF16", || {
        Err(Fault::Missing("it needs Python and transformers, which this command does not ask for".into()))
    });
    record.facts["tangelo"] = ours;
    record.facts["llama_cpp"] = theirs;
}

fn no_model() -> Fault {
    Fault::Missing("there is no model".into())
}

/// The model to measure, from the repository's root; made if it is not there, with made-up weights, since speed does not
/// depend on them.
fn model_file(check: &Check<'_>) -> Result<String, Fault> {
    if check.options.quick {
        return Ok(answers::QUANTISED[0].into());
    }
    let path = format!("{FOLDER}/{SHAPE}-q4_k_m.gguf");
    if !check.root.join(&path).exists() {
        let mut synth = Command::new(&check.tangelo);
        synth.args(["synth", "--shape", SHAPE, "--format", "gguf", "--quant", "q4_k_m", "--out", &path]);
        run(synth.current_dir(check.root), SYNTH_LIMIT)?;
    }
    Ok(path)
}

/// This program's numbers.
fn bench(check: &Check<'_>, model: &str, sizes: Sizes) -> Result<Value, Fault> {
    let Sizes { prompt, generate, depth, .. } = sizes;
    let args = [
        "bench",
        model,
        "--json",
        "--kv",
        "f16",
        "--prompt",
        prompt,
        "--generate",
        generate,
        "--depth",
        depth,
    ];
    let (document, memory) =
        machine::with_memory(check.options.device, || check.json(true, &args, BENCH_LIMIT));
    let document = document?;
    Ok(json!({
        "prefill_per_s": document["prefill"][0]["tokens_per_s"],
        "decode_per_s": document["decode"][0]["tokens_per_s"],
        "fraction_of_bandwidth": document["decode"][0]["fraction_of_bandwidth"],
        "memory_bytes": memory,
        "bench": document,
    }))
}

/// llama.cpp's numbers.
fn llama_bench(check: &Check<'_>, model: &str, sizes: Sizes) -> Result<Value, Fault> {
    let program = check.options.llama_bench.as_ref();
    let program = program.ok_or_else(|| Fault::Missing("no --llama-bench was given".into()))?;
    let Sizes { prompt, generate, depth, .. } = sizes;
    let one = |test: &[&str]| -> Result<Value, Fault> {
        let mut command = Command::new(program);
        command.args(["-m", model, "-ngl", "99", "-r", "3", "-o", "jsonl"]).args(test);
        command.current_dir(check.root).env("CUDA_VISIBLE_DEVICES", check.options.device.to_string());
        let text = run(&mut command, BENCH_LIMIT)?;
        let line = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut result = line.ok_or_else(|| Fault::Failed("llama-bench printed no JSON".into()))?;
        let arguments = command.get_args().map(|arg| arg.to_string_lossy());
        result["command"] = json!(format!("llama-bench {}", arguments.collect::<Vec<_>>().join(" ")));
        Ok(result)
    };
    let (results, memory) = machine::with_memory(check.options.device, || {
        let prefill = one(&["-p", prompt, "-n", "0"])?;
        Ok((prefill, one(&["-p", "0", "-n", generate, "-d", depth])?))
    });
    let (prefill, decode) = results?;
    Ok(json!({
        "prefill_per_s": prefill["avg_ts"],
        "decode_per_s": decode["avg_ts"],
        "memory_bytes": memory,
        "tests": [prefill, decode],
    }))
}

fn summary(run: &Value) -> String {
    let speed = |key: &str| run[key].as_f64().map_or_else(|| "?".to_string(), |speed| format!("{speed:.1}"));
    let memory = run["memory_bytes"].as_u64();
    let memory = memory.map_or_else(|| "unknown".to_string(), |bytes| format!("{} MiB", bytes >> 20));
    format!(
        "prefill {} tokens/s, decode {} tokens/s, memory {memory}",
        speed("prefill_per_s"),
        speed("decode_per_s")
    )
}
