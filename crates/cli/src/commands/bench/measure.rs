//! The measurements: what is run how often, and what is timed.
//!
//! Token ids are random (seeded, so that every run has the same), since neither time nor memory depends on them but
//! for the experts that they choose. Timed are calls of the engine and nothing else; what they would do only once,
//! such as bringing weights into memory, is done before by a call that is not counted.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use indicatif::ProgressBar;
use tangelo_core::TokenId;
use tangelo_engine::{Advance, Sequence, advance, check_context, context_bytes};
use tangelo_model::Model;
use tangelo_ops::Cx;

use super::statistics::{Spread, percentile};
use crate::commands::synth::values::draw;

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Lengths of prompts.
    pub prompts: Vec<usize>,
    /// Steps of every decode; 0 to measure none.
    pub generate: usize,
    /// Tokens before the first step.
    pub depths: Vec<usize>,
    /// Sequences that decode together.
    pub batches: Vec<usize>,
    /// How often each is measured.
    pub repetitions: usize,
    /// Prompt tokens given to the model at a time.
    pub chunk: usize,
}

/// Speed of reading a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefill {
    /// Length of the prompt.
    pub tokens: usize,
    /// Tokens per second.
    pub tokens_per_s: Spread,
    /// Those of each repetition.
    pub samples: Vec<f64>,
}

/// Speed of decoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Decode {
    /// Tokens before the first step.
    pub depth: usize,
    /// Sequences at once.
    pub batch: usize,
    /// Tokens per second, all sequences together.
    pub tokens_per_s: Spread,
    /// Those of each repetition.
    pub samples: Vec<f64>,
    /// Milliseconds from one token of a sequence to its next, the median over all steps of all repetitions.
    pub p50_ms: f64,
    /// The same, exceeded by one step in a hundred.
    pub p99_ms: f64,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// One per length of prompt.
    pub prefill: Vec<Prefill>,
    /// One per depth and batch, depths ascending.
    pub decode: Vec<Decode>,
    /// Seconds of the very first prefill, when the weights may not be in memory yet; `None` without prompts.
    pub first_prefill_s: Option<f64>,
}

impl Plan {
    /// Refuses before any work is done what the model was not made for or memory cannot hold, as far as the system
    /// says how much there is.
    ///
    /// # Errors
    /// One that says which option is too large.
    pub fn check(&self, model: &Model, available: Option<u64>) -> Result<()> {
        let deepest = self.deepest();
        let longest = self.longest();
        check_context(model, longest, available)?;
        if let (Some(_), Some(&batch), Some(available)) = (deepest, self.batches.iter().max(), available) {
            // Forks share the pages of their common past.
            let forks = context_bytes(model, self.generate).saturating_mul(batch as u64);
            let needed = context_bytes(model, longest).saturating_add(forks);
            ensure!(
                needed <= available,
                "{batch} sequences need {needed} bytes of state, but {available} bytes of memory are available: use a \
                 smaller --batch"
            );
        }
        Ok(())
    }

    /// Tokens before the first step of the deepest decode.
    fn deepest(&self) -> Option<usize> {
        self.depths.last().copied().filter(|_| self.generate > 0)
    }

    /// Tokens of the longest sequence.
    pub fn longest(&self) -> usize {
        let deepest = self.deepest().map(|depth| depth + self.generate);
        self.prompts.iter().copied().chain(deepest).max().unwrap_or(0)
    }

    /// Tokens that pass through the model in all.
    pub fn num_tokens(&self) -> u64 {
        let prompts = self.prompts.iter().sum::<usize>() * self.repetitions;
        let (steps, deepest) = match self.generate {
            0 => (0, 0),
            n => (n * self.repetitions + 1, self.depths.last().copied().unwrap_or(0)),
        };
        let decoded = self.batches.iter().sum::<usize>() * steps * self.depths.len();
        (self.prompts.first().unwrap_or(&0) + prompts + deepest + decoded) as u64
    }
}

/// A model under measurement.
pub struct Bench<'a> {
    /// The weights.
    pub model: &'a Model,
    /// Where the arithmetic runs.
    pub cx: &'a Cx,
    /// What to measure.
    pub plan: &'a Plan,
    /// Shows how far it is, in tokens; never touched while something is timed.
    pub bar: ProgressBar,
}

