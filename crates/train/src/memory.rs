//! How much memory a run takes at least, known before a weight is read.
//!
//! ```text
//! weights        4 bytes, and 4 more of matrices that are multiplied, which are packed for it
//! what learns    4 bytes of gradient and 8 of moments, or 4 where Muon has one
//! activations    4 bytes, for every token of a micro-batch: the norm, the projections, what the last of them takes, what lies
//!                between the operations of a Mamba-2 mixer, and the residual stream after every block; where blocks are
//!                computed again, those of the largest one
//! embeddings     4 bytes, for every token of a step and every column, if they learn: their gradient is added at the end
//! ```
//!
//! Buffers of single operations and the data come on top.

use std::path::Path;

use tangelo_formats::Checkpoint;
use tangelo_formats::config::{BlockKind, Config, TensorSpec};

use crate::adapter::projection;
use crate::disk::read;
use crate::error::{Error, Result};
use crate::optimiser::Method;
use crate::recipe::Recipe;
use crate::run::begun;

/// Bytes of a number.
const F32: u64 = 4;

/// Bytes that a run of this recipe takes at least.
///
/// # Errors
/// If there is no such model, or its configuration cannot be read.
pub fn needed_bytes(recipe: &Recipe) -> Result<u64> {
    let config = match (&recipe.model.from, &recipe.model.config) {
        (Some(from), _) => Checkpoint::open(from)?.config().clone(),
        (None, Some(path)) => config_of(path)?,
        (None, None) => return Err(Error::Recipe { problem: "`model` names no model".into() }),
    };
    Ok(needed_by(&config, recipe))
}

/// Bytes that going on with a run, with changes of its recipe, takes at least.
///
/// # Errors
/// If there is no run, or its files cannot be read.
pub fn needed_to_resume(folder: &Path, changes: &[String]) -> Result<u64> {
    let (recipe, model) = begun(folder, changes)?;
    match model {
        Some(model) => Ok(needed_by(Checkpoint::open(&model)?.config(), &recipe)),
        None => needed_bytes(&recipe),
    }
}

fn needed_by(config: &Config, recipe: &Recipe) -> u64 {
    let [mut weights, mut learned] = [0u64; 2];
    for TensorSpec { name, shape } in config.tensors() {
        let len = shape.iter().product::<usize>() as u64;
        let is_matrix = shape.len() == 2;
        // Embeddings are looked up, and multiplied only if they are the output matrix too.
        let is_packed = is_matrix && (config.tie_word_embeddings || !name.ends_with("embeddings.weight"));
        weights += len * if is_packed { 2 } else { 1 };
        let learns = match &recipe.adapter {
            None if is_matrix && name.contains(".mixer.") && recipe.optimiser.method == Method::Muon => {
                2 * len
            }
            None => 3 * len,
            // Both matrices with their packed forms, gradients and moments.
            Some(adapter) if projection(&name, &adapter.targets).is_some() => {
                (adapter.rank as u64).saturating_mul(5 * shape.iter().sum::<usize>() as u64)
            }
            Some(_) => 0,
        };
        learned = learned.saturating_add(learns);
    }
    let tokens = recipe.batch.micro_tokens.min(recipe.batch.tokens) as u64;
    let activations = tokens.saturating_mul(numbers_per_token(config, recipe.model.recompute));
    let looked_up = if recipe.adapter.is_some() { 0 } else { config.hidden_size as u64 };
    let looked_up = (recipe.batch.tokens as u64).saturating_mul(looked_up);
    [learned, activations, looked_up].into_iter().fold(weights, u64::saturating_add).saturating_mul(F32)
}

fn config_of(path: &Path) -> Result<Config> {
    Ok(Config::from_json(&String::from_utf8_lossy(&read(path)?))?)
}

/// What the way back needs of a token.
fn numbers_per_token(config: &Config, recompute: bool) -> u64 {
    let d = config.hidden_size as u64;
    let of_mixer = (config.mamba.conv_size() + config.mamba.inner_size()) as u64;
    let of_block = |kind: &BlockKind| 2 * d + if *kind == BlockKind::Mamba { of_mixer } else { 0 };
    let mut of_blocks: Vec<u64> = config.blocks.iter().map(of_block).collect();
    for TensorSpec { name, shape } in config.tensors() {
        let block =
            name.strip_prefix("backbone.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
        let (Some(block), &[rows, cols]) = (block.and_then(|i: usize| of_blocks.get_mut(i)), &shape[..])
        else {
            continue;
        };
        let is_last =
            ["out_proj.weight", "o_proj.weight", "down_proj.weight"].iter().any(|end| name.ends_with(end));
        *block += (rows + if is_last { cols } else { 0 }) as u64;
    }
    match recompute {
        true => d * of_blocks.len() as u64 + of_blocks.iter().max().copied().unwrap_or_default(),
        false => of_blocks.iter().sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_add_up() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny");
        let needed = |changes: &[&str]| {
            let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
            let text = format!("[model]\nfrom = {fixture:?}\n[batch]\ntokens = 100\nmicro_tokens = 100\n");
            needed_bytes(&Recipe::parse(&text, &changes).expect("a recipe")).expect("a model")
        };
        let config = Checkpoint::open(Path::new(fixture)).expect("a model").config().clone();
        let sizes = |is_counted: fn(&TensorSpec) -> bool| -> u64 {
            let tensors = config.tensors().into_iter().filter(is_counted);
            tensors.map(|spec| spec.shape.iter().product::<usize>() as u64).sum()
        };
        let is_packed =
            |spec: &TensorSpec| spec.shape.len() == 2 && !spec.name.ends_with("embeddings.weight");
        let (all, matrices) = (sizes(|_| true), sizes(is_packed));
        let (per_token, looked_up) = (numbers_per_token(&config, false), 100 * config.hidden_size as u64);
        assert_eq!(needed(&[]), 4 * (4 * all + matrices + 100 * per_token + looked_up));
        assert_eq!(needed(&["batch.micro_tokens=10"]), 4 * (4 * all + matrices + 10 * per_token + looked_up));
        assert!(needed(&["model.recompute=true"]) < needed(&[]));
        assert!(needed(&["optimiser.method=\"muon\""]) < needed(&[]));
        let adapted = needed(&["adapter.rank=4"]);
        assert!((4 * (all + matrices)..needed(&[])).contains(&adapted));
    }
}
