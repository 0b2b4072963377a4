//! The laws on a device, and the device beside the host: an emulated one, or with `TANGELO_TEST_GPU` the machine's.
//!
//! Weights in blocks, F32 and F16 give the bits of the host. BF16 goes through tensor cores, whose sums have an order of
//! their own: near the host's, and by the laws always the same.

use std::sync::Arc;

use crate::common::{MODELS, assert_same, bits, cx, fixture, load, prefilled, prompt, seen};
use crate::scheduler::{recorder, run};
use tangelo_engine::scheduler::{Branch, Job, Options, Work};
use tangelo_engine::{
    Advance, Folder, Generation, Limits, Owner, SamplingParams, Scheduler, Sequence, StateTree, Step,
    advance, state_file,
};
use tangelo_formats::Checkpoint;
use tangelo_model::{Model, Placement};
use tangelo_ops::attention::KvType;
use tangelo_ops::{Cx, Gpu, Place};

/// Tokens of the prompts: past the end of a page.
const TOKENS: usize = 70;

/// A context with a device, or `None`, having said why.
fn device() -> Option<Cx> {
    if std::env::var_os("TANGELO_TEST_GPU").is_none()
        && let Err(reason) = tangelo_emulator::load()
    {
        eprintln!("skipped: {reason}");
        return None;
    }
    Some(cx().with_gpu(Gpu::open(0).unwrap()))
}

fn load_on(cx: &Cx, name: &str) -> Model {
    Model::load(cx, &Checkpoint::open(&fixture(name)).unwrap()).unwrap()
}

/// Whether the device computes what the host does to the bit.
fn is_exact(name: &str) -> bool {
    name == "tiny/f32" || name.starts_with("quantised")
}

#[test]
fn the_device_is_the_host() {
    let Some(there) = device() else { return };
    for (name, folder) in MODELS {
        for kv_type in KvType::ALL {
            let tokens = &prompt(folder, 257)[..TOKENS];
            let here = load(name).with_kv_type(kv_type);
            let model = load_on(&there, name).with_kv_type(kv_type);
            let (want, got) = (prefilled(&here, &cx(), tokens), prefilled(&model, &there, tokens));
            if is_exact(name) {
                assert_same(&seen(&model, &got), &seen(&here, &want), &format!("{name} {kv_type}"));
            }
            // In f16 a key that lies between two numbers may go the other way.
            let tolerance = if kv_type == KvType::F16 { 1e-3 } else { 1e-4 };
            for (got, want) in got.logits().unwrap().iter().zip(want.logits().unwrap()) {
                assert!((got - want).abs() <= tolerance, "{name} {kv_type}: {got} {want}");
            }
        }
    }
}

#[test]
fn neither_chunks_nor_steps_nor_batches_show() {
    let Some(cx) = device() else { return };
    for (name, folder) in MODELS {
        let (model, all) = (load_on(&cx, name), prompt(folder, 257));
        let tokens = &all[..TOKENS];
        let want = seen(&model, &prefilled(&model, &cx, tokens));
        for chunk in [1, 9, 64] {
            let mut sequence = Sequence::new(&model);
            sequence.prefill(&model, &cx, tokens, chunk).unwrap();
            assert_same(&seen(&model, &sequence), &want, &format!("{name} in chunks of {chunk}"));
        }
        let lengths = [1, 3, 17, 40];
        let mut batch: Vec<Sequence> =
            lengths.iter().map(|&length| prefilled(&model, &cx, &all[..length])).collect();
        let next = [1, 2, 5, 1].map(|count| &all[100..100 + count]);
        let parts = batch.iter_mut().zip(next).map(|(sequence, tokens)| Advance {
            sequence,
            tokens,
            wants_logits: true,
        });
        advance(&model, &cx, &mut parts.collect::<Vec<_>>()).unwrap();
        for ((sequence, length), next) in batch.iter().zip(lengths).zip(next) {
            let mut alone = prefilled(&model, &cx, &all[..length]);
            alone.prefill(&model, &cx, next, 1).unwrap();
            assert_same(&seen(&model, sequence), &seen(&model, &alone), &format!("{name} in a batch"));
        }
    }
}

#[test]
fn forks_files_and_moves_do_not_show() {
    let Some(cx) = device() else { return };
    for (name, folder) in MODELS {
        let (model, all) = (load_on(&cx, name), prompt(folder, 257));
        let want = seen(&model, &prefilled(&model, &cx, &all[..TOKENS]));
        let mut sequence = prefilled(&model, &cx, &all[..60]);
        let kept = sequence.keep();
        let mut fork = sequence.fork();
        sequence.prefill(&model, &cx, &all[100..107], 2).unwrap();
        fork.prefill(&model, &cx, &all[60..TOKENS], 1).unwrap();
        assert_same(&seen(&model, &fork), &want, &format!("{name} forked"));
        sequence.rollback(&kept).unwrap();
        sequence.prefill(&model, &cx, &all[60..TOKENS], 3).unwrap();
        assert_same(&seen(&model, &sequence), &want, &format!("{name} rolled back"));
        let path = std::env::temp_dir().join(format!("tangelo-device-{}.state", std::process::id()));
        state_file::save(&kept.sequence(), &model, None, &path).unwrap();
        let mut restored = state_file::restore(&path, &model).unwrap().sequence;
        std::fs::remove_file(&path).unwrap();
        restored.prefill(&model, &cx, &all[60..TOKENS], 64).unwrap();
        assert_same(&seen(&model, &restored), &want, &format!("{name} from a file"));
    }
}