impl Bench<'_> {
    /// Measures everything.
    ///
    /// # Errors
    /// As the engine.
    pub fn run(&self) -> Result<Measured> {
        let mut random = RandomTokens { drawn: 0, vocab_size: self.model.config().vocab_size as u64 };
        let mut measured = Measured::default();
        if let Some(&first) = self.plan.prompts.first() {
            measured.first_prefill_s = Some(self.prefill(&random.take(first))?.as_secs_f64());
        }
        for &tokens in &self.plan.prompts {
            measured.prefill.push(self.prefills(&mut random, tokens)?);
        }
        if self.plan.generate == 0 {
            return Ok(measured);
        }
        let mut past = Sequence::new(self.model);
        for &depth in &self.plan.depths {
            let tokens = random.take(depth - past.position());
            self.deepen(&mut past, &tokens)?;
            for &batch in &self.plan.batches {
                measured.decode.push(self.decodes(&mut random, &past, batch)?);
            }
        }
        Ok(measured)
    }

    fn prefills(&self, random: &mut RandomTokens, tokens: usize) -> Result<Prefill> {
        let mut samples = Vec::with_capacity(self.plan.repetitions);
        for _ in 0..self.plan.repetitions {
            let time = self.prefill(&random.take(tokens))?;
            samples.push(tokens as f64 / time.as_secs_f64());
        }
        let tokens_per_s = spread(&samples)?;
        Ok(Prefill { tokens, tokens_per_s, samples })
    }

    /// Time to the logits after a prompt, in a new sequence.
    fn prefill(&self, tokens: &[TokenId]) -> Result<Duration> {
        let start = Instant::now();
        let mut sequence = Sequence::new(self.model);
        sequence.prefill(self.model, self.cx, tokens, self.plan.chunk)?;
        self.wait()?;
        let time = start.elapsed();
        self.bar.inc(tokens.len() as u64);
        Ok(time)
    }

    /// Appends tokens without timing them.
    fn deepen(&self, past: &mut Sequence, tokens: &[TokenId]) -> Result<()> {
        let before = self.bar.position();
        let mut on_chunk = |done: usize| {
            self.bar.set_position(before + done as u64);
            ControlFlow::Continue(())
        };
        let _ = past.prefill_with(self.model, self.cx, tokens, self.plan.chunk, &mut on_chunk)?;
        self.wait()?;
        self.bar.set_position(before + tokens.len() as u64);
        Ok(())
    }

    fn decodes(&self, random: &mut RandomTokens, past: &Sequence, batch: usize) -> Result<Decode> {
        let (mut samples, mut step_ms) = (Vec::new(), Vec::new());
        self.step(&mut forks(past, batch), &random.take(batch))?;
        self.bar.inc(batch as u64);
        for _ in 0..self.plan.repetitions {
            let mut sequences = forks(past, batch);
            let mut total = Duration::ZERO;
            for _ in 0..self.plan.generate {
                let time = self.step(&mut sequences, &random.take(batch))?;
                step_ms.push(time.as_secs_f64() * 1e3);
                total += time;
            }
            let tokens = self.plan.generate * batch;
            samples.push(tokens as f64 / total.as_secs_f64());
            self.bar.inc(tokens as u64);
        }
        Ok(Decode {
            depth: past.position(),
            batch,
            tokens_per_s: spread(&samples)?,
            samples,
            p50_ms: percentile(&step_ms, 50.0).unwrap_or_default(),
            p99_ms: percentile(&step_ms, 99.0).unwrap_or_default(),
        })
    }

    /// One step of all sequences, each with a token of its own.
    fn step(&self, sequences: &mut [Sequence], tokens: &[TokenId]) -> Result<Duration> {
        let start = Instant::now();
        let parts = sequences.iter_mut().zip(tokens.chunks(1));
        let mut batch: Vec<Advance<'_>> =
            parts.map(|(sequence, tokens)| Advance { sequence, tokens, wants_logits: true }).collect();
        advance(self.model, self.cx, &mut batch)?;
        self.wait()?;
        Ok(start.elapsed())
    }

    /// Until a device has done what it was asked for.
    fn wait(&self) -> Result<()> {
        if let Some(gpu) = self.cx.gpu() {
            gpu.synchronize();
        }
        Ok(self.cx.check_gpu()?)
    }
}

/// Token ids that are the same in every run.
struct RandomTokens {
    drawn: u64,
    vocab_size: u64,
}

impl RandomTokens {
    fn take(&mut self, n: usize) -> Vec<TokenId> {
        let draws = self.drawn..self.drawn + n as u64;
        self.drawn = draws.end;
        draws.map(|i| (draw(0, i) % self.vocab_size) as TokenId).collect()
    }
}

