//! The scheduler and the tree of states against a sequence that is alone: whatever is batched, forked, cancelled, thrown
//! out, written to disk or read back, everybody gets the tokens that the model gives a lonely sequence.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::common::{assert_same, cx, load, prefilled, seen};
use tangelo_engine::scheduler::{Branch, Job, Options, Refused, Work};
use tangelo_engine::{
    Ended, Finish, Flow, Folder, Generation, Guide, Limits, Owner, Report, SamplingParams, Scheduler,
    Sequence, StateTree, Step, Token, TokenMask,
};
use tangelo_model::Model;
use tangelo_ops::Cx;

/// What an answer's guide has seen.
#[derive(Debug, Default)]
pub struct Seen {
    report: Option<Report>,
    pub tokens: Vec<u32>,
    ended: Option<String>,
    is_unwanted: bool,
}

/// Writes down what happens.
pub struct Recorder {
    seen: Arc<Mutex<Seen>>,
    /// Ends the answer after so many tokens.
    stop_after: usize,
    /// After so many tokens, these must follow.
    force: Option<(usize, Vec<u32>)>,
    mask: Option<TokenMask>,
}

impl Guide for Recorder {
    fn is_wanted(&self) -> bool {
        !self.seen.lock().unwrap().is_unwanted
    }

    fn started(&mut self, report: &Report) -> Vec<u32> {
        let old = self.seen.lock().unwrap().report.replace(*report);
        assert!(old.is_none(), "an answer starts once");
        Vec::new()
    }

    fn allowed(&mut self) -> Result<Option<&TokenMask>, tangelo_engine::Error> {
        Ok(self.mask.as_ref())
    }

    fn token(&mut self, token: &Token) -> Flow {
        let mut seen = self.seen.lock().unwrap();
        assert!(seen.ended.is_none() && seen.report.is_some());
        seen.tokens.push(token.id);
        match &self.force {
            _ if seen.tokens.len() >= self.stop_after => Flow::Stop,
            Some((after, tokens)) if *after == seen.tokens.len() => Flow::Force(tokens.clone()),
            _ => Flow::Continue,
        }
    }

    fn ended(&mut self, ended: Ended) {
        let old = self.seen.lock().unwrap().ended.replace(format!("{ended:?}"));
        assert!(old.is_none(), "an answer ends once");
    }
}

pub fn recorder() -> (Arc<Mutex<Seen>>, Recorder) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    (seen.clone(), Recorder { seen, stop_after: usize::MAX, force: None, mask: None })
}

fn options(model: &Model, states: usize) -> Options {
    let state = tangelo_engine::context_bytes(model, 512) as usize;
    Options {
        context: 4096,
        parallel: 4,
        queue: 1000,
        prefill_tokens: 128,
        mixed_tokens: 24,
        state_bytes: states * state,
    }
}

fn limits(max_tokens: usize) -> Limits {
    Limits { stop_ids: Vec::new(), min_tokens: 0, max_tokens: Some(max_tokens), context: 4096 }
}

fn sampled(seed: u64) -> SamplingParams {
    SamplingParams { temperature: 0.8, top_k: Some(40), seed, ..SamplingParams::default() }
}

/// Submits one answer; what its guide sees.
fn ask(
    scheduler: &mut Scheduler,
    owner: u64,
    prompt: &[u32],
    cuts: &[usize],
    tokens: usize,
) -> Arc<Mutex<Seen>> {
    let (seen, guide) = recorder();
    let branch = Branch { params: sampled(7), limits: limits(tokens), guide: Box::new(guide) };
    let work = Work::Answer(vec![branch]);
    scheduler
        .submit(Job { owner: Owner(owner), prompt: prompt.to_vec(), cuts: cuts.to_vec(), work })
        .unwrap();
    seen
}

pub fn run(scheduler: &mut Scheduler, cx: &Cx) {
    let mut steps = 0;
    while !scheduler.is_idle() {
        // What is in memory already needs no forward.
        assert!(scheduler.step(cx) || scheduler.is_idle(), "it is stuck");
        steps += 1;
        assert!(steps < 100_000, "it never ends");
    }
}

