//! The forward and the gradients of whole models.

use std::ops::Range;

use tangelo_formats::Config;
use tangelo_model::{LogitRows, Model, Segment};
use tangelo_train::{Batch, Gradients, Network, Params, init};

use crate::fixtures::{Opened, batch, cx, path};

/// Dense models of the fixtures.
const MODELS: [&str; 2] = ["tiny/f32", "odd/f32"];

#[test]
fn logits_are_the_engines_bit_for_bit() {
    let cx = cx();
    for name in MODELS {
        let Opened { checkpoint, params, network } = Opened::new(name);
        let batch = batch(&[70, 1, 133], checkpoint.config().vocab_size, 1.0);
        let ours = network.logits(&cx, &params, &batch);
        let model = Model::load(&cx, &checkpoint).expect("the same model");
        for rows in &batch.sequences {
            let mut state = model.new_state();
            let tokens = &batch.tokens[rows.clone()];
            // A token at a time, so that nothing but the prefix is the same.
            for (t, row) in rows.clone().enumerate() {
                let segment = Segment { tokens: &tokens[t..=t], state: &mut state, logits: LogitRows::Last };
                let theirs = model.forward(&cx, &mut [segment]).expect("known tokens");
                let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
                assert_eq!(bits(ours.row(row)), bits(theirs.row(0)), "{name}, token {t}");
            }
        }
    }
}

fn gradients(Opened { network, params, .. }: &Opened, batches: &[Batch]) -> (Vec<f32>, Gradients) {
    gradients_of(network, params, batches)
}

fn gradients_of(network: &Network, params: &Params, batches: &[Batch]) -> (Vec<f32>, Gradients) {
    let (cx, mut gradients) = (cx(), params.no_gradients());
    let mut losses = Vec::new();
    for batch in batches {
        losses.extend(network.add_gradients(&cx, params, batch, &mut gradients));
    }
    network.complete(params, &mut gradients);
    (losses, gradients)
}

/// A batch for every sequence.
fn one_by_one(whole: &Batch) -> Vec<Batch> {
    let part = |rows: &Range<usize>| Batch {
        tokens: whole.tokens[rows.clone()].to_vec(),
        targets: whole.targets[rows.clone()].to_vec(),
        sequences: std::iter::once(0..rows.len()).collect(),
    };
    whole.sequences.iter().map(part).collect()
}

#[test]
fn gradients_do_not_depend_on_how_a_batch_is_divided_or_on_recomputing() {
    for name in MODELS {
        let mut opened = Opened::new(name);
        let vocabulary = opened.checkpoint.config().vocab_size;
        let lengths = [40, 3, 1, 90];
        let whole = batch(&lengths, vocabulary, 0.01);
        let parts = one_by_one(&whole);
        let at_once = gradients(&opened, &[whole]);
        assert_eq!(gradients(&opened, &parts), at_once, "{name}: one sequence at a time");
        opened.network.recompute = true;
        assert_eq!(gradients(&opened, &parts), at_once, "{name}: computed again");
    }
}

#[test]
fn an_output_matrix_that_is_the_table_too_has_the_gradient_of_the_whole_batch() {
    let text = std::fs::read_to_string(path("tiny/config.json")).expect("a configuration");
    let tied = text.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    let config = Config::from_json(&tied).expect("a configuration");
    let params = init(&config, 3);
    assert!(config.tie_word_embeddings && params.find("lm_head.weight").is_none());
    let network = Network::new(&config, &params).expect("a dense model");
    let whole = batch(&[40, 3, 1, 90], config.vocab_size, 0.01);
    let parts = one_by_one(&whole);
    assert_eq!(gradients_of(&network, &params, &parts), gradients_of(&network, &params, &[whole]));
}

/// The directional derivative of the loss along a gradient is the square of its length.
#[test]
fn the_loss_falls_as_the_gradient_says() {
    let cx = cx();
    for name in MODELS {
        let opened = Opened::new(name);
        let batch = batch(&[50, 20], opened.checkpoint.config().vocab_size, 1.0 / 46.0);
        let (_, all) = gradients(&opened, std::slice::from_ref(&batch));
        let loss = |params: &Params| {
            opened.network.losses(&cx, params, &batch).iter().map(|l| f64::from(*l)).sum::<f64>() / 46.0
        };
        for id in opened.params.ids() {
            let gradient = all.of(id);
            let length = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            if length < 1e-4 {
                continue;
            }
            let moved = |by: f64| {
                let mut params = Params::load(&opened.checkpoint).expect("as before");
                let data = &mut params.get_mut(id).data;
                data.iter_mut().zip(gradient).for_each(|(x, g)| *x += (by * f64::from(*g) / length) as f32);
                loss(&params)
            };
            let step = 4e-3;
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            let param = &opened.params.get(id).name;
            assert!(
                (slope - length).abs() < 0.02 * length + 2e-4,
                "{name} {param}: {slope}, expected {length}"
            );
        }
    }
}

/// `fixtures/gen/gradients.py`: transformers' autograd in float64, every sequence on its own.
#[test]
fn gradients_are_those_of_transformers() {
    let text = std::fs::read_to_string(path("gradients.json")).expect("the goldens");
    let goldens: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (name, model) in [("tiny", "tiny/f32"), ("odd", "odd/f32")] {
        let opened = Opened::new(model);
        let batch = batch(&[40, 3, 1, 90], opened.checkpoint.config().vocab_size, 0.01);
        let (losses, all) = gradients(&opened, &[batch]);
        let number = |value: &serde_json::Value| value.as_f64().expect("a number");
        let golden = &goldens[name];
        let loss = 0.01 * losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
        assert!(
            (loss - number(&golden["loss"])).abs() < 1e-5,
            "{name}: the loss is {loss}, not {}",
            golden["loss"]
        );
        for (id, param) in opened.params.iter() {
            let golden = &golden["tensors"][&param.name];
            let as_checkpoint = param.in_checkpoint_order(all.of(id));
            let length = as_checkpoint.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let want = number(&golden["length"]);
            assert!(
                (length - want).abs() < 1e-4 * want,
                "{name} {}: length {length}, not {want}",
                param.name
            );
            let step = golden["step"].as_u64().expect("a number") as usize;
            let elements = golden["elements"].as_array().expect("a list").iter().map(number);
            for (got, want) in as_checkpoint.iter().step_by(step).zip(elements) {
                let error = (f64::from(*got) - want).abs();
                assert!(
                    error < 1e-4 * want.abs() + 3e-5 * length,
                    "{name} {}: {got}, not {want}",
                    param.name
                );
            }
        }
    }
}
