//! The laws of principle P1, by equality of bits: the logits after a token, and the state, depend on the tokens before
//! and on nothing else. Every law runs on every kind of block, on plain and on quantised weights, with keys and values in
//! f32 and in f16.

use std::ops::ControlFlow;

use crate::common::{MODELS, assert_same, bits, cx, load, prefilled, prompt, seen};
use tangelo_engine::{Advance, Error, Sequence, advance, state_file};
use tangelo_model::{LogitRows, Model, Segment};
use tangelo_ops::attention::KvType;
use tangelo_ops::{Cx, Simd};

fn for_each_model(law: impl Fn(&str, &Model, &[u32])) {
    for (name, folder) in MODELS {
        let (mut model, tokens) = (load(name), prompt(folder, 257));
        for kv_type in KvType::ALL {
            model = model.with_kv_type(kv_type);
            law(&format!("{name} with a cache of {kv_type}"), &model, &tokens);
        }
    }
}

/// Logits after every token, from one forward.
fn all_logits(model: &Model, cx: &Cx, tokens: &[u32]) -> Vec<Vec<u32>> {
    let mut state = model.new_state();
    let mut segments = [Segment { tokens, state: &mut state, logits: LogitRows::All }];
    let rows = model.forward(cx, &mut segments).unwrap();
    (0..rows.rows()).map(|r| bits(rows.row(r))).collect()
}

#[test]
fn prefill_is_token_by_token() {
    let cx = cx();
    for_each_model(|name, model, tokens| {
        let want = all_logits(model, &cx, tokens);
        let mut sequence = Sequence::new(model);
        for (i, &token) in tokens.iter().enumerate() {
            sequence.decode(model, &cx, token).unwrap();
            let logits = sequence.logits().unwrap();
            assert!(bits(logits) == want[i], "{name}: logits differ after token {i}");
        }
        let whole = prefilled(model, &cx, tokens);
        assert_same(&seen(model, &sequence), &seen(model, &whole), name);
    });
}

#[test]
fn chunks_do_not_show() {
    let cx = cx();
    for_each_model(|name, model, tokens| {
        let want = seen(model, &prefilled(model, &cx, tokens));
        for chunk in [1, 2, 5, 63, 64, 65, 128, 256, 257, 1000] {
            let mut sequence = Sequence::new(model);
            sequence.prefill(model, &cx, tokens, chunk).unwrap();
            assert_same(&seen(model, &sequence), &want, &format!("{name} in chunks of {chunk}"));
        }
        let mut sequence = Sequence::new(model);
        for cut in [0..0, 0..3, 3..4, 4..4, 4..130, 130..257] {
            sequence.prefill(model, &cx, &tokens[cut], 50).unwrap();
        }
        assert_same(&seen(model, &sequence), &want, &format!("{name} in uneven pieces"));
    });
}

#[test]
fn threads_and_instruction_sets_do_not_show() {
    for_each_model(|name, model, tokens| {
        let want = seen(model, &prefilled(model, &cx(), tokens));
        for simd in Simd::available() {
            for threads in [1, 2, 4] {
                let cx = Cx::new(threads, simd).unwrap();
                let mut sequence = Sequence::new(model);
                sequence.prefill(model, &cx, tokens, 100).unwrap();
                let what = format!("{name} on {threads} threads of {simd}");
                assert_same(&seen(model, &sequence), &want, &what);
            }
        }
    });
}

#[test]
fn a_ragged_batch_is_each_alone() {
    let cx = cx();
    for_each_model(|name, model, tokens| {
        // (tokens before, tokens in the batch): decoding, prefilling, continuing, resting and both at once.
        let parts =
            [(0..0, 0..7), (0..20, 20..21), (0..0, 0..0), (0..64, 64..200), (0..5, 5..5), (0..0, 9..10)];
        let mut alone = Vec::new();
        let mut batch = Vec::new();
        for (before, now) in &parts {
            let mut sequence = Sequence::new(model);
            sequence.prefill(model, &cx, &tokens[before.clone()], 512).unwrap();
            batch.push(sequence.fork());
            sequence.prefill(model, &cx, &tokens[now.clone()], 512).unwrap();
            alone.push(sequence);
        }
        let order = [3, 0, 5, 1, 4, 2];
        for order in [vec![0, 1, 2, 3, 4, 5], order.to_vec()] {
            let mut batch: Vec<Sequence> = order.iter().map(|&i: &usize| batch[i].fork()).collect();
            let mut parts: Vec<Advance<'_>> = batch
                .iter_mut()
                .zip(&order)
                .map(|(sequence, &i)| Advance {
                    sequence,
                    tokens: &tokens[parts[i].1.clone()],
                    wants_logits: true,
                })
                .collect();
            advance(model, &cx, &mut parts).unwrap();
            for (sequence, &i) in batch.iter().zip(&order) {
                let what = format!("{name}: sequence {i} of the batch");
                assert_same(&seen(model, sequence), &seen(model, &alone[i]), &what);
            }
        }
    });
}

