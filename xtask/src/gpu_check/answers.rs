//! The card's answers beside the processor's, on the fixtures.
//!
//! Logits of block formats and F32 are equal byte for byte; those of BF16, which have an order of their own on tensor
//! cores, are equal however the prompt is cut, and near the processor's. Greedy answers are equal.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::record::Record;
use super::run::Fault;
use super::{Check, run};

/// Models of block formats.
pub const QUANTISED: [&str; 6] = [
    "fixtures/quantised/tiny-Q8_0.gguf",
    "fixtures/quantised/tiny-Q4_0.gguf",
    "fixtures/quantised/tiny-Q4_1.gguf",
    "fixtures/quantised/tiny-Q5_0.gguf",
    "fixtures/quantised/tiny-Q5_1.gguf",
    "fixtures/quantised/tiny-IQ4_NL.gguf",
];
const F32: [&str; 3] = ["fixtures/tiny/f32", "fixtures/odd/f32", "fixtures/moe/f32"];
const BF16: [&str; 3] = ["fixtures/tiny", "fixtures/odd", "fixtures/moe"];
/// Most difference of a logit: what the goldens allow the processor.
const BF16_MAX: f32 = 2e-4;
const LIMIT: Duration = Duration::from_secs(60);
/// Tokens of the prompt: several pages of keys, and a chunk that is not full.
const TOKENS: usize = 200;
/// Ids below this are in every fixture's vocabulary.
const IDS: usize = 300;

/// All of them.
pub fn compare_all(check: &Check<'_>, record: &mut Record) {
    let (exact, near) = match check.options.quick {
        true => (&QUANTISED[..1], &[][..]),
        false => (&QUANTISED[..], &BF16[..]),
    };
    let floats = if check.options.quick { &[][..] } else { &F32[..] };
    for model in exact.iter().chain(floats) {
        record.step(&format!("logits of {model}"), || same_logits(check, model));
    }
    for model in near {
        record.step(&format!("logits of {model}"), || near_logits(check, model));
    }
    for model in exact.iter().chain(floats).chain(near) {
        record.step(&format!("greedy answer of {model}"), || same_answer(check, model));
    }
    record.facts["bf16_max_difference_allowed"] = json!(BF16_MAX);
}

fn same_logits(check: &Check<'_>, model: &str) -> Result<String, Fault> {
    let [cpu, cut, whole] = logits(check, model)?;
    if cpu == cut && cpu == whole {
        return Ok("equal bytes, however the prompt is cut".into());
    }
    let difference = difference(&cpu, &whole)?;
    let cuts = if cut == whole { "" } else { ", and depend on how the prompt is cut" };
    Err(Fault::Failed(format!("logits differ from the processor's by up to {difference:e}{cuts}")))
}

fn near_logits(check: &Check<'_>, model: &str) -> Result<String, Fault> {
    let [cpu, cut, whole] = logits(check, model)?;
    let difference = difference(&cpu, &whole)?;
    if cut != whole {
        return Err(Fault::Failed("logits depend on how the prompt is cut".into()));
    }
    if difference.is_nan() || difference > BF16_MAX {
        return Err(Fault::Failed(format!("logits differ from the processor's by up to {difference:e}")));
    }
    Ok(format!("within {difference:.1e} of the processor's"))
}

/// The files of logits: of the processor, of the card with the prompt cut, and of the card.
fn logits(check: &Check<'_>, model: &str) -> Result<[Vec<u8>; 3], Fault> {
    let ids: Vec<String> = (0..TOKENS).map(|i| ((i * 37 + 11) % IDS).to_string()).collect();
    let file = |on_device: bool, chunk: &str| {
        let path = check.folder.join("logits.safetensors");
        let out = path.to_string_lossy();
        let args = ["logits", "--model", model, "--ids", &ids.join(","), "--out", &out, "--chunk", chunk];
        run(&mut check.tangelo(on_device, &args), LIMIT)?;
        read(&path)
    };
    Ok([file(false, "128")?, file(true, "7")?, file(true, "128")?])
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    fs::read(path).map_err(|e| Fault::Failed(format!("{} cannot be read: {e}", path.display())))
}

/// The greatest difference of two files of logits; NaN if some is.
fn difference(a: &[u8], b: &[u8]) -> Result<f32, Fault> {
    let (a, b) = (floats(a), floats(b));
    let (Some(a), Some(b)) = (a, b) else { return Err(Fault::Failed("the logits cannot be read".into())) };
    if a.len() != b.len() {
        return Err(Fault::Failed("there are more logits on one side".into()));
    }
    let differences = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
    Ok(differences.fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most }))
}

/// The numbers of a safetensors file of one tensor of F32: eight bytes of length, a header so long, the data.
fn floats(file: &[u8]) -> Option<Vec<f32>> {
    let (len, rest) = file.split_first_chunk::<8>()?;
    let data = rest.get(usize::try_from(u64::from_le_bytes(*len)).ok()?..)?;
    let (words, _) = data.as_chunks::<4>();
    Some(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

fn same_answer(check: &Check<'_>, model: &str) -> Result<String, Fault> {
    let ids = |on_device: bool| -> Result<Value, Fault> {
        let args = ["generate", model, "--ids", "5,6,7,8,9", "--greedy", "-n", "48", "--json"];
        Ok(check.json(on_device, &args, LIMIT)?["token_ids"].take())
    };
    let (cpu, card) = (ids(false)?, ids(true)?);
    match cpu.as_array() {
        Some(tokens) if !tokens.is_empty() && cpu == card => Ok(format!("{} equal ids", tokens.len())),
        _ => Err(Fault::Failed(format!("the processor says {cpu}, the card {card}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(numbers: &[f32]) -> Vec<u8> {
        let data = numbers.iter().flat_map(|x| x.to_le_bytes());
        [&2u64.to_le_bytes()[..], b"{}"].concat().into_iter().chain(data).collect()
    }

    #[test]
    fn files_are_compared_number_by_number() {
        let of = |a: &[f32], b: &[f32]| difference(&file(a), &file(b)).expect("two files");
        assert_eq!(of(&[1.0, -2.0, 3.0], &[1.5, -2.25, 3.0]), 0.5);
        assert!(of(&[f32::NAN, 0.0], &[0.0, 9.0]).is_nan() && of(&[0.0, f32::NAN], &[9.0, 0.0]).is_nan());
        assert!(difference(&file(&[1.0]), &file(&[])).is_err() && difference(b"short", b"short").is_err());
    }
}
