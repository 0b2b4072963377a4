//! The facts as one JSON document.

use serde_json::{Value, json};
use tangelo_formats::config::{BlockKind, Config};
use tangelo_model::Bytes;
use tangelo_ops::Place;
use tangelo_ops::cuda::Properties;

use super::facts::{Facts, Files, TokenizerFacts, layers_of};
use super::offload::Offload;

/// All facts; `null` where nothing is known.
pub fn document(facts: &Facts) -> Value {
    let Facts { model, config, parameters, memory, files, offload } = facts;
    let contexts: Vec<Value> =
        memory.contexts.iter().map(|(tokens, bytes)| json!({ "tokens": tokens, "bytes": bytes })).collect();
    let mut document = json!({
        "model": model,
        "architecture": if config.moe.is_some() { "nemotron_h_moe" } else { "nemotron_h" },
        "layers": {
            "total": config.blocks.len(),
            "pattern": config.pattern(),
            "mamba": layers_of(config, BlockKind::Mamba),
            "attention": layers_of(config, BlockKind::Attention),
            "mlp": layers_of(config, BlockKind::Mlp),
            "moe": layers_of(config, BlockKind::Moe),
        },
        "sizes": sizes(config),
        "parameters": {
            "total": parameters.total,
            "embedding": parameters.embedding,
            "output": parameters.output,
            "active_per_token": parameters.active,
        },
        "memory": {
            "state_bytes_per_sequence": memory.fixed,
            "bytes_per_token": memory.per_token,
            "bytes_per_token_kv_f16": memory.per_token_f16,
            "contexts": contexts,
        },
        "context_length": config.max_position_embeddings,
        "vocabulary": config.vocab_size,
    });
    for (key, value) in files.as_ref().map(of_files).unwrap_or_default() {
        document[key] = value;
    }
    if let Some(offload) = offload {
        document["device"] = on_device(offload);
    }
    document
}

fn on_device(offload: &Offload) -> Value {
    let bytes = |bytes: &Bytes| {
        json!({
            "weights": bytes.weights, "state": bytes.state, "activations": bytes.scratch, "total": bytes.total(),
        })
    };
    let device = offload.device.as_ref();
    json!({
        "name": device.map(|(device, _)| &device.name),
        "capability": device.map(|(Properties { capability: (major, minor), .. }, _)| format!("{major}.{minor}")),
        "total_bytes": device.map(|(device, _)| device.total_bytes),
        "free_bytes": device.map(|(_, free)| free),
        "context": offload.context,
        "chunk": offload.chunk,
        "kv": offload.kv.name(),
        "bytes": bytes(&offload.whole),
        "fit": offload.fit.as_ref().map(|fit| json!({
            "usable_bytes": fit.budget,
            "layers": fit.layers,
            "layers_in_all": fit.layers_in_all,
            "head": fit.placement.first_on_device.is_some(),
            "embeddings": fit.placement.embeddings == Place::Device,
            "bytes": bytes(&fit.bytes),
        })),
    })
}

fn sizes(config: &Config) -> Value {
    let mut sizes = json!({ "hidden": config.hidden_size, "norm_eps": config.norm_eps });
    if config.has(BlockKind::Mamba) {
        let m = &config.mamba;
        let (least, most) = m.time_step_limit;
        sizes["mamba"] = json!({
            "heads": m.num_heads, "head_dim": m.head_dim, "state": m.state_size, "groups": m.num_groups,
            "convolution": m.conv_kernel,
            // JSON has no infinity; an open end is null.
            "time_step_limit": [least, most.is_finite().then_some(most)],
        });
    }
    if config.has(BlockKind::Attention) {
        let a = &config.attention;
        sizes["attention"] =
            json!({ "heads": a.num_heads, "kv_heads": a.num_kv_heads, "head_dim": a.head_dim });
    }
    if config.has(BlockKind::Mlp) {
        sizes["mlp"] = json!({ "intermediate": config.mlp.intermediate_size });
    }
    if let Some(moe) = &config.moe {
        sizes["moe"] = json!({
            "experts": moe.num_experts, "experts_per_token": moe.num_experts_per_token,
            "intermediate": moe.intermediate_size, "shared_intermediate": moe.shared_intermediate_size,
            "latent": moe.latent_size, "groups": moe.num_groups, "groups_kept": moe.num_groups_kept,
        });
    }
    sizes
}

fn of_files(files: &Files) -> Vec<(&'static str, Value)> {
    let types: Vec<Value> = files
        .types
        .iter()
        .map(|(name, tensors, bytes)| json!({ "type": name, "tensors": tensors, "bytes": bytes }))
        .collect();
    let tokenizer = files.tokenizer.as_ref().map(|tokenizer| match tokenizer {
        Ok(tokenizer) => of_tokenizer(tokenizer),
        Err(error) => json!({ "error": format!("{error:#}") }),
    });
    let template = files.template.as_ref().map(|t| json!({ "bytes": t.bytes, "dialect": t.dialect }));
    vec![
        ("format", json!(files.format)),
        ("files", json!(files.paths)),
        ("file_bytes", json!(files.file_bytes)),
        ("types", json!(types)),
        ("quantisation", json!(files.quantisation)),
        ("tokenizer", json!(tokenizer)),
        ("stop_ids", json!(files.stop_ids)),
        ("chat_template", json!(template)),
        ("license", json!(files.license)),
    ]
}

fn of_tokenizer(tokenizer: &TokenizerFacts) -> Value {
    let special: Vec<Value> =
        tokenizer.special.iter().map(|(id, text)| json!({ "id": id, "text": text })).collect();
    json!({
        "kind": "byte-level BPE",
        "source": tokenizer.source,
        "split": tokenizer.pre,
        "tokens": tokenizer.num_tokens,
        "bos": tokenizer.bos,
        "eos": tokenizer.eos,
        "special": special,
    })
}
