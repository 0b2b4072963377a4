//! Numbers about the server, for `/metrics` in Prometheus' text format.
//!
//! Counters and buckets are atomic words: whoever has something to count does not wait for whoever reads.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tangelo_engine::TreeStats;
use tangelo_engine::scheduler::Stats;

/// Upper bounds of the buckets of times, in seconds.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// All numbers.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Answers that were begun.
    pub answers: AtomicU64,
    /// Answers that failed.
    pub failures: AtomicU64,
    /// Answers that nobody wanted any more.
    pub cancellations: AtomicU64,
    /// Requests that were refused because too many waited.
    pub refusals: AtomicU64,
    /// Tokens of reasoning.
    pub reasoning_tokens: AtomicU64,
    /// From a request to its first token.
    pub first_token: Histogram,
    /// From one token to the next.
    pub inter_token: Histogram,
    /// From a request to the end of its answer.
    pub duration: Histogram,
    engine: Mutex<(Stats, TreeStats)>,
}

/// How often times fell into which bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One more than there are bounds.
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts a time.
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.sum_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut total = 0;
        let bounds = BUCKETS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.counts) {
            total += count.load(Relaxed);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        let sum = Duration::from_nanos(self.sum_ns.load(Relaxed)).as_secs_f64();
        let _ = writeln!(out, "{name}_sum {sum}\n{name}_count {total}");
    }
}

impl Metrics {
    /// Takes note of what the engine says of itself.
    pub fn set_engine(&self, stats: Stats, tree: TreeStats) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = (stats, tree);
    }

    /// What the engine last said of itself.
    pub fn engine(&self) -> (Stats, TreeStats) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text for Prometheus.
    pub fn text(&self) -> String {
        let (stats, tree) = self.engine();
        let mut out = String::new();
        let mut value = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        value("tangelo_answers_total", "counter", "Answers begun.", load(&self.answers));
        value("tangelo_answers_failed_total", "counter", "Answers that failed.", load(&self.failures));
        let help = "Answers whose client left.";
        value("tangelo_answers_cancelled_total", "counter", help, load(&self.cancellations));
        value(
            "tangelo_requests_refused_total",
            "counter",
            "Requests refused with 429.",
            load(&self.refusals),
        );
        let help = "Tokens of reasoning in answers.";
        value("tangelo_reasoning_tokens_total", "counter", help, load(&self.reasoning_tokens));
        value("tangelo_answer_tokens_total", "counter", "Tokens decoded.", stats.answer_tokens);
        let help = "Tokens of prompts that were computed.";
        value("tangelo_prompt_tokens_computed_total", "counter", help, stats.prefilled_tokens);
        let help = "Tokens of prompts whose state was found.";
        value("tangelo_prompt_tokens_cached_total", "counter", help, stats.cached_tokens);
        let help = "Tokens computed ahead while there was nothing else to do.";
        value("tangelo_prompt_tokens_warmed_total", "counter", help, stats.warmed_tokens);
        value("tangelo_steps_total", "counter", "Forwards of the model.", stats.steps);
        let help = "Times that an answer had to make room for others.";
        value("tangelo_suspensions_total", "counter", help, stats.suspensions);
        value("tangelo_requests_waiting", "gauge", "Requests that wait.", stats.queued as u64);
        value("tangelo_prompts_reading", "gauge", "Prompts being read.", stats.reading as u64);
        value("tangelo_answers_active", "gauge", "Answers being made.", stats.answering as u64);
        value("tangelo_answers_suspended", "gauge", "Answers that wait for memory.", stats.suspended as u64);
        value("tangelo_warm_waiting", "gauge", "Prompts to be computed ahead.", stats.warm as u64);
        let help = "Bytes of states under way, shared pages counted in full.";
        value("tangelo_active_state_bytes", "gauge", help, stats.active_bytes as u64);
        value("tangelo_tree_states", "gauge", "States kept in memory.", tree.states as u64);
        value("tangelo_tree_bytes", "gauge", "Bytes of states kept in memory.", tree.bytes as u64);
        value("tangelo_tree_allowed_bytes", "gauge", "Bytes that they may have.", tree.allowed_bytes as u64);
        value("tangelo_tree_files", "gauge", "States kept in files.", tree.files as u64);
        value("tangelo_tree_file_bytes", "gauge", "Bytes of states kept in files.", tree.file_bytes);
        value("tangelo_tree_evictions_total", "counter", "States given up.", tree.evictions);
        let help = "States read back from files.";
        value("tangelo_tree_restored_total", "counter", help, tree.restored_from_files);
        let help = "Files of states that were not what they should be.";
        value("tangelo_tree_refused_files_total", "counter", help, tree.refused_files);
        let help = "Files of states that could not be written.";
        value("tangelo_tree_failed_writes_total", "counter", help, tree.failed_writes);
        let help = "Seconds from a request to its first token.";
        self.first_token.write(&mut out, "tangelo_time_to_first_token_seconds", help);
        let help = "Seconds from one token to the next.";
        self.inter_token.write(&mut out, "tangelo_inter_token_seconds", help);
        let help = "Seconds from a request to the end of its answer.";
        self.duration.write(&mut out, "tangelo_answer_duration_seconds", help);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let histogram = Histogram::default();
        for ms in [1, 2, 300, 90_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut text = String::new();
        histogram.write(&mut text, "x", "help");
        for line in
            ["x_bucket{le=\"0.001\"} 1", "x_bucket{le=\"0.5\"} 3", "x_bucket{le=\"+Inf\"} 4", "x_count 4"]
        {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
        assert!(text.contains("x_sum 90.303"), "{text}");
    }
}