#[test]
fn forks_do_not_disturb_each_other() {
    let cx = cx();
    for_each_model(|name, model, tokens| {
        // 130 is inside a page of the cache, 128 at the end of one.
        for at in [128, 130] {
            let mut trunk = prefilled(model, &cx, &tokens[..at]);
            let mut branch = trunk.fork();
            branch.prefill(model, &cx, &tokens[..40], 16).unwrap();
            trunk.prefill(model, &cx, &tokens[at..], 16).unwrap();
            let other = [&tokens[..at], &tokens[..40]].concat();
            let what = format!("{name} forked at {at}");
            assert_same(&seen(model, &trunk), &seen(model, &prefilled(model, &cx, tokens)), &what);
            assert_same(&seen(model, &branch), &seen(model, &prefilled(model, &cx, &other)), &what);
        }
    });
}

#[test]
fn rolling_back_is_never_having_gone_on() {
    let cx = cx();
    for_each_model(|name, model, tokens| {
        let mut sequence = prefilled(model, &cx, &tokens[..70]);
        let kept = sequence.keep();
        let want = seen(model, &sequence);
        for tail in [70..257, 0..10] {
            sequence.prefill(model, &cx, &tokens[tail], 33).unwrap();
            sequence.rollback(&kept).unwrap();
            assert_same(&seen(model, &sequence), &want, name);
        }
        sequence.prefill(model, &cx, &tokens[70..], 33).unwrap();
        assert_same(&seen(model, &sequence), &seen(model, &prefilled(model, &cx, tokens)), name);
    });
}

#[test]
fn saving_and_restoring_is_never_having_stopped() {
    let cx = cx();
    let path = std::env::temp_dir().join(format!("tangelo-laws-{}.state", std::process::id()));
    for_each_model(|name, model, tokens| {
        for at in [0, 1, 64, 100] {
            let mut sequence = Sequence::new(model);
            sequence.prefill(model, &cx, &tokens[..at], 512).unwrap();
            state_file::save(&sequence, model, Some("template"), &path).unwrap();
            let restored = state_file::restore(&path, model).unwrap();
            assert_eq!(restored.template.as_deref(), Some("template"));
            let mut restored = restored.sequence;
            assert_same(
                &seen(model, &restored),
                &seen(model, &sequence),
                &format!("{name} restored at {at}"),
            );
            restored.prefill(model, &cx, &tokens[at..], 512).unwrap();
            assert_same(&seen(model, &restored), &seen(model, &prefilled(model, &cx, tokens)), name);
        }
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn an_interrupted_prefill_can_go_on() {
    let (name, cx) = ("tiny", cx());
    let (model, tokens) = (load(name), prompt(name, 257));
    let mut sequence = Sequence::new(&model);
    let mut seen_progress = Vec::new();
    let flow = sequence.prefill_with(&model, &cx, &tokens, 50, &mut |done| {
        seen_progress.push(done);
        if done == 100 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(flow.unwrap().is_break());
    assert_eq!((seen_progress, sequence.position(), sequence.logits()), (vec![50, 100], 100, None));
    sequence.prefill(&model, &cx, &tokens[100..], 512).unwrap();
    assert_same(&seen(&model, &sequence), &seen(&model, &prefilled(&model, &cx, &tokens)), name);
}

#[test]
fn what_does_not_belong_together_is_refused_and_changes_nothing() {
    let cx = cx();
    let (model, other, tokens) = (load("tiny"), load("moe"), prompt("tiny", 50));
    let mut sequence = prefilled(&model, &cx, &tokens);
    let before = seen(&model, &sequence);
    assert!(matches!(sequence.prefill(&other, &cx, &tokens, 8), Err(Error::WrongModel)));
    let mut bad = tokens.clone();
    bad[40] = model.config().vocab_size as u32;
    let error = sequence.prefill(&model, &cx, &bad, 8).unwrap_err().to_string();
    assert!(error.contains("token id 512 is outside the model's vocabulary of 512"), "{error}");
    let ahead = prefilled(&model, &cx, &[tokens.as_slice(), &[5]].concat()).keep();
    let elsewhere = prefilled(&other, &cx, &tokens).keep();
    for kept in [ahead, elsewhere] {
        assert!(matches!(sequence.rollback(&kept), Err(Error::NotOnPath { .. })));
    }
    let mut second = Sequence::new(&model);
    let mut batch = [
        Advance { sequence: &mut sequence, tokens: &tokens, wants_logits: true },
        Advance { sequence: &mut second, tokens: &bad, wants_logits: true },
    ];
    assert!(advance(&model, &cx, &mut batch).is_err());
    assert_same(&seen(&model, &sequence), &before, "after refusals");
    assert_eq!(second.position(), 0);
}
