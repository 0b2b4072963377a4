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

mod admission;
mod answering;
mod batch;
mod cuts;
mod job;
mod queue;
mod reading;
mod room;

pub use job::{Branch, Done, Job, Refused, Work};

use std::collections::VecDeque;
use std::sync::Arc;

use tangelo_core::TokenId;
use tangelo_model::Model;
use tangelo_ops::Cx;

use crate::capacity::context_bytes;
use crate::error::Error;
use crate::guide::Ended;
use crate::tree::StateTree;
use answering::Answering;
use queue::Queue;
use reading::{Embedding, Reading};

/// Warm jobs that may wait; of more, the oldest are dropped.
const WARM_MAX: usize = 64;
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

    /// Whether no new work is taken.
    pub fn is_closing(&self) -> bool {
        self.is_closing
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

    /// Does one forward's worth of work; false if nothing is left that needs one.
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
}
