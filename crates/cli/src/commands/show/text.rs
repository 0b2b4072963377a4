//! The facts as a page for people.

use tangelo_formats::config::{BlockKind, Config};

use super::facts::{Facts, Files, Memory, Parameters, TokenizerFacts, layers_of};
use super::offload::Offload;
use crate::page::{Page, count, grouped, plural, size};

/// Layers in a row of the map.
const LAYERS_A_ROW: usize = 10;
/// Special tokens that are shown.
const SPECIAL_SHOWN: usize = 24;
/// The context that llama.cpp's converter writes into every GGUF file of this family.
const CONVERTER_CONTEXT: usize = 1 << 20;
const CONVERTER_NOTE: &str = " (llama.cpp's converter writes this for every model of the family)";

/// The kinds of layers in the order they are counted.
const KINDS: [(BlockKind, &str); 4] = [
    (BlockKind::Mamba, "Mamba-2"),
    (BlockKind::Attention, "attention"),
    (BlockKind::Mlp, "MLP"),
    (BlockKind::Moe, "experts"),
];

/// The whole page.
pub fn page(facts: &Facts) -> String {
    let mut page = Page::new(&facts.model);
    let config = &facts.config;
    page.line("architecture", if config.moe.is_some() { "Nemotron-H with experts" } else { "Nemotron-H" });
    if let Some(files) = &facts.files {
        let quantisation = files.quantisation.as_ref().map(|q| format!(", {q}")).unwrap_or_default();
        page.line("format", &format!("{}{quantisation}", files.format));
        page.list("licence", &[files.license.clone().unwrap_or_else(|| "not named".into())]);
    }
    let note = if config.max_position_embeddings == CONVERTER_CONTEXT { CONVERTER_NOTE } else { "" };
    page.line("context", &format!("{} tokens{note}", grouped(config.max_position_embeddings as u64)));
    layers(&mut page, config);
    parameters(&mut page, &facts.parameters, config);
    if let Some(files) = &facts.files {
        weights(&mut page, files);
    }
    memory(&mut page, &facts.memory, facts.files.as_ref());
    if let Some(offload) = &facts.offload {
        on_device(&mut page, offload);
    }
    if let Some(files) = &facts.files {
        tokenizer(&mut page, files, config);
    }
    page.text()
}

fn layers(page: &mut Page, config: &Config) {
    page.section("Layers");
    let present = KINDS.into_iter().filter(|(kind, _)| config.has(*kind));
    let counts: Vec<String> = present
        .clone()
        .map(|(kind, name)| format!("{} {name} ({})", config.num_blocks(kind), kind.symbol()))
        .collect();
    page.line(&config.blocks.len().to_string(), &counts.join(", "));
    for (row, blocks) in config.blocks.chunks(LAYERS_A_ROW).enumerate() {
        let symbols: String = blocks.iter().flat_map(|b| [' ', b.symbol()]).collect();
        page.line(&format!("{:>16}", row * LAYERS_A_ROW), symbols.trim_start());
    }
    let attention = layers_of(config, BlockKind::Attention);
    if !attention.is_empty() {
        page.list("attention at", &attention.iter().map(usize::to_string).collect::<Vec<_>>());
    }
    page.line("width", &config.hidden_size.to_string());
    for (kind, name) in present {
        page.line(name, &sizes(config, kind));
    }
}

fn sizes(config: &Config, kind: BlockKind) -> String {
    let (m, a) = (&config.mamba, &config.attention);
    match kind {
        BlockKind::Mamba => {
            let (least, most) = m.time_step_limit;
            let clamp = match (least, most) {
                (0.0, f32::INFINITY) => String::new(),
                _ => format!(", dt within {least} to {most}"),
            };
            format!(
                "{} of {}, state {}, {}, convolution of {}{clamp}",
                count(m.num_heads, "head"),
                m.head_dim,
                m.state_size,
                count(m.num_groups, "group"),
                m.conv_kernel
            )
        }
        BlockKind::Attention => {
            format!(
                "{} of {} on {}",
                count(a.num_heads, "head"),
                a.head_dim,
                count(a.num_kv_heads, "key/value head")
            )
        }
        BlockKind::Mlp => format!("{} wide, squared ReLU", config.mlp.intermediate_size),
        BlockKind::Moe => config.moe.as_ref().map_or_else(String::new, |moe| {
            let latent = moe.latent_size.map(|n| format!(" in a latent space of {n}")).unwrap_or_default();
            let groups = match moe.num_groups {
                1 => String::new(),
                n => format!(" from {} of {n} groups", moe.num_groups_kept),
            };
            format!(
                "{} of {}, {} wide{latent}{groups}, and a shared one, {} wide",
                moe.num_experts_per_token,
                moe.num_experts,
                moe.intermediate_size,
                moe.shared_intermediate_size
            )
        }),
    }
}