/// What a lonely sequence answers.
fn alone(model: &Model, cx: &Cx, prompt: &[u32], params: SamplingParams, tokens: usize) -> Vec<u32> {
    let mut sequence = Sequence::new(model);
    sequence.prefill(model, cx, prompt, 128).unwrap();
    let mut generation = Generation::new(sequence, params, limits(tokens)).unwrap();
    while let Step::Token(_) = generation.step(model, cx).unwrap() {}
    generation.answer().to_vec()
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }

    fn tokens(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.below(512) as u32).collect()
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tangelo-scheduler-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

#[test]
fn the_next_turn_costs_what_is_new() {
    let (cx, model) = (cx(), Arc::new(load("tiny")));
    let mut scheduler = Scheduler::new(model.clone(), StateTree::new(0), options(&model, 40));
    let mut random = Random(1);
    let mut prompt = random.tokens(900);
    let first = ask(&mut scheduler, 1, &prompt, &[600], 20);
    run(&mut scheduler, &cx);
    let answer = first.lock().unwrap().tokens.clone();
    assert_eq!(first.lock().unwrap().report.unwrap().cached_tokens, 0);
    assert_eq!(answer, alone(&model, &cx, &prompt, sampled(7), 20));
    assert_eq!(first.lock().unwrap().ended.as_deref(), Some("Finished(Length)"));

    // The conversation goes on: all but the last token of the answer is known.
    let end = prompt.len() + answer.len() - 1;
    prompt.extend(&answer);
    prompt.extend(random.tokens(30));
    let second = ask(&mut scheduler, 1, &prompt, &[], 5);
    run(&mut scheduler, &cx);
    let report = second.lock().unwrap().report.unwrap();
    assert_eq!((report.cached_tokens, report.matched_tokens), (end, end));
    assert_eq!(second.lock().unwrap().tokens, alone(&model, &cx, &prompt, sampled(7), 5));

    // The same prompt again needs no forward for the prompt at all.
    let again = ask(&mut scheduler, 1, &prompt, &[], 5);
    run(&mut scheduler, &cx);
    assert_eq!(again.lock().unwrap().report.unwrap().cached_tokens, prompt.len());
    assert_eq!(again.lock().unwrap().tokens, second.lock().unwrap().tokens);

    // Parting behind the cut costs what lies behind the cut, and the place is remembered.
    let mut other = prompt[..800].to_vec();
    other.extend(random.tokens(50));
    let report = |scheduler: &mut Scheduler, prompt: &[u32]| {
        let seen = ask(scheduler, 1, prompt, &[], 1);
        run(scheduler, &cx);
        seen.lock().unwrap().report.unwrap()
    };
    let parted = report(&mut scheduler, &other);
    assert_eq!((parted.cached_tokens, parted.matched_tokens), (768, 800));
    let explained = scheduler.tree().explain(Owner(1), &prompt[..850]);
    assert_eq!((explained.restored, explained.matched, explained.next_stored), (768, 850, Some(prompt[850])));

    // Nobody else's states are found.
    let seen = ask(&mut scheduler, 2, &prompt, &[], 1);
    run(&mut scheduler, &cx);
    assert_eq!(seen.lock().unwrap().report.unwrap().matched_tokens, 0);
}

#[test]
fn prompts_that_come_together_are_read_once() {
    let (cx, model) = (cx(), Arc::new(load("tiny")));
    let mut scheduler = Scheduler::new(model.clone(), StateTree::new(0), options(&model, 40));
    let mut random = Random(2);
    let shared = random.tokens(700);
    let prompts: Vec<Vec<u32>> = (0..4).map(|i| [&shared[..], &random.tokens(10 + i)].concat()).collect();
    let asked: Vec<_> = prompts.iter().map(|prompt| ask(&mut scheduler, 1, prompt, &[], 6)).collect();
    run(&mut scheduler, &cx);
    for (prompt, seen) in prompts.iter().zip(&asked) {
        assert_eq!(seen.lock().unwrap().tokens, alone(&model, &cx, prompt, sampled(7), 6));
    }
    let prefilled = scheduler.stats().prefilled_tokens;
    assert!(prefilled < 700 + 4 * 20, "{prefilled} tokens were computed");
}