fn forks(past: &Sequence, n: usize) -> Vec<Sequence> {
    (0..n).map(|_| past.fork()).collect()
}

fn spread(samples: &[f64]) -> Result<Spread> {
    Spread::of(samples).ok_or_else(|| anyhow::anyhow!("nothing was measured: use --repetitions 1 or more"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tangelo_formats::Checkpoint;
    use tangelo_ops::Simd;

    use super::*;

    fn cx(threads: usize) -> Cx {
        Cx::new(threads, Simd::best()).expect("the best level is available")
    }

    fn tiny(cx: &Cx) -> Model {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny");
        Model::load(cx, &Checkpoint::open(&path).expect("a fixture")).expect("it fits its configuration")
    }

    fn plan() -> Plan {
        let (prompts, depths, batches) = (vec![9, 5], vec![0, 3, 70], vec![1, 3]);
        Plan { prompts, generate: 2, depths, batches, repetitions: 2, chunk: 4 }
    }

    #[test]
    fn everything_of_the_plan_is_measured_and_counted() {
        let (cx, plan) = (cx(2), plan());
        let model = tiny(&cx);
        let bar = ProgressBar::hidden();
        let measured =
            Bench { model: &model, cx: &cx, plan: &plan, bar: bar.clone() }.run().expect("it runs");
        assert_eq!(measured.prefill.iter().map(|p| p.tokens).collect::<Vec<_>>(), [9, 5]);
        let decode: Vec<_> = measured.decode.iter().map(|d| (d.depth, d.batch)).collect();
        assert_eq!(decode, [(0, 1), (0, 3), (3, 1), (3, 3), (70, 1), (70, 3)]);
        assert!(measured.first_prefill_s.is_some_and(|s| s > 0.0));
        assert!(measured.prefill.iter().all(|p| p.samples.len() == 2 && p.tokens_per_s.min > 0.0));
        for d in &measured.decode {
            // Two steps of two repetitions: the 99th percentile is the slowest of four.
            assert!(d.samples.len() == 2 && d.p50_ms > 0.0 && d.p50_ms <= d.p99_ms, "{d:?}");
            // The slower repetition has the slowest step or less per step.
            let slowest = d.batch as f64 / d.p99_ms * 1e3;
            assert!(d.tokens_per_s.min >= slowest * 0.999, "{d:?}");
        }
        // 9 to warm up, (9 + 5) · 2, 70 for the deepest, 3 depths · 4 sequences · (2 · 2 steps + 1 to warm up).
        assert_eq!(plan.num_tokens(), 9 + 28 + 70 + 3 * 4 * 5);
        assert_eq!(bar.position(), plan.num_tokens());
    }

    #[test]
    fn parts_may_be_left_out() {
        let cx = cx(1);
        let model = tiny(&cx);
        let run = |plan: &Plan| {
            let bar = ProgressBar::hidden();
            let measured = Bench { model: &model, cx: &cx, plan, bar: bar.clone() }.run().expect("it runs");
            assert_eq!(bar.position(), plan.num_tokens());
            measured
        };
        let prefill = run(&Plan { generate: 0, ..plan() });
        assert!(prefill.prefill.len() == 2 && prefill.decode.is_empty());
        let decode = run(&Plan { prompts: vec![], ..plan() });
        assert!(decode.prefill.is_empty() && decode.decode.len() == 6 && decode.first_prefill_s.is_none());
    }

    #[test]
    fn too_much_is_refused_before_work_begins() {
        let model = tiny(&cx(1)); // A context of 4096; 45 KiB of state and 768 bytes per token.
        let refusal =
            |plan: Plan, available| plan.check(&model, available).expect_err("too much").to_string();
        plan().check(&model, Some(10 << 20)).expect("it fits");
        let deep = Plan { depths: vec![0, 4095], ..plan() };
        assert!(refusal(deep.clone(), None).contains("4097"));
        Plan { generate: 0, ..deep }.check(&model, None).expect("depths matter to decoding only");
        assert!(refusal(Plan { prompts: vec![5000], ..plan() }, None).contains("5000"));
        assert!(refusal(plan(), Some(1000)).contains("available"));
        assert!(
            refusal(Plan { batches: vec![1, 1000], ..plan() }, Some(10 << 20)).contains("smaller --batch")
        );
    }
}
