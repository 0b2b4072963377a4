//! Memory: what answers hold, and who makes room.

use tangelo_model::State;

use super::Scheduler;
use crate::capacity::context_bytes;
use crate::generation::Finish;
use crate::guide::Ended;

impl Scheduler {
    /// Bytes of the states of prompts and answers under way, shared pages counted in full.
    pub(super) fn active_bytes(&self) -> usize {
        let readings = self.readings.iter().chain(&self.warming).map(|reading| reading.sequence.bytes());
        let answers = self.answering.iter().map(|a| a.generation.sequence().bytes());
        let embeddings = self.embeddings.iter().map(|_| State::bytes_fixed(self.model.config()));
        readings.chain(answers).chain(embeddings).sum()
    }

    /// Whether a prompt fits beside those under way.
    pub(super) fn has_memory(&self, tokens: usize) -> bool {
        let needed = usize::try_from(context_bytes(&self.model, tokens + 1)).unwrap_or(usize::MAX);
        self.active_bytes().saturating_add(needed) <= self.options.state_bytes
    }

    /// Brings all states within the budget: first those in the tree go, then the youngest answers.
    pub(super) fn make_room(&mut self) {
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
