//! Who begins when: waiting jobs, and work that is done while there is nothing else.

use tangelo_core::TokenId;

use super::Scheduler;
use super::cuts::worthwhile;
use super::job::{Job, Work};
use super::reading::{Purpose, Reading, longest_common};
use crate::guide::{Ended, Report};
use crate::sequence::Sequence;
use crate::tree::{Owner, Reason};

/// Fewer tokens than these are computed again rather than waited for.
const TOKENS_WORTH_WAITING: usize = 64;

impl Scheduler {
    /// Everything that nobody wants any more ends here.
    pub(super) fn drop_unwanted(&mut self) {
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
    pub(super) fn give_up(&mut self, reading: Reading) {
        if reading.sequence.position() > reading.report.cached_tokens {
            self.tree.insert(reading.owner, reading.sequence.into_kept(), Reason::Cut);
        }
        reading.purpose.end(|| Ended::Cancelled);
    }

    /// Warming has to wait; what it has read may be just what the new prompt needs.
    pub(super) fn pause_warming(&mut self) {
        let Some(Reading { owner, sequence, prompt, cuts, purpose: Purpose::Warm(done), .. }) =
            self.warming.take()
        else {
            return;
        };
        self.tree.insert(owner, sequence.into_kept(), Reason::Cut);
        self.warm.push_front(Job { owner, prompt, cuts, work: Work::Warm { is_urgent: false, done } });
    }

    pub(super) fn resume_warming(&mut self) {
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
    pub(super) fn admit(&mut self) {
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
    fn begin(&mut self, owner: Owner, prompt: Vec<TokenId>, cuts: Vec<usize>, purpose: Purpose) -> Reading {
        let found = self.tree.find(&self.model, owner, &prompt);
        let sequence = found.sequence.unwrap_or_else(|| Sequence::new(&self.model));
        let position = sequence.position();
        let cuts = worthwhile(cuts, position, prompt.len());
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
}
