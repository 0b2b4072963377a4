//! Jobs that wait: a line per owner, and the owners take turns.

use std::collections::VecDeque;

use super::job::Job;
use crate::tree::Owner;

/// Waiting jobs of all owners.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Lines that are not empty; the owner whose turn it is comes first.
    lines: VecDeque<(Owner, VecDeque<Job>)>,
    len: usize,
}

impl Queue {
    /// Number of jobs.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Puts a job at the end of its owner's line.
    pub fn push(&mut self, job: Job) {
        self.len += 1;
        match self.lines.iter_mut().find(|(owner, _)| *owner == job.owner) {
            Some((_, line)) => line.push_back(job),
            None => self.lines.push_back((job.owner, VecDeque::from([job]))),
        }
    }

    /// Takes the first job that `may_start`, asking for the first of every line in turn; its owner's next turn comes
    /// after everybody else's.
    pub fn pop(&mut self, mut may_start: impl FnMut(&Job) -> bool) -> Option<Job> {
        let at = self.lines.iter().position(|(_, line)| line.front().is_some_and(&mut may_start))?;
        let (owner, mut line) = self.lines.remove(at)?;
        let job = line.pop_front();
        if !line.is_empty() {
            self.lines.push_back((owner, line));
        }
        self.len -= usize::from(job.is_some());
        job
    }

    /// Removes the jobs that nobody wants any more.
    pub fn drop_unwanted(&mut self) {
        for (_, line) in &mut self.lines {
            line.retain_mut(|job| job.work.drop_unwanted());
        }
        self.lines.retain(|(_, line)| !line.is_empty());
        self.len = self.lines.iter().map(|(_, line)| line.len()).sum();
    }

    /// Takes all jobs.
    pub fn drain(&mut self) -> impl Iterator<Item = Job> {
        self.len = 0;
        std::mem::take(&mut self.lines).into_iter().flat_map(|(_, line)| line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::job::Work;

    fn job(owner: u64, prompt: u32) -> Job {
        let work = Work::Warm { is_urgent: true, done: Box::new(|_| {}) };
        Job { owner: Owner(owner), prompt: vec![prompt], cuts: Vec::new(), work }
    }

    #[test]
    fn owners_take_turns_and_lines_keep_their_order() {
        let mut queue = Queue::default();
        for (owner, prompt) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (2, 21)] {
            queue.push(job(owner, prompt));
        }
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop(|_| true)).map(|job| job.prompt[0]).collect();
        assert_eq!(order, [10, 20, 30, 11, 21, 12]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_job_that_may_not_start_holds_up_its_own_line_only() {
        let mut queue = Queue::default();
        for (owner, prompt) in [(1, 10), (1, 11), (2, 20)] {
            queue.push(job(owner, prompt));
        }
        assert_eq!(queue.pop(|job| job.prompt[0] != 10).map(|job| job.prompt[0]), Some(20));
        assert!(queue.pop(|job| job.prompt[0] != 10).is_none());
        assert_eq!((queue.len(), queue.drain().count(), queue.len()), (2, 2, 0));
    }
}