#[test]
fn a_long_prompt_does_not_hold_up_answers_and_shares_with_short_ones() {
    let (cx, model) = (cx(), Arc::new(load("tiny")));
    let mut scheduler = Scheduler::new(model.clone(), StateTree::new(0), options(&model, 40));
    let mut random = Random(3);
    let talking = ask(&mut scheduler, 1, &random.tokens(8), &[], 100);
    scheduler.step(&cx);
    let long = ask(&mut scheduler, 2, &random.tokens(1200), &[], 1);
    let short = ask(&mut scheduler, 3, &random.tokens(40), &[], 1);
    let before = talking.lock().unwrap().tokens.len();
    for step in 1..=8 {
        scheduler.step(&cx);
        assert_eq!(talking.lock().unwrap().tokens.len(), before + step, "one token per step");
    }
    assert!(short.lock().unwrap().ended.is_some(), "40 tokens at 12 of 24 per step");
    assert!(long.lock().unwrap().report.is_none());
    run(&mut scheduler, &cx);
    assert!(long.lock().unwrap().ended.is_some());
}

#[test]
fn who_leaves_makes_room_within_a_step_and_the_work_is_not_lost() {
    let (cx, model) = (cx(), Arc::new(load("tiny")));
    let mut scheduler = Scheduler::new(
        model.clone(),
        StateTree::new(0),
        Options { parallel: 1, queue: 1, ..options(&model, 40) },
    );
    let prompt = Random(4).tokens(600);
    let first = ask(&mut scheduler, 1, &prompt, &[], 50);
    scheduler.step(&cx);
    scheduler.step(&cx);
    let second = ask(&mut scheduler, 1, &prompt, &[], 4);
    let third = Branch { params: sampled(1), limits: limits(1), guide: Box::new(recorder().1) };
    let work = Work::Answer(vec![third]);
    let refused = scheduler.submit(Job { owner: Owner(1), prompt: vec![1], cuts: Vec::new(), work });
    assert!(matches!(refused, Err(Refused::QueueFull { waiting: 1 })), "{refused:?}");
    first.lock().unwrap().is_unwanted = true;
    scheduler.step(&cx);
    assert_eq!(first.lock().unwrap().ended.as_deref(), Some("Cancelled"));
    assert_eq!((scheduler.stats().queued, scheduler.stats().reading), (0, 1));
    run(&mut scheduler, &cx);
    assert_eq!(second.lock().unwrap().report.unwrap().cached_tokens, 256);
    assert_eq!(second.lock().unwrap().tokens, alone(&model, &cx, &prompt, sampled(7), 4));
}

#[test]
fn warm_prompts_wait_for_everybody_and_leave_what_they_have() {
    let (cx, model) = (cx(), Arc::new(load("tiny")));
    let mut scheduler = Scheduler::new(model.clone(), StateTree::new(0), options(&model, 40));
    let prompt = Random(5).tokens(900);
    let position = Arc::new(Mutex::new(None));
    let told = position.clone();
    let done = Box::new(move |kept: Result<tangelo_engine::Kept, Ended>| {
        *told.lock().unwrap() = Some(kept.map(|kept| kept.position()).unwrap_or(0));
    });
    let work = Work::Warm { is_urgent: false, done };
    scheduler.submit(Job { owner: Owner(1), prompt: prompt.clone(), cuts: Vec::new(), work }).unwrap();
    scheduler.step(&cx);
    scheduler.step(&cx);
    // 256 tokens are in; now the real prompt comes, and goes on from there.
    let asked = ask(&mut scheduler, 1, &prompt[..700], &[], 3);
    scheduler.step(&cx);
    assert!(position.lock().unwrap().is_none());
    run(&mut scheduler, &cx);
    assert_eq!(asked.lock().unwrap().report.unwrap().cached_tokens, 256);
    assert_eq!(*position.lock().unwrap(), Some(900));
    let kept = scheduler.tree().get(&model, Owner(1), &prompt).unwrap();
    assert_same(&seen(&model, &kept.sequence()), &seen(&model, &prefilled(&model, &cx, &prompt)), "warm");
}

