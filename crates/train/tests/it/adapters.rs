//! Adapters: what they cover, their gradients, and that merging them changes nothing.

use tangelo_train::adapter::{self, PROJECTIONS, Settings};
use tangelo_train::{Batch, Network, Params};

use crate::fixtures::{Opened, batch, cx};

/// A model with an adapter whose parameters are no longer what they began with.
fn adapted(settings: &Settings) -> (Opened, Batch) {
    let mut opened = Opened::new("tiny/f32");
    let config = opened.checkpoint.config().clone();
    adapter::add(&config, &mut opened.params, settings).expect("an adapter");
    for id in opened.params.ids() {
        let param = opened.params.get_mut(id);
        if param.is_trained {
            param
                .data
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = *x * 1.1 + 0.02 * ((i * 7919 % 13) as f32 - 6.0));
        }
    }
    opened.network = Network::with_adapter(&config, &opened.params, Some(settings)).expect("a dense model");
    let batch = batch(&[30, 12], config.vocab_size, 1.0 / 28.0);
    (opened, batch)
}

fn settings() -> [Settings; 3] {
    let lora = Settings { rank: 3, alpha: 5.0, ..Settings::default() };
    let dora = Settings { dora: true, ..lora.clone() };
    let state = Settings { rank: 0, state: true, ..lora.clone() };
    [lora, dora, state]
}

#[test]
fn an_adapter_changes_nothing_at_first_and_covers_every_kind_of_projection() {
    let cx = cx();
    for settings in settings() {
        let plain = Opened::new("tiny/f32");
        let config = plain.checkpoint.config();
        let batch = batch(&[30, 12], config.vocab_size, 1.0);
        let mut params = Params::load(&plain.checkpoint).expect("plain weights");
        adapter::add(config, &mut params, &settings).expect("an adapter");
        let network = Network::with_adapter(config, &params, Some(&settings)).expect("a dense model");
        let (before, after) =
            (plain.network.losses(&cx, &plain.params, &batch), network.losses(&cx, &params, &batch));
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5), "{settings:?}");
        let coverage = adapter::coverage(&params);
        assert_eq!(coverage.len(), PROJECTIONS.len(), "the model has all kinds");
        assert!(
            settings.rank == 0
                || coverage.iter().all(|kind| kind.adapted == kind.present && kind.parameters > 0)
        );
        let learns = params.iter().filter(|(_, param)| param.is_trained).count();
        assert!(
            learns > 0
                && params
                    .iter()
                    .all(|(id, param)| param.is_trained != params.no_gradients().of(id).is_empty())
        );
    }
}

#[test]
fn only_the_adapter_learns_and_its_gradient_is_the_slope() {
    let cx = cx();
    for settings in settings() {
        let (mut opened, batch) = adapted(&settings);
        let mut gradients = opened.params.no_gradients();
        opened.network.add_gradients(&cx, &opened.params, &batch, &mut gradients);
        for id in opened.params.ids() {
            let gradient = gradients.of(id).to_vec();
            let length = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            if length < 1e-4 {
                assert!(!opened.params.get(id).is_trained, "{}: no gradient", opened.params.get(id).name);
                continue;
            }
            let mut moved = |by: f64| {
                let before = opened.params.get(id).data.clone();
                let data = &mut opened.params.get_mut(id).data;
                data.iter_mut().zip(&gradient).for_each(|(x, g)| *x += (by * f64::from(*g) / length) as f32);
                let losses = opened.network.losses(&cx, &opened.params, &batch);
                opened.params.get_mut(id).data = before;
                losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / 28.0
            };
            let slope = (moved(4e-3) - moved(-4e-3)) / 8e-3;
            let name = &opened.params.get(id).name;
            // The lengths of DoRA's rows are held fixed on the way back, so A and B have another slope there.
            let is_exact = !settings.dora || name.ends_with("magnitude_vector");
            assert!(
                !is_exact || (slope - length).abs() < 0.03 * length + 2e-4,
                "{name}: {slope}, expected {length}"
            );
        }
    }
}

#[test]
fn merged_weights_do_what_weights_and_adapter_do() {
    let cx = cx();
    for settings in &settings()[..2] {
        let (mut opened, batch) = adapted(settings);
        let apart = opened.network.logits(&cx, &opened.params, &batch);
        opened.network.merge(&cx, &mut opened.params);
        let plain = Network::new(opened.checkpoint.config(), &opened.params).expect("a dense model");
        let merged = plain.logits(&cx, &opened.params, &batch);
        let largest = apart.data().iter().fold(0.0f32, |max, x| max.max(x.abs()));
        for (a, b) in apart.data().iter().zip(merged.data()) {
            assert!((a - b).abs() < 1e-5 * largest.max(1.0), "{settings:?}: {a} and {b}");
        }
    }
}

#[test]
fn what_is_no_adapter_is_refused() {
    let mut opened = Opened::new("tiny/f32");
    let config = opened.checkpoint.config().clone();
    let mut refused = |settings: &Settings, expected: &str| {
        let error = adapter::add(&config, &mut opened.params, settings).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&Settings { targets: vec!["gate_proj".into()], ..Settings::default() }, "gate_proj");
    refused(&Settings { rank: 0, ..Settings::default() }, "adapts nothing");
}