fn parameters(page: &mut Page, parameters: &Parameters, config: &Config) {
    page.section("Parameters");
    let mut number = |label: &str, n: u64, note: &str| {
        page.line(label, format!("{:>15}  {note}", grouped(n)).trim_end());
    };
    number("total", parameters.total, "");
    number(
        "embedding",
        parameters.embedding,
        if config.tie_word_embeddings { "also the output matrix" } else { "" },
    );
    if !config.tie_word_embeddings {
        number("output matrix", parameters.output, "");
    }
    number("active", parameters.active, "multiplied for each token");
}

fn weights(page: &mut Page, files: &Files) {
    page.section("Weights");
    for (name, tensors, bytes) in &files.types {
        page.line(name, &format!("{:>11}  {:>6} {}", size(*bytes), tensors, plural(*tensors, "tensor")));
    }
    let (tensors, bytes) =
        files.types.iter().fold((0, 0), |(n, sum), (_, tensors, bytes)| (n + tensors, sum + bytes));
    page.line("total", &format!("{:>11}  {tensors:>6} {}", size(bytes), plural(tensors, "tensor")));
    for path in &files.paths {
        page.line("file", &path.display().to_string());
    }
}

fn memory(page: &mut Page, memory: &Memory, files: Option<&Files>) {
    page.section("Memory");
    if let Some(files) = files {
        page.line(
            "weights",
            &format!("{:>11}  copied from {}", size(files.file_bytes), count(files.paths.len(), "file")),
        );
    }
    page.line("state", &format!("{:>11}  for each sequence", size(memory.fixed)));
    let f16 = format!("{} with --kv f16", size(memory.per_token_f16));
    page.line("keys, values", &format!("{:>11}  for each token, {f16}", size(memory.per_token)));
    for (i, (tokens, bytes)) in memory.contexts.iter().enumerate() {
        let note =
            if i + 1 == memory.contexts.len() { "in one sequence, the longest" } else { "in one sequence" };
        let label = format!("{:>9} tokens", grouped(*tokens as u64));
        page.line(&label, format!("{:>11}  {note}", size(*bytes)).trim_end());
    }
}

fn on_device(page: &mut Page, offload: &Offload) {
    page.section("On a device");
    let bytes = |page: &mut Page, label: &str, bytes: u64, note: &str| {
        page.line(label, format!("{:>11}  {note}", size(bytes)).trim_end());
    };
    match &offload.device {
        None => page.line("device", "none was looked for or found"),
        Some((device, free)) => {
            let (major, minor) = device.capability;
            page.line("device", &format!("{}, compute capability {major}.{minor}", device.name));
            bytes(page, "free", *free, &format!("of {}", size(device.total_bytes)));
        }
    }
    let (context, chunk) = (grouped(offload.context as u64), grouped(offload.chunk as u64));
    bytes(page, "weights", offload.whole.weights, "");
    bytes(
        page,
        "state",
        offload.whole.state,
        &format!("for {context} tokens, keys and values in {}", offload.kv),
    );
    bytes(page, "activations", offload.whole.scratch, &format!("for {chunk} tokens at a time"));
    bytes(page, "total", offload.whole.total(), "for the whole model");
    if let Some(fit) = &offload.fit {
        bytes(page, "may be used", fit.budget, "");
        bytes(page, "goes there", fit.bytes.total(), &fit.words());
    }
}

fn tokenizer(page: &mut Page, files: &Files, config: &Config) {
    page.section("Text");
    page.line("vocabulary", &config.vocab_size.to_string());
    match &files.tokenizer {
        None => page.line("tokenizer", "none: the model works on token ids"),
        Some(Err(error)) => page.line("tokenizer", &format!("cannot be used: {error:#}")),
        Some(Ok(tokenizer)) => {
            let split = tokenizer.pre.as_ref().map(|pre| format!(", split as {pre}")).unwrap_or_default();
            let kind =
                format!("byte-level BPE, {} tokens, {}{split}", tokenizer.num_tokens, tokenizer.source);
            page.line("tokenizer", &kind);
            page.list("special tokens", &special(tokenizer));
        }
    }
    let known = files.tokenizer.as_ref().and_then(|t| t.as_ref().ok());
    let stop = |id: &u32| match known.and_then(|t| t.special_text(*id)) {
        Some(text) => format!("{id} {text}"),
        None => id.to_string(),
    };
    match files.stop_ids.as_slice() {
        [] => page.line("stops at", "nothing: no file names an end"),
        ids => page.list("stops at", &ids.iter().map(stop).collect::<Vec<_>>()),
    }
    let template = files.template.as_ref();
    let template = template.map(|t| format!("{} bytes, dialect {}", grouped(t.bytes as u64), t.dialect));
    page.line("chat template", template.as_deref().unwrap_or("none"));
}

/// The special tokens that have names of their own, and how many there are besides.
fn special(tokenizer: &TokenizerFacts) -> Vec<String> {
    let named = tokenizer.special.iter().filter(|(_, text)| !text.starts_with("<SPECIAL_"));
    let mut shown: Vec<String> = named.take(SPECIAL_SHOWN).map(|(id, text)| format!("{id} {text}")).collect();
    match tokenizer.special.len() - shown.len() {
        0 if shown.is_empty() => shown.push("none".into()),
        0 => {}
        rest => shown.push(format!("{rest} more")),
    }
    shown
}