#[test]
fn guides_force_forbid_and_stop() {
    let (cx, model) = (cx(), Arc::new(load("tiny")));
    let mut scheduler = Scheduler::new(model.clone(), StateTree::new(0), options(&model, 40));
    let prompt = Random(6).tokens(20);
    let branch = |force: Option<(usize, Vec<u32>)>, mask: Option<TokenMask>, stop_after: usize| {
        let (seen, guide) = recorder();
        let guide = Box::new(Recorder { force, mask, stop_after, ..guide });
        (seen, Branch { params: sampled(9), limits: limits(10), guide })
    };
    let mut mask = TokenMask::none(512);
    [3, 5].into_iter().for_each(|token| mask.allow(token));
    let (forced, a) = branch(Some((2, vec![100, 101, 102])), None, usize::MAX);
    let (masked, b) = branch(None, Some(mask), usize::MAX);
    let (stopped, c) = branch(None, None, 4);
    let work = Work::Answer(vec![a, b, c]);
    scheduler.submit(Job { owner: Owner(1), prompt: prompt.clone(), cuts: Vec::new(), work }).unwrap();
    run(&mut scheduler, &cx);
    let free = alone(&model, &cx, &prompt, sampled(9), 10);
    let forced = forced.lock().unwrap();
    assert_eq!(forced.tokens[..5], [free[0], free[1], 100, 101, 102]);
    assert_eq!(forced.tokens.len(), 10);
    let masked = masked.lock().unwrap();
    assert!(masked.tokens.len() == 10 && masked.tokens.iter().all(|token| [3, 5].contains(token)));
    let stopped = stopped.lock().unwrap();
    assert_eq!((&stopped.tokens[..], stopped.ended.as_deref()), (&free[..4], Some("Stopped")));
}

#[test]
fn no_stop_token_comes_before_its_time() {
    let (cx, model) = (cx(), load("tiny"));
    let prompt = Random(8).tokens(12);
    let free = alone(&model, &cx, &prompt, SamplingParams::greedy(), 1);
    let limits = Limits { stop_ids: free.clone(), min_tokens: 5, max_tokens: Some(5), context: 4096 };
    let sequence = prefilled(&model, &cx, &prompt);
    let mut generation = Generation::new(sequence.fork(), SamplingParams::greedy(), limits.clone()).unwrap();
    while let Step::Token(token) = generation.step(&model, &cx).unwrap() {
        assert_ne!(token.id, free[0]);
    }
    assert_eq!(generation.answer().len(), 5);
    let limits = Limits { min_tokens: 0, ..limits };
    let mut generation = Generation::new(sequence, SamplingParams::greedy(), limits).unwrap();
    assert_eq!(generation.step(&model, &cx).unwrap(), Step::Finished(Finish::StopToken(free[0])));
}

#[test]
fn embeddings_do_not_depend_on_pieces() {
    let (cx, model) = (cx(), Arc::new(load("tiny")));
    let prompt = Random(9).tokens(300);
    let embed = |prefill_tokens| {
        let options = Options { prefill_tokens, ..options(&model, 40) };
        let mut scheduler = Scheduler::new(model.clone(), StateTree::new(0), options);
        let result = Arc::new(Mutex::new(None));
        let told = result.clone();
        let work = Work::Embed(Box::new(move |embedding| *told.lock().unwrap() = Some(embedding.unwrap())));
        scheduler.submit(Job { owner: Owner(1), prompt: prompt.clone(), cuts: Vec::new(), work }).unwrap();
        run(&mut scheduler, &cx);
        let embedding: Vec<f32> = result.lock().unwrap().take().unwrap();
        embedding
    };
    let whole = embed(1000);
    assert_eq!(whole.len(), model.config().hidden_size);
    assert!(whole.iter().any(|x| *x != 0.0));
    assert_eq!(embed(7), whole);
}

