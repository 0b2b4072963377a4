//! Many answers at once: which prompt is read and which answers go on in the next forward.
//!
//! A step is one forward over a ragged batch: the next token of every answer, and pieces of the prompts that are being
//! read, as many tokens as a step may have. While answers are being made, that is few enough that a long prompt does not
//! hold them up; prompts that are read at once share it. By principle P1 nobody's tokens depend on who shares a step.
//!
//! ```text
//! submit ─► queue ─► reading ──────────────► answering ─► ended
//!           per owner  from the deepest state   forked n times
//!                      in the tree              │
//!                          ▲      no memory     │
//!                          └────── suspended ◄──┘
//! ```
//!
//! States are kept in the [tree](crate::StateTree) where a prompt is cut, every few hundred tokens, at the end of a prompt
//! and where an answer ends, so that whatever comes next begins there. Answers and the tree share one budget of bytes:
//! the tree gets what answers leave. If answers alone exceed it, the youngest makes room and is read again later.
//!
//! A prompt that shares a beginning with one that is being read waits until that is in the tree, instead of computing it a
//! second time. Work that is only to be ready when it is needed (`Warm`) is done while there is nothing else, and its
//! state so far is left in the tree when something else comes.
//!
//! The scheduler has no clock and no threads: who owns it calls [`Scheduler::step`].

mod answering;
mod job;
mod queue;
mod reading;

pub use job::{Branch, Done, Job, Refused, Work};

use std::collections::VecDeque;
use std::sync::Arc;

use tangelo_core::TokenId;
use tangelo_model::{Model, State};
use tangelo_ops::Cx;

use crate::capacity::context_bytes;
use crate::error::Error;
use crate::generation::{Finish, Generation};
use crate::guide::{Ended, Report};
use crate::sequence::{Advance, Sequence, advance};
use crate::tree::{Owner, PERIOD, Reason, StateTree};
use answering::Answering;
use queue::Queue;
use reading::{Embedding, Purpose, Reading, longest_common};

/// Warm jobs that may wait; of more, the oldest are dropped.
const WARM_MAX: usize = 64;
/// Fewer tokens than these are computed again rather than waited for or kept.
const TOKENS_WORTH_WAITING: usize = 64;
/// A state is kept at the end of a prompt unless one is so near.
const TOKENS_NEAR: usize = 16;

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most tokens of a prompt and its answer.
    pub context: usize,
    /// Most answers at once, those whose prompts are being read included.
    pub parallel: usize,
    /// Most jobs that wait.
    pub queue: usize,
    /// Tokens of prompts per step while no answer is being made.
    pub prefill_tokens: usize,
    /// Tokens of prompts per step while answers are being made.
    pub mixed_tokens: usize,
    /// Bytes of all states together, those of answers and those in the tree.
    pub state_bytes: usize,
}

/// What the scheduler is doing and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Jobs that wait.
    pub queued: usize,
    /// Prompts being read.
    pub reading: usize,
    /// Answers being made.
    pub answering: usize,
    /// Answers that wait for memory.
    pub suspended: usize,
    /// Warm jobs that wait.
    pub warm: usize,
    /// Bytes of the states of prompts and answers under way, shared pages counted in full.
    pub active_bytes: usize,
    /// Forwards.
    pub steps: u64,
    /// Tokens of prompts whose state was found.
    pub cached_tokens: u64,
    /// Tokens of prompts that were computed.
    pub prefilled_tokens: u64,
    /// Tokens computed ahead for prompts to come.
    pub warmed_tokens: u64,
    /// Tokens of answers.
    pub answer_tokens: u64,
    /// Times that an answer had to make room.
    pub suspensions: u64,
}

/// See the head of this file.
pub struct Scheduler {
    model: Arc<Model>,
    options: Options,
    tree: StateTree,
    queue: Queue,
    readings: Vec<Reading>,
    answering: Vec<Answering>,
    /// Answers without a state in memory, oldest first, and their tokens so far.
    suspended: VecDeque<(Answering, Vec<TokenId>)>,
    warm: VecDeque<Job>,
    warming: Option<Reading>,
    embeddings: VecDeque<Embedding>,
    /// Which reading comes first in the next step.
    turn: usize,
    next_number: u64,
    is_closing: bool,
    stats: Stats,
}

impl Scheduler {
    /// A scheduler with nothing to do. `tree` may hold states already.
    pub fn new(model: Arc<Model>, tree: StateTree, options: Options) -> Scheduler {
        let mut scheduler = Scheduler {
            model,
            options,
            tree,
            queue: Queue::default(),
            readings: Vec::new(),
            answering: Vec::new(),
            suspended: VecDeque::new(),
            warm: VecDeque::new(),
            warming: None,
            embeddings: VecDeque::new(),
            turn: 0,
            next_number: 0,
            is_closing: false,
            stats: Stats::default(),
        };
        scheduler.tree.allow(options.state_bytes);
        scheduler
    }

