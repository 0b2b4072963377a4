//! A step: what goes into the batch, and what comes of it.

use tangelo_ops::Cx;

use super::answering::Answering;
use super::job::Branch;
use super::reading::{Purpose, Reading};
use super::{Options, Scheduler};
use crate::error::Error;
use crate::generation::Generation;
use crate::guide::Ended;
use crate::sequence::{Advance, advance};
use crate::tree::{PERIOD, Reason};

/// A state is kept at the end of a prompt and of an answer unless one is so near.
const TOKENS_NEAR: usize = 16;

impl Scheduler {
    /// One piece of the first prompt that is to be embedded.
    pub(super) fn step_embedding(&mut self, cx: &Cx) -> bool {
        let Some(embedding) = self.embeddings.pop_front() else { return false };
        let most = self.prompt_tokens_per_step();
        if let Some(rest) = embedding.step(&self.model, cx, most) {
            self.embeddings.push_front(rest);
        }
        true
    }

    fn prompt_tokens_per_step(&self) -> usize {
        let Options { prefill_tokens, mixed_tokens, .. } = self.options;
        if self.answering.is_empty() { prefill_tokens.max(1) } else { mixed_tokens.max(1) }
    }

    /// Tokens between states of a long prompt: whole forwards.
    fn period(&self) -> usize {
        PERIOD.max(self.options.prefill_tokens.next_multiple_of(PERIOD))
    }

    /// Shows the model the next token of every answer and the next pieces of prompts; false if there are none.
    pub(super) fn forward(&mut self, cx: &Cx) -> bool {
        let (period, left) = (self.period(), self.prompt_tokens_per_step());
        self.turn = self.turn.wrapping_add(1);
        let warming = self.warming.as_mut().filter(|_| self.readings.is_empty() && self.answering.is_empty());
        let mut readings: Vec<&mut Reading> = self.readings.iter_mut().chain(warming).collect();
        if !readings.is_empty() {
            let first = self.turn % readings.len();
            readings.rotate_left(first);
        }
        let mut batch: Vec<Advance<'_>> =
            self.answering.iter_mut().filter_map(|a| a.generation.advance()).collect();
        let (mut left, mut waiting) = (left, readings.len());
        for reading in readings {
            let len = reading.next_len(period, left.div_ceil(waiting));
            left -= len;
            waiting -= 1;
            if len > 0 {
                if matches!(reading.purpose, Purpose::Warm(_)) {
                    self.stats.warmed_tokens += len as u64;
                }
                batch.push(reading.advance(len));
            }
        }
        if batch.is_empty() {
            // A prompt may be in memory already: found whole, with its logits.
            return self.readings.iter().any(Reading::is_done);
        }
        self.stats.steps += 1;
        if let Err(error) = advance(&self.model, cx, &mut batch) {
            drop(batch);
            self.fail_all(&error.to_string());
        }
        true
    }

    /// A forward has failed, as when a device is lost: nobody's state can be relied upon.
    fn fail_all(&mut self, reason: &str) {
        let failed = || Ended::Failed(Error::Step { reason: reason.to_string() });
        self.readings.drain(..).chain(self.warming.take()).for_each(|reading| reading.purpose.end(failed));
        self.answering.drain(..).for_each(|mut answering| answering.guide.ended(failed()));
    }

    /// Keeps the states that the forward has come to, and begins the answers whose prompts are read.
    pub(super) fn finish_readings(&mut self) {
        let period = self.period();
        for reading in self.readings.iter_mut().chain(&mut self.warming) {
            if reading.sequence.position() > reading.report.cached_tokens
                && let Some(reason) = reading.reason_to_keep(period)
                && !self.tree.has(reading.owner, reading.sequence.tokens())
            {
                self.tree.insert(reading.owner, reading.sequence.keep(), reason);
            }
        }
        for reading in self.readings.extract_if(.., |reading| reading.is_done()).collect::<Vec<_>>() {
            self.finish(reading);
        }
        if self.warming.as_ref().is_some_and(Reading::is_done)
            && let Some(reading) = self.warming.take()
        {
            self.finish(reading);
        }
    }

    fn finish(&mut self, reading: Reading) {
        let Reading { number, owner, sequence, report, purpose, .. } = reading;
        let position = sequence.position();
        match purpose {
            Purpose::Warm(done) => {
                self.tree.insert(owner, sequence.keep(), Reason::Cut);
                done(Ok(sequence.into_kept()));
            }
            Purpose::Resume(mut answering) => {
                answering.generation.resume(sequence);
                self.answering.push(*answering);
            }
            Purpose::Answer(branches) => {
                let mut kept_at = self.tree.explain(owner, sequence.tokens()).restored;
                let mut forks = Vec::with_capacity(branches.len());
                forks.resize_with(branches.len().saturating_sub(1), || sequence.fork());
                forks.push(sequence);
                for (Branch { params, limits, mut guide }, sequence) in branches.into_iter().zip(forks) {
                    match Generation::new(sequence, params, limits) {
                        Ok(mut generation) => {
                            generation.force(&guide.started(&report));
                            self.answering.push(Answering { number, owner, generation, guide, kept_at });
                            kept_at = position; // Only the first of several need keep it.
                        }
                        Err(error) => guide.ended(Ended::Failed(error)),
                    }
                }
            }
        }
    }

    /// Chooses the next token of every answer.
    pub(super) fn choose(&mut self) {
        let mut over = Vec::new();
        for (at, answering) in self.answering.iter_mut().enumerate() {
            if answering.generation.pending().is_some() {
                continue; // It had to make room, and its last token comes in the next forward.
            }
            let before = answering.generation.answer().len();
            // The token first: copying a state can take longer than choosing.
            let ended = answering.choose();
            self.stats.answer_tokens += (answering.generation.answer().len() - before) as u64;
            if let Some(ended) = ended {
                over.push((at, ended));
                continue;
            }
            let (sequence, is_first) =
                (answering.generation.sequence(), answering.generation.answer().len() == 1);
            let since = sequence.position() - answering.kept_at;
            let reason = match is_first {
                true if since >= TOKENS_NEAR => Reason::Cut,
                false if since >= PERIOD && sequence.position().is_multiple_of(PERIOD) => Reason::Period,
                _ => continue,
            };
            answering.kept_at = sequence.position();
            self.tree.insert(answering.owner, sequence.keep(), reason);
        }
        for (at, ended) in over.into_iter().rev() {
            let answering = self.answering.remove(at);
            self.end(answering, ended);
        }
    }

    /// Ends an answer and leaves its state in the tree.
    pub(super) fn end(&mut self, answering: Answering, ended: Ended) {
        let Answering { owner, generation, mut guide, kept_at, .. } = answering;
        let sequence = generation.into_sequence();
        if sequence.position() >= kept_at + TOKENS_NEAR {
            self.tree.insert(owner, sequence.into_kept(), Reason::Cut);
        }
        guide.ended(ended);
    }
}