/// An answer that was asked for: its prompt, seed, number of tokens, and what its guide has seen.
type Asked = (Vec<u32>, u64, usize, Arc<Mutex<Seen>>);

/// A random history of everything that can happen to states.
struct Fuzz {
    seed: u64,
    random: Random,
    cx: Cx,
    model: Arc<Model>,
    root: PathBuf,
    options: Options,
    scheduler: Scheduler,
    /// Prompts that share beginnings, and grow, with their owners.
    prompts: Vec<(u64, Vec<u32>)>,
    asked: Vec<Asked>,
    /// What lonely sequences answer.
    answers: HashMap<(Vec<u32>, u64, usize), Vec<u32>>,
    suspensions: u64,
    evictions: u64,
    restored: u64,
}

impl Fuzz {
    fn new(name: &str, seed: u64) -> Fuzz {
        let (model, mut random) = (Arc::new(load(name)), Random(seed));
        let root = folder(&format!("fuzz-{seed}"));
        // Small enough that states are thrown out and answers have to make room.
        let options = Options { parallel: 5, ..options(&model, 3) };
        let prompts = (0..3).map(|owner| (owner % 2, random.tokens(150))).collect();
        Fuzz {
            scheduler: Fuzz::open(&root, &model, options),
            answers: HashMap::new(),
            asked: Vec::new(),
            cx: cx(),
            seed,
            random,
            model,
            root,
            options,
            prompts,
            suspensions: 0,
            evictions: 0,
            restored: 0,
        }
    }

    fn open(root: &std::path::Path, model: &Arc<Model>, options: Options) -> Scheduler {
        let folder = Folder::open(root, 60 * options.state_bytes as u64, model.clone()).unwrap();
        Scheduler::new(model.clone(), StateTree::new(0).with_folder(folder), options)
    }

    fn reopen(&mut self) {
        self.count();
        // The old one has to let go of the folder first.
        self.scheduler = Scheduler::new(self.model.clone(), StateTree::new(0), self.options);
        self.scheduler = Fuzz::open(&self.root, &self.model, self.options);
    }

    fn count(&mut self) {
        let (tree, stats) = (self.scheduler.tree().stats(), self.scheduler.stats());
        assert_eq!((tree.refused_files, tree.failed_writes), (0, 0), "seed {}", self.seed);
        self.suspensions += stats.suspensions;
        self.evictions += tree.evictions;
        self.restored += tree.restored_from_files;
    }

    fn any_prompt(&mut self) -> (u64, Vec<u32>) {
        let at = self.random.below(self.prompts.len());
        self.prompts[at].clone()
    }

    /// Up to three answers to a prompt that goes on from, or parts from, an earlier one.
    fn ask(&mut self) {
        let (owner, mut prompt) = self.any_prompt();
        let random = &mut self.random;
        if random.below(3) == 0 {
            prompt.truncate(1 + random.below(prompt.len()));
        }
        let more = 1 + random.below(120);
        prompt.extend(random.tokens(more));
        prompt.truncate(1500);
        let mut cuts: Vec<usize> = (0..random.below(4)).map(|_| random.below(prompt.len())).collect();
        cuts.sort_unstable();
        let (width, tokens) = (1 + random.below(3), 1 + random.below(60));
        let mut branches = Vec::new();
        for seed in 0..width as u64 {
            let (seen, guide) = recorder();
            branches.push(Branch { params: sampled(seed), limits: limits(tokens), guide: Box::new(guide) });
            self.asked.push((prompt.clone(), seed, tokens, seen));
        }
        let work = Work::Answer(branches);
        self.scheduler.submit(Job { owner: Owner(owner), prompt: prompt.clone(), cuts, work }).unwrap();
        self.prompts.push((owner, prompt));
        if self.prompts.len() > 12 {
            self.prompts.remove(0);
        }
    }

