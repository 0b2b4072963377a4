//! A token loop in steady state asks the system for no memory: every operation works in what the context recycles.
#![allow(unsafe_code)] // An allocator is an unsafe trait.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use tangelo_engine::{Advance, Sampler, SamplingParams, Sequence, advance};
use tangelo_model::{Model, State};
use tangelo_ops::attention::KvType;

/// Counts requests while it is told to.
struct Counting;

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static REQUESTS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    if IS_COUNTING.load(Relaxed) {
        REQUESTS.fetch_add(1, Relaxed);
        BYTES.fetch_add(bytes, Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; only a number is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from this allocator, hence from the system's, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as for `dealloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests for memory during `work`, on all threads.
fn requests(work: impl FnOnce()) -> usize {
    REQUESTS.store(0, Relaxed);
    IS_COUNTING.store(true, Relaxed);
    work();
    IS_COUNTING.store(false, Relaxed);
    REQUESTS.load(Relaxed)
}

/// Bytes asked for during `work`, on all threads.
fn bytes(work: impl FnOnce()) -> usize {
    BYTES.store(0, Relaxed);
    requests(work);
    BYTES.load(Relaxed)
}

/// Positions per page of the attention cache; a new page is memory that the sequence keeps, and none begins in the
/// counted steps.
const PAGE: usize = 64;
/// A power of two, so that the list of tokens, which grows by doubling, is as long as a page from half a page on.
const PROMPT: usize = 8;
/// Steps before the counted ones: beyond half a page.
const WARM: usize = 28;
/// Most requests of a step of a batch, whatever the number of sequences and layers: the list of segments, and that of
/// their tokens, which grows twice.
const BATCH_REQUESTS: usize = 3;

fn decode(model: &Model, cx: &tangelo_ops::Cx, sequence: &mut Sequence, steps: usize) {
    for step in 0..steps {
        sequence.decode(model, cx, step as u32 % 7).unwrap();
    }
}

/// What lists and reference counts may take beside the numbers themselves.
const BOOKKEEPING: usize = 4 << 10;

/// The sizes that the capacity of a machine is reckoned with, and that `tangelo show` prints, are those allocated.
fn states_take_what_is_said(cx: &tangelo_ops::Cx) {
    // Mixtures ask for lists of their experts' tokens besides.
    for (name, _) in common::MODELS.iter().filter(|(name, _)| !name.starts_with("moe")) {
        for kv in [KvType::F32, KvType::F16] {
            let model = common::load(name).with_kv_type(kv);
            let said = State::bytes_fixed(model.config());
            let taken = bytes(|| drop(model.new_state()));
            assert!((said..said + BOOKKEEPING).contains(&taken), "{name}: {taken} bytes, said {said}");

            let mut sequence = common::prefilled(&model, cx, &[1; PAGE]);
            let mut fork = sequence.clone();
            decode(&model, cx, &mut fork, 1); // What the context keeps for a step is there now.
            let said = PAGE * State::bytes_per_token(model.config(), kv);
            let taken = bytes(|| decode(&model, cx, &mut sequence, PAGE));
            assert!(
                (said..said + BOOKKEEPING).contains(&taken),
                "{name} {kv:?}: {taken} bytes a page, said {said}"
            );
        }
    }
}

/// One test, because the counter counts what any thread of the process does.
#[test]
fn decoding_and_sampling_allocate_nothing_and_states_what_is_said() {
    let cx = common::cx();
    states_take_what_is_said(&cx);
    for (name, _) in common::MODELS.iter().filter(|(name, _)| !name.starts_with("moe")) {
        let model = common::load(name);
        let mut sequence = common::prefilled(&model, &cx, &[1; PROMPT]);
        decode(&model, &cx, &mut sequence, WARM);
        let steps = PAGE - PROMPT - WARM;
        assert_eq!(requests(|| decode(&model, &cx, &mut sequence, steps)), 0, "{name}: {steps} steps");

        let mut sequences: Vec<Sequence> =
            (0..8).map(|_| common::prefilled(&model, &cx, &[1; PROMPT])).collect();
        let mut step = |token: u32| {
            let tokens = [token];
            let mut batch: Vec<Advance<'_>> = sequences
                .iter_mut()
                .map(|sequence| Advance { sequence, tokens: &tokens, wants_logits: true })
                .collect();
            requests(|| advance(&model, &cx, &mut batch).unwrap())
        };
        for token in 0..WARM as u32 {
            step(token % 7);
        }
        for token in 0..7 {
            let requests = step(token);
            assert!(requests <= BATCH_REQUESTS, "{name}: {requests} requests for a batch");
        }

        let logits = sequence.logits().unwrap();
        for params in [
            SamplingParams::greedy(),
            SamplingParams { top_p: 0.9, min_p: 0.01, ..SamplingParams::default() },
            SamplingParams { top_k: Some(20), top_p: 0.9, ..SamplingParams::default() },
        ] {
            let mut sampler = Sampler::new(params.clone(), sequence.tokens(), logits.len()).unwrap();
            sampler.sample(logits).unwrap();
            assert_eq!(requests(|| drop(sampler.sample(logits).unwrap())), 0, "{params:?}");
        }
    }
}
