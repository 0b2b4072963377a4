//! The record as one JSON document. Times are in the units that the keys end with; what is not known is `null`.

use serde_json::{Value, json};

use super::compare::{Comparison, Test};
use super::report::{DeviceFacts, Report};

/// Commit that the program was built from, if whoever built it said so in `TANGELO_COMMIT`.
const COMMIT: Option<&str> = option_env!("TANGELO_COMMIT");

/// Everything.
pub fn document(report: &Report) -> Value {
    let Report { model, plan, work, limits, .. } = report;
    let types: Vec<Value> = model
        .types
        .iter()
        .map(|(name, tensors, bytes)| json!({ "type": name, "tensors": tensors, "bytes": bytes }))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": COMMIT,
        "command": report.command,
        "unix_time_s": report.unix_time_s,
        "cpu": report.cpu,
        "threads": report.threads,
        "simd": report.simd.name(),
        "device": report.device.as_ref().map(device),
        "model": {
            "name": model.name,
            "parameters": model.parameters,
            "file_bytes": model.file_bytes,
            "types": types,
        },
        "chunk": plan.chunk,
        "repetitions": plan.repetitions,
        "generate": plan.generate,
        "load_s": report.load_s,
        "ttft_ms": report.ttft_ms(),
        "ttft_with_load_ms": report.ttft_with_load_ms(),
        "peak_rss_bytes": report.peak_rss_bytes,
        "bytes_per_token": {
            "weights": work.weight_bytes(1),
            "state": work.state_bytes,
            "kv_per_position": work.kv_bytes_per_token,
        },
        "limits": {
            "read_bytes_per_s": limits.read_bytes_per_s,
            "int8_ops_per_s": limits.int8_ops_per_s,
            "f32_flops_per_s": limits.f32_flops_per_s,
        },
        "prefill": prefill(report),
        "decode": decode(report),
        "compare": report.comparison.as_ref().map(comparison),
    })
}

fn device(facts: &DeviceFacts) -> Value {
    let (major, minor) = facts.properties.capability;
    json!({
        "name": facts.properties.name,
        "capability": format!("{major}.{minor}"),
        "peak_bytes": facts.peak_bytes,
    })
}

fn prefill(report: &Report) -> Vec<Value> {
    let row = |p: &super::measure::Prefill| {
        json!({
            "tokens": p.tokens,
            "tokens_per_s": p.tokens_per_s.median,
            "min": p.tokens_per_s.min,
            "max": p.tokens_per_s.max,
            "samples": p.samples,
            "fraction_of_int8": report.fraction_of_int8(p),
            "fraction_of_f32": report.fraction_of_f32(p),
        })
    };
    report.measured.prefill.iter().map(row).collect()
}

fn decode(report: &Report) -> Vec<Value> {
    let row = |d: &super::measure::Decode| {
        json!({
            "depth": d.depth,
            "batch": d.batch,
            "tokens_per_s": d.tokens_per_s.median,
            "min": d.tokens_per_s.min,
            "max": d.tokens_per_s.max,
            "samples": d.samples,
            "p50_ms": d.p50_ms,
            "p99_ms": d.p99_ms,
            "bytes_per_step": report.step_bytes(d),
            "fraction_of_bandwidth": report.fraction_of_bandwidth(d),
        })
    };
    report.measured.decode.iter().map(row).collect()
}

fn comparison(comparison: &Comparison) -> Value {
    let ratios = comparison.ratios.iter().map(|ratio| {
        let mut row = match ratio.test {
            Test::Prefill { tokens } | Test::Mixed { tokens, .. } => {
                json!({ "test": "prefill", "tokens": tokens })
            }
            Test::Decode { depth, generate } => {
                json!({ "test": "decode", "depth": depth, "generate": generate })
            }
        };
        for (key, value) in [("ours", ratio.ours), ("theirs", ratio.theirs), ("ratio", ratio.ratio())] {
            row[key] = json!(value);
        }
        row
    });
    json!({
        "peer": comparison.peer,
        "ratios": ratios.collect::<Vec<_>>(),
        "notes": comparison.notes,
    })
}