    fn warm(&mut self) {
        let (owner, prompt) = self.any_prompt();
        let work = Work::Warm { is_urgent: self.random.below(2) == 0, done: Box::new(drop) };
        self.scheduler.submit(Job { owner: Owner(owner), prompt, cuts: vec![50], work }).unwrap();
    }

    fn leave(&mut self) {
        let at = self.random.below(self.asked.len().max(1));
        if let Some((.., seen)) = self.asked.get(at) {
            seen.lock().unwrap().is_unwanted = true;
        }
    }

    /// The program ends in good order and starts again.
    fn restart(&mut self) {
        let is_busy = |s: &Scheduler| s.stats().answering + s.stats().reading + s.stats().queued > 0;
        while is_busy(&self.scheduler) {
            self.scheduler.step(&self.cx);
        }
        self.scheduler.close();
        self.scheduler.tree().save_all();
        self.reopen();
    }

    /// It is killed: nothing is told to anybody.
    fn kill(&mut self) {
        self.asked.clear();
        self.scheduler.cancel_all();
        self.reopen();
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..4 => self.ask(),
            4 => self.warm(),
            5 => self.leave(),
            6 if self.random.below(12) == 0 => self.restart(),
            7 if self.random.below(12) == 0 => self.kill(),
            8 if self.random.below(8) == 0 => {
                self.scheduler.tree().forget(Owner(self.random.below(2) as u64))
            }
            9 => {
                let (owner, prompt) = self.any_prompt();
                self.scheduler.tree().remove(Owner(owner), &prompt);
            }
            _ => drop(self.scheduler.step(&self.cx)),
        }
    }

    /// Whoever has an answer has the one of a lonely sequence.
    fn check(&mut self, when: &str) {
        let (tree, stats) = (self.scheduler.tree().stats(), self.scheduler.stats());
        assert!(tree.bytes + stats.active_bytes <= 2 * self.options.state_bytes, "{when}");
        let Fuzz { asked, answers, model, cx, .. } = self;
        asked.retain(|(prompt, sampling, tokens, seen)| {
            let seen = seen.lock().unwrap();
            let Some(ended) = &seen.ended else { return true };
            let key = (prompt.clone(), *sampling, *tokens);
            let want =
                answers.entry(key).or_insert_with(|| alone(model, cx, prompt, sampled(*sampling), *tokens));
            match ended.as_str() {
                "Finished(Length)" => assert_eq!(&seen.tokens, want, "{when}"),
                "Cancelled" | "Finished(ContextFull)" => assert!(want.starts_with(&seen.tokens), "{when}"),
                other => panic!("{when}: {other}"),
            }
            false
        });
    }
}

fn fuzz(name: &str, seed: u64, steps: usize) {
    println!("{name}: seed {seed}");
    let mut fuzz = Fuzz::new(name, seed);
    for step in 0..steps {
        fuzz.step();
        fuzz.check(&format!("{name}, seed {seed}, step {step}"));
    }
    run(&mut fuzz.scheduler, &fuzz.cx);
    fuzz.check(&format!("{name}, seed {seed}, at the end"));
    fuzz.count();
    let Fuzz { suspensions, evictions, restored, root, .. } = fuzz;
    println!("{suspensions} suspensions, {evictions} evictions, {restored} states from files");
    assert!(suspensions > 0 && evictions > 0 && restored > 0, "seed {seed} has not tried everything");
    let _ = std::fs::remove_dir_all(&root);
}

#[test]
fn a_thousand_random_steps_give_everybody_the_tokens_of_a_lonely_sequence() {
    // Another seed can be had from the environment; the one of a failure is in its message.
    let seed = std::env::var("TANGELO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_124);
    fuzz("tiny", seed, 1000);
    fuzz("odd", seed + 1, 500);
    fuzz("quantised/tiny-Q8_0.gguf", seed + 2, 500);
}