#[test]
fn a_model_on_both_gives_what_it_gives_on_either() {
    let Some(cx) = device() else { return };
    for (name, folder) in MODELS.into_iter().filter(|(name, _)| is_exact(name)) {
        let tokens = &prompt(folder, 257)[..TOKENS];
        let here = load(name);
        let want = seen(&here, &prefilled(&here, &cx, tokens));
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        for first in [0, 1, 4, here.config().blocks.len()] {
            let placement = Placement { first_on_device: Some(first), embeddings: Place::Host };
            let model = Model::load_placed(&cx, &checkpoint, placement).unwrap();
            let mut sequence = Sequence::new(&model);
            sequence.prefill(&model, &cx, &tokens[..66], 40).unwrap();
            sequence.prefill(&model, &cx, &tokens[66..], 1).unwrap();
            assert_same(&seen(&model, &sequence), &want, &format!("{name}, layers from {first}"));
        }
    }
}

#[test]
fn steps_become_one_graph_and_choose_what_the_host_chooses() {
    let Some(there) = device() else { return };
    let plain = SamplingParams { seed: 5, ..SamplingParams::default() };
    let params = [
        SamplingParams { temperature: 0.0, ..plain.clone() },
        SamplingParams { temperature: 0.9, top_k: Some(20), ..plain.clone() },
        SamplingParams { temperature: 0.8, min_p: 0.05, repetition_penalty: 1.3, ..plain.clone() },
        SamplingParams {
            top_p: 0.9,
            presence_penalty: 0.5,
            frequency_penalty: 0.2,
            logit_bias: [(3, -5.0), (7, 2.0)].into(),
            ..plain
        },
    ];
    let name = "quantised/tiny-Q5_0.gguf";
    let (here, model) = (load(name), load_on(&there, name));
    for params in params {
        let answer = |model: &Model, cx: &Cx| {
            let limits = Limits { stop_ids: Vec::new(), min_tokens: 0, max_tokens: Some(12), context: 200 };
            let sequence = prefilled(model, cx, &prompt("tiny", 50));
            let mut generation = Generation::new(sequence, params.clone(), limits).unwrap();
            let step = |_| match generation.step(model, cx).unwrap() {
                Step::Token(token) => token.id,
                Step::Finished(finish) => panic!("{finish:?}"),
            };
            (0..12).map(step).collect::<Vec<_>>()
        };
        assert_eq!(answer(&model, &there), answer(&here, &cx()), "{params:?}");
    }
    let graphs = there.gpu().unwrap().num_graphs();
    assert!((1..=3).contains(&graphs), "{graphs} graphs for steps that differ in nothing but memory");
    assert!(bits(prefilled(&model, &there, &[1]).logits().unwrap()).len() > 1);
}

/// The scheduler and its tree on a device: batches, forks, states that go to files and come back.
#[test]
fn answers_are_scheduled_on_a_device_as_alone() {
    let Some(cx) = device() else { return };
    let model = Arc::new(load_on(&cx, "quantised/tiny-Q8_0.gguf"));
    let root = std::env::temp_dir().join(format!("tangelo-device-states-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&root);
    let state = tangelo_engine::context_bytes(&model, 128) as usize;
    let options = Options {
        context: 512,
        parallel: 3,
        queue: 9,
        prefill_tokens: 32,
        mixed_tokens: 16,
        state_bytes: 8 * state,
    };
    let open = || {
        let folder = Folder::open(&root, 100 * state as u64, model.clone()).unwrap();
        Scheduler::new(model.clone(), StateTree::new(0).with_folder(folder), options)
    };
    let tokens = prompt("tiny", 257);
    let ask = |scheduler: &mut Scheduler, prompt: &[u32]| {
        let branch = |seed| {
            let params =
                SamplingParams { temperature: 0.9, top_k: Some(20), seed, ..SamplingParams::default() };
            let limits = Limits { stop_ids: Vec::new(), min_tokens: 0, max_tokens: Some(6), context: 512 };
            let (seen, guide) = recorder();
            (seen, Branch { params, limits, guide: Box::new(guide) })
        };
        let (seen, branches): (Vec<_>, Vec<_>) = [1, 2].map(branch).into_iter().unzip();
        let job =
            Job { owner: Owner(1), prompt: prompt.to_vec(), cuts: vec![64], work: Work::Answer(branches) };
        scheduler.submit(job).unwrap();
        seen
    };
    let mut scheduler = open();
    let first = ask(&mut scheduler, &tokens[..90]);
    let second = ask(&mut scheduler, &tokens[..70]);
    run(&mut scheduler, &cx);
    scheduler.close();
    scheduler.tree().save_all();
    assert!(scheduler.tree().stats().failed_writes == 0);
    drop(scheduler);
    let mut scheduler = open();
    let third = ask(&mut scheduler, &tokens[..257]);
    run(&mut scheduler, &cx);
    for (len, asked) in [(90, first), (70, second), (257, third)] {
        for (seed, seen) in [1, 2].into_iter().zip(asked) {
            let params =
                SamplingParams { temperature: 0.9, top_k: Some(20), seed, ..SamplingParams::default() };
            let limits = Limits { stop_ids: Vec::new(), min_tokens: 0, max_tokens: Some(6), context: 512 };
            let mut alone = Generation::new(prefilled(&model, &cx, &tokens[..len]), params, limits).unwrap();
            while let Step::Token(_) = alone.step(&model, &cx).unwrap() {}
            assert_eq!(seen.lock().unwrap().tokens, alone.answer(), "{len} tokens, seed {seed}");
        }
    }
    let _ = std::fs::remove_dir_all(&root);
}
