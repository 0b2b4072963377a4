//! The loop of sampling and decoding: against transformers' greedy answers, against its own steps, and at its limits.

use crate::common::{cases, cx, ids, load, prefilled, prompt};
use tangelo_engine::{
    Error, Finish, Generation, Limits, SamplingParams, Sequence, Step, check_context, context_bytes,
    default_context,
};
use tangelo_model::Model;
use tangelo_ops::Cx;

fn limits(max_tokens: usize) -> Limits {
    Limits { stop_ids: Vec::new(), min_tokens: 0, max_tokens: Some(max_tokens), context: 4096 }
}

/// Runs to the end.
fn run(generation: &mut Generation, model: &Model, cx: &Cx) -> Finish {
    loop {
        if let Step::Finished(finish) = generation.step(model, cx).unwrap() {
            return finish;
        }
    }
}

#[test]
fn greedy_answers_are_those_of_transformers() {
    let cx = cx();
    for (name, folder) in
        [("tiny/f32", "tiny"), ("tiny", "tiny"), ("odd", "odd"), ("moe", "moe"), ("moe_latent", "moe_latent")]
    {
        let model = load(name);
        for case in cases(folder)["greedy"].as_array().unwrap() {
            let want = ids(&case["output"]);
            let sequence = prefilled(&model, &cx, &ids(&case["prompt"]));
            let mut generation =
                Generation::new(sequence, SamplingParams::greedy(), limits(want.len())).unwrap();
            assert_eq!(run(&mut generation, &model, &cx), Finish::Length);
            assert_eq!(generation.answer(), want, "{name}");
        }
    }
}

#[test]
fn a_seed_is_an_answer_whatever_the_prefill_and_a_fork_gives_the_same() {
    let (cx, model, tokens) = (cx(), load("tiny"), prompt("tiny", 50));
    let params = SamplingParams { seed: 5, top_p: 0.95, repetition_penalty: 1.1, ..Default::default() };
    let answer = |chunk: usize| {
        let mut sequence = Sequence::new(&model);
        sequence.prefill(&model, &cx, &tokens, chunk).unwrap();
        let mut generation = Generation::new(sequence, params.clone(), limits(40)).unwrap();
        (0..20).for_each(|_| drop(generation.step(&model, &cx).unwrap()));
        let mut fork = generation.clone();
        run(&mut generation, &model, &cx);
        run(&mut fork, &model, &cx);
        assert_eq!(generation.answer(), fork.answer());
        generation.answer().to_vec()
    };
    assert_eq!(answer(512), answer(7));
}

#[test]
fn stop_tokens_end_the_answer_and_stay_out_of_it() {
    let (cx, model, tokens) = (cx(), load("tiny"), prompt("tiny", 9));
    let mut free =
        Generation::new(prefilled(&model, &cx, &tokens), SamplingParams::greedy(), limits(8)).unwrap();
    run(&mut free, &model, &cx);
    let stop = free.answer()[4];
    let before = free.answer().iter().position(|&t| t == stop).unwrap();
    let with_stop = Limits { stop_ids: vec![stop], ..limits(8) };
    let mut stopped =
        Generation::new(prefilled(&model, &cx, &tokens), SamplingParams::greedy(), with_stop).unwrap();
    assert_eq!(run(&mut stopped, &model, &cx), Finish::StopToken(stop));
    assert_eq!(stopped.answer(), &free.answer()[..before]);
    assert_eq!(stopped.step(&model, &cx).unwrap(), Step::Finished(Finish::StopToken(stop)), "it stays ended");
    let sequence = stopped.into_sequence();
    assert_eq!(sequence.tokens(), [tokens.as_slice(), &free.answer()[..before]].concat());
}

#[test]
fn forced_tokens_take_the_place_of_sampled_ones() {
    let (cx, model, tokens) = (cx(), load("tiny"), prompt("tiny", 9));
    let params = SamplingParams { logprobs: Some(2), ..SamplingParams::greedy() };
    // A forced stop token does not stop.
    let limits = Limits { stop_ids: vec![7], ..limits(6) };
    let mut generation = Generation::new(prefilled(&model, &cx, &tokens), params, limits).unwrap();
    let Step::Token(first) = generation.step(&model, &cx).unwrap() else { panic!("an answer of no tokens") };
    generation.force(&[7, 8]);
    for forced in [7, 8] {
        let Step::Token(token) = generation.step(&model, &cx).unwrap() else { panic!("it ended") };
        assert_eq!((token.id, token.is_forced), (forced, true));
        let logprobs = token.logprobs.unwrap();
        assert!(logprobs.chosen <= logprobs.top[0].1 && logprobs.top.len() == 2);
    }
    run(&mut generation, &model, &cx);
    let path = [tokens.as_slice(), &[first.id, 7, 8]].concat();
    let sequence = prefilled(&model, &cx, &path);
    let mut same = Generation::new(sequence, SamplingParams::greedy(), limits_without_stop()).unwrap();
    run(&mut same, &model, &cx);
    assert_eq!(generation.answer()[3..], same.answer()[..generation.answer().len() - 3]);
}

fn limits_without_stop() -> Limits {
    limits(3)
}

#[test]
fn the_context_is_a_limit_from_the_start() {
    let (cx, model, tokens) = (cx(), load("tiny"), prompt("tiny", 9));
    let context = |context: usize| Limits { context, max_tokens: None, ..limits(0) };
    let new = |limits| Generation::new(prefilled(&model, &cx, &tokens), SamplingParams::greedy(), limits);
    for too_short in [0, 8, 9] {
        assert!(matches!(new(context(too_short)), Err(Error::PromptTooLong { prompt: 9, .. })));
    }
    let mut generation = new(context(12)).unwrap();
    assert_eq!(run(&mut generation, &model, &cx), Finish::ContextFull);
    assert_eq!(generation.answer().len(), 3);
    assert_eq!(run(&mut new(limits(0)).unwrap(), &model, &cx), Finish::Length);
    assert!(matches!(
        Generation::new(Sequence::new(&model), SamplingParams::greedy(), limits(1)),
        Err(Error::NoLogits)
    ));
}

#[test]
fn memory_is_asked_for_before_it_is_used() {
    let (cx, model) = (cx(), load("tiny"));
    for len in [1, 50, 257] {
        let sequence = prefilled(&model, &cx, &prompt("tiny", len));
        assert_eq!(context_bytes(&model, len), sequence.bytes() as u64, "{len} tokens");
    }
    let needed = context_bytes(&model, 1000);
    check_context(&model, 1000, Some(needed)).unwrap();
    check_context(&model, 4096, None).unwrap();
    let error = check_context(&model, 1000, Some(needed - 1)).unwrap_err();
    let text = error.to_string();
    let Error::NotEnoughMemory { fits, .. } = error else { panic!("{text}") };
    assert!(text.contains(&format!("--context {fits} or less")), "{text}");
    assert!(fits < 1000 && context_bytes(&model, fits) < needed);
    let error = check_context(&model, 4097, None).unwrap_err().to_string();
    assert!(error.contains("4097") && error.contains("at most 4096"), "{error}");
    assert_eq!(default_context(&model, None), 4096);
    assert_eq!(default_context(&model, Some(u64::MAX)), 4096);
    let scarce = default_context(&model, Some(2 * needed));
    assert!((960..=1024).contains(&scarce), "{scarce}");
    assert_eq!(default_context(&model, Some(0)), 64);
}