    /// Takes a job, to be done in its turn.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn submit(&mut self, job: Job) -> Result<(), Refused> {
        self.check(&job)?;
        match job.work {
            Work::Warm { is_urgent: false, .. } => {
                self.warm.push_back(job);
                if self.warm.len() > WARM_MAX
                    && let Some(job) = self.warm.pop_front()
                {
                    job.work.cancel();
                }
            }
            Work::Embed(done) => self.embeddings.push_back(Embedding::new(&self.model, job.prompt, done)),
            Work::Answer(_) | Work::Warm { .. } => self.queue.push(job),
        }
        Ok(())
    }

    fn check(&self, job: &Job) -> Result<(), Refused> {
        if self.is_closing {
            return Err(Refused::Closing);
        }
        let vocab_size = self.model.config().vocab_size;
        if let Some(&token) = job.prompt.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(Error::from(tangelo_model::Error::Token { token, vocab_size }).into());
        }
        let Options { context, parallel, queue, state_bytes, .. } = self.options;
        let prompt = job.prompt.len();
        if prompt == 0 {
            return Err(Error::EmptyPrompt.into());
        }
        if prompt >= context {
            return Err(Error::PromptTooLong { prompt, context }.into());
        }
        let (needed, available) = (context_bytes(&self.model, prompt + 1), state_bytes as u64);
        if needed > available {
            let fits = crate::capacity::tokens_in(&self.model, available);
            return Err(Error::NotEnoughMemory { context: prompt + 1, needed, available, fits }.into());
        }
        if job.work.width() > parallel {
            return Err(Error::TooManyAnswers { asked: job.work.width(), most: parallel }.into());
        }
        if let Work::Answer(branches) = &job.work {
            branches.iter().try_for_each(|branch| branch.params.check(vocab_size))?;
        }
        let is_idle_work = matches!(job.work, Work::Warm { is_urgent: false, .. });
        let waiting = self.queue.len() + self.embeddings.len();
        if !is_idle_work && waiting >= queue {
            return Err(Refused::QueueFull { waiting });
        }
        Ok(())
    }

    /// Takes no new work from now on; what has been taken is done.
    pub fn close(&mut self) {
        self.is_closing = true;
        self.warm.drain(..).for_each(|job| job.work.cancel());
        if let Some(reading) = self.warming.take() {
            self.give_up(reading);
        }
    }

    /// Ends everything at once.
    pub fn cancel_all(&mut self) {
        self.close();
        let queued: Vec<Job> = self.queue.drain().collect();
        queued.into_iter().for_each(|job| job.work.cancel());
        std::mem::take(&mut self.readings).into_iter().for_each(|reading| self.give_up(reading));
        std::mem::take(&mut self.answering).into_iter().for_each(|a| self.end(a, Ended::Cancelled));
        self.suspended.drain(..).for_each(|(mut answering, _)| answering.guide.ended(Ended::Cancelled));
        self.embeddings.clear();
    }

    /// Whether a step would do nothing.
    pub fn is_idle(&self) -> bool {
        !self.is_busy() && self.warm.is_empty() && self.warming.is_none()
    }

    /// Whether somebody waits for something.
    fn is_busy(&self) -> bool {
        self.queue.len() > 0
            || !self.readings.is_empty()
            || !self.answering.is_empty()
            || !self.suspended.is_empty()
            || !self.embeddings.is_empty()
    }

    /// The states that are kept.
    pub fn tree(&mut self) -> &mut StateTree {
        &mut self.tree
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Numbers for reports.
    pub fn stats(&self) -> Stats {
        Stats {
            queued: self.queue.len() + self.embeddings.len(),
            reading: self.readings.len(),
            answering: self.answering.len(),
            suspended: self.suspended.len(),
            warm: self.warm.len() + usize::from(self.warming.is_some()),
            active_bytes: self.active_bytes(),
            ..self.stats
        }
    }

    /// Does one forward's worth of work; false if there is nothing to do.
    pub fn step(&mut self, cx: &Cx) -> bool {
        self.drop_unwanted();
        if self.is_busy() {
            self.pause_warming();
        } else {
            self.resume_warming();
        }
        self.admit();
        let has_embedding = self.step_embedding(cx);
        let has_batch = self.forward(cx);
        if has_batch {
            self.finish_readings();
            self.choose();
            self.make_room();
        }
        has_batch || has_embedding
    }

    /// Everything that nobody wants any more ends here.
    fn drop_unwanted(&mut self) {
        self.queue.drop_unwanted();
        for reading in self.readings.extract_if(.., |reading| !reading.is_wanted()).collect::<Vec<_>>() {
            self.give_up(reading);
        }
        for answering in self.answering.extract_if(.., |a| !a.guide.is_wanted()).collect::<Vec<_>>() {
            self.end(answering, Ended::Cancelled);
        }
        self.suspended.retain_mut(|(answering, _)| {
            let is_wanted = answering.guide.is_wanted();
            if !is_wanted {
                answering.guide.ended(Ended::Cancelled);
            }
            is_wanted
        });
    }

    /// Ends a reading, but not for nothing: what has been read stays in the tree.
    fn give_up(&mut self, reading: Reading) {
        if reading.sequence.position() > reading.report.cached_tokens {
            self.tree.insert(reading.owner, reading.sequence.into_kept(), Reason::Cut);
        }
        reading.purpose.end(|| Ended::Cancelled);
    }

    /// Warming has to wait; what it has read may be just what the new prompt needs.
    fn pause_warming(&mut self) {
        let Some(Reading { owner, sequence, prompt, cuts, purpose: Purpose::Warm(done), .. }) =
            self.warming.take()
        else {
            return;
        };
        self.tree.insert(owner, sequence.into_kept(), Reason::Cut);
        self.warm.push_front(Job { owner, prompt, cuts, work: Work::Warm { is_urgent: false, done } });
    }

    fn resume_warming(&mut self) {
        while self.warming.is_none()
            && let Some(job) = self.warm.pop_front()
        {
            let Work::Warm { done, .. } = job.work else { continue };
            let reading = self.begin(job.owner, job.prompt, job.cuts, Purpose::Warm(done));
            if reading.is_done() {
                let Purpose::Warm(done) = reading.purpose else { continue };
                done(Ok(reading.sequence.into_kept()));
            } else {
                self.warming = Some(reading);
            }
        }
    }

    /// Begins what there is room for: first the answers that had to make room, then the queue.
    fn admit(&mut self) {
        while self.has_room(1) {
            let Some((answering, tokens)) = self.suspended.pop_front() else { break };
            if self.is_any_active() && !self.has_memory(tokens.len()) {
                self.suspended.push_front((answering, tokens));
                break;
            }
            let owner = answering.owner;
            let reading = self.begin(owner, tokens, Vec::new(), Purpose::Resume(Box::new(answering)));
            self.readings.push(reading);
        }
        while self.suspended.is_empty() && self.has_room(1) {
            let mut queue = std::mem::take(&mut self.queue);
            let job = queue.pop(|job| self.may_start(job));
            self.queue = queue;
            let Some(Job { owner, prompt, cuts, work }) = job else { break };
            let purpose = match work {
                Work::Answer(branches) => Purpose::Answer(branches),
                Work::Warm { done, .. } => Purpose::Warm(done),
                Work::Embed(_) => continue,
            };
            let reading = self.begin(owner, prompt, cuts, purpose);
            let report = &reading.report;
            self.stats.cached_tokens += report.cached_tokens as u64;
            self.stats.prefilled_tokens += (report.prompt_tokens - report.cached_tokens) as u64;
            self.readings.push(reading);
        }
    }

    fn is_any_active(&self) -> bool {
        !self.readings.is_empty() || !self.answering.is_empty()
    }

    fn has_room(&self, answers: usize) -> bool {
        let active = self.readings.iter().map(Reading::width).sum::<usize>() + self.answering.len();
        active + answers <= self.options.parallel
    }

    /// Whether a prompt fits beside those under way.
    fn has_memory(&self, tokens: usize) -> bool {
        let needed = usize::try_from(context_bytes(&self.model, tokens + 1)).unwrap_or(usize::MAX);
        self.active_bytes().saturating_add(needed) <= self.options.state_bytes
    }

    /// Whether the job can begin now, and would not better wait for a prompt that is being read.
    fn may_start(&mut self, job: &Job) -> bool {
        if !self.has_room(job.work.width()) || self.is_any_active() && !self.has_memory(job.prompt.len()) {
            return false;
        }
        let Some((at, common)) = longest_common(&self.readings, job.owner, &job.prompt) else { return true };
        let reading = &mut self.readings[at];
        let known = self.tree.explain(job.owner, &job.prompt).restored;
        if common < known + TOKENS_WORTH_WAITING || reading.sequence.position() > common {
            return true;
        }
        reading.add_cut(common);
        // At the very end of the other's prompt there will be a state anyway.
        reading.sequence.position() == common
    }

    /// Begins to read a prompt, from the deepest state on its path.
    fn begin(
        &mut self,
        owner: Owner,
        prompt: Vec<TokenId>,
        mut cuts: Vec<usize>,
        purpose: Purpose,
    ) -> Reading {
        let found = self.tree.find(&self.model, owner, &prompt);
        let sequence = found.sequence.unwrap_or_else(|| Sequence::new(&self.model));
        let position = sequence.position();
        cuts.retain(|&cut| cut > position && cut < prompt.len());
        cuts.sort_unstable();
        cuts.dedup();
        self.next_number += 1;
        let report = Report {
            prompt_tokens: prompt.len(),
            cached_tokens: position,
            matched_tokens: found.matched.min(prompt.len() - 1).max(position),
            was_on_disk: found.was_on_disk,
        };
        let mut reading =
            Reading { number: self.next_number, owner, sequence, prompt, cuts, report, purpose };
        // Where paths part once, they will part again.
        if report.matched_tokens >= position + TOKENS_WORTH_WAITING {
            reading.add_cut(report.matched_tokens);
        }
        reading
    }

    /// One piece of the first prompt that is to be embedded.
    fn step_embedding(&mut self, cx: &Cx) -> bool {
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
    fn forward(&mut self, cx: &Cx) -> bool {
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
        self.stats.answer_tokens += batch.len() as u64;
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
    fn finish_readings(&mut self) {
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
                let before = self.tree.explain(owner, sequence.tokens()).restored;
                if position - before >= TOKENS_NEAR {
                    self.tree.insert(owner, sequence.keep(), Reason::Cut);
                }
                let mut forks = Vec::with_capacity(branches.len());
                forks.resize_with(branches.len().saturating_sub(1), || sequence.fork());
                forks.push(sequence);
                for (Branch { params, limits, mut guide }, sequence) in branches.into_iter().zip(forks) {
                    match Generation::new(sequence, params, limits) {
                        Ok(generation) => {
                            guide.started(&report);
                            let kept_at = position;
                            self.answering.push(Answering { number, owner, generation, guide, kept_at });
                        }
                        Err(error) => guide.ended(Ended::Failed(error)),
                    }
                }
            }
        }
    }

    /// Chooses the next token of every answer.
    fn choose(&mut self) {
        let mut over = Vec::new();
        for (at, answering) in self.answering.iter_mut().enumerate() {
            if answering.generation.pending().is_some() {
                continue; // It had to make room, and its last token comes in the next forward.
            }
            let position = answering.generation.sequence().position();
            if position >= answering.kept_at + PERIOD && position.is_multiple_of(PERIOD) {
                answering.kept_at = position;
                self.tree.insert(answering.owner, answering.generation.sequence().keep(), Reason::Period);
            }
            if let Some(ended) = answering.choose() {
                over.push((at, ended));
            }
        }
        for (at, ended) in over.into_iter().rev() {
            let answering = self.answering.remove(at);
            self.end(answering, ended);
        }
    }

    /// Ends an answer and leaves its state in the tree.
    fn end(&mut self, answering: Answering, ended: Ended) {
        let Answering { owner, generation, mut guide, kept_at, .. } = answering;
        let sequence = generation.into_sequence();
        if sequence.position() >= kept_at + TOKENS_NEAR {
            self.tree.insert(owner, sequence.into_kept(), Reason::Cut);
        }
        guide.ended(ended);
    }

    fn active_bytes(&self) -> usize {
        let readings = self.readings.iter().chain(&self.warming).map(|reading| reading.sequence.bytes());
        let answers = self.answering.iter().map(|a| a.generation.sequence().bytes());
        let embeddings = self.embeddings.iter().map(|_| State::bytes_fixed(self.model.config()));
        readings.chain(answers).chain(embeddings).sum()
    }

    /// Brings all states within the budget: first those in the tree go, then the youngest answers.
    fn make_room(&mut self) {
        loop {
            let active = self.active_bytes();
            if active <= self.options.state_bytes {
                return self.tree.allow(self.options.state_bytes - active);
            }
            self.tree.allow(0);
            let youngest = (0..self.answering.len()).max_by_key(|&at| self.answering[at].number);
            let youngest_reading = self.readings.iter().map(|reading| reading.number).max();
            let Some(at) = youngest else { return };
            let mut answering = self.answering.remove(at);
            if self.answering.is_empty() && youngest_reading.is_none() {
                return self.end(answering, Ended::Finished(Finish::ContextFull));
            }
            self.stats.suspensions += 1;
            let tokens = answering.generation.suspend(&self.model).into_tokens();
            let place = self.suspended.partition_point(|(other, _)| other.number < answering.number);
            self.suspended.insert(place, (answering, tokens));
        }
    }
}
