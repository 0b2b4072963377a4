//! Beside llama.cpp: the output of `llama-bench -o jsonl`, one JSON object per line and test, matched with ours.
//!
//! Of each line are read `n_prompt`, `n_gen`, `n_depth` (which test it was), `samples_ts` or else `avg_ts` (tokens per
//! second), and `n_threads`, `model_type`, `model_n_params`, `build_commit` (to say what is compared). A test that
//! occurs several times, with other settings, counts with its fastest run.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;
use tangelo_core::limits::CONFIG_BYTES_MAX;

use super::measure::Measured;
use super::statistics::Spread;
use crate::model;

/// What a test of llama-bench does. Lengths are in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Reads a prompt.
    Prefill {
        /// Length of the prompt.
        tokens: usize,
    },
    /// Generates after a context.
    Decode {
        /// Length of the context.
        depth: usize,
        /// Length of the answer.
        generate: usize,
    },
    /// What we do not measure: a prompt and an answer timed together, or a prompt after a context.
    Mixed {
        /// Length of the prompt.
        tokens: usize,
        /// Length of the context.
        depth: usize,
        /// Length of the answer.
        generate: usize,
    },
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    test: Test,
    tokens_per_s: f64,
    threads: u64,
    parameters: u64,
    /// Build and model, for the reader.
    about: String,
}

/// A file of llama-bench.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    rows: Vec<Row>,
}

/// Both speeds of one test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Which.
    pub test: Test,
    /// Our tokens per second.
    pub ours: f64,
    /// Those of llama.cpp.
    pub theirs: f64,
}

/// Both programs side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Builds and models of the rows that were matched.
    pub peer: Vec<String>,
    /// Tests that both have done.
    pub ratios: Vec<Ratio>,
    /// Sentences: what has no counterpart, and in what the runs differ.
    pub notes: Vec<String>,
}

/// Our side of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Ours<'a> {
    /// The speeds.
    pub measured: &'a Measured,
    /// Steps of each decode.
    pub generate: usize,
    /// Threads of the run; `None` if a device computed.
    pub threads: Option<usize>,
    /// Parameters of the model.
    pub parameters: u64,
}

impl Ratio {
    /// How many times as fast we are.
    pub fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }
}

impl Peer {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or a line is not one of llama-bench's.
    pub fn read(path: &Path) -> Result<Peer> {
        Peer::parse(&model::read_text(path, CONFIG_BYTES_MAX)?).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Peer> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let row = |(i, line): (usize, &str)| Row::parse(line).with_context(|| format!("line {}", i + 1));
        let rows: Vec<Row> = lines.map(row).collect::<Result<_>>()?;
        ensure!(!rows.is_empty(), "there is nothing in it; expected the output of `llama-bench -o jsonl`");
        Ok(Peer { rows })
    }

    /// Matches every test of ours with the fastest row of the same test.
    pub fn compare(&self, ours: Ours<'_>) -> Comparison {
        let mut comparison = Comparison { peer: vec![], ratios: vec![], notes: vec![] };
        let mut matched: Vec<&Row> = Vec::new();
        let tests = ours.tests();
        for &(test, speed) in &tests {
            let same = self.rows.iter().filter(|row| row.test == test);
            match same.max_by(|a, b| a.tokens_per_s.total_cmp(&b.tokens_per_s)) {
                Some(row) => {
                    comparison.ratios.push(Ratio { test, ours: speed, theirs: row.tokens_per_s });
                    matched.push(row);
                }
                None => comparison.note(format!("llama.cpp has not measured the {test}.")),
            }
        }
        if ours.measured.decode.iter().any(|decode| decode.batch > 1) {
            comparison
                .note("llama-bench decodes one sequence at a time, so batches have no counterpart.".into());
        }
        for row in self.rows.iter().filter(|row| !tests.iter().any(|(test, _)| *test == row.test)) {
            comparison.note(row.test.without_counterpart());
        }
        for row in matched {
            if !comparison.peer.contains(&row.about) {
                comparison.peer.push(row.about.clone());
            }
            comparison.note_differences(row, ours);
        }
        comparison
    }
}

impl Comparison {
    /// Adds a sentence unless it is there.
    fn note(&mut self, sentence: String) {
        if !self.notes.contains(&sentence) {
            self.notes.push(sentence);
        }
    }

    fn note_differences(&mut self, row: &Row, ours: Ours<'_>) {
        let theirs = row.threads;
        if let Some(threads) = ours.threads.filter(|threads| theirs != *threads as u64) {
            self.note(format!("llama.cpp ran with {theirs} threads, this program with {threads}."));
        }
        let (theirs, parameters) = (row.parameters, ours.parameters);
        if theirs != parameters {
            self.note(format!(
                "llama.cpp's model has {theirs} parameters, this one {parameters}: they are different models."
            ));
        }
    }
}

impl Ours<'_> {
    /// What llama-bench can have measured too, with our median speeds.
    fn tests(&self) -> Vec<(Test, f64)> {
        let prefill = self.measured.prefill.iter();
        let prefill = prefill.map(|p| (Test::Prefill { tokens: p.tokens }, p.tokens_per_s.median));
        let alone = self.measured.decode.iter().filter(|decode| decode.batch == 1);
        let decode =
            alone.map(|d| (Test::Decode { depth: d.depth, generate: self.generate }, d.tokens_per_s.median));
        prefill.chain(decode).collect()
    }
}

impl Row {
    fn parse(line: &str) -> Result<Row> {
        let what = "expected a JSON object as `llama-bench -o jsonl` writes them";
        let value: Value = serde_json::from_str(line).map_err(|error| anyhow!("{what}: {error}"))?;
        ensure!(value.is_object(), "{what}");
        let number = |key: &str| -> Result<u64> {
            value[key].as_u64().with_context(|| format!("{what}, but `{key}` is not a count"))
        };
        let length = |key: &str| -> Result<usize> { Ok(usize::try_from(number(key)?)?) };
        let (tokens, generate) = (length("n_prompt")?, length("n_gen")?);
        // Older versions could not begin anywhere else.
        let depth = if value["n_depth"].is_null() { 0 } else { length("n_depth")? };
        let samples: Option<Vec<f64>> =
            value["samples_ts"].as_array().and_then(|s| s.iter().map(Value::as_f64).collect());
        let median = samples.and_then(|samples| Spread::of(&samples)).map(|spread| spread.median);
        let tokens_per_s =
            median.or(value["avg_ts"].as_f64()).filter(|speed| speed.is_finite() && *speed > 0.0);
        let text = |key: &str| value[key].as_str().unwrap_or("unknown").to_string();
        Ok(Row {
            test: match (tokens, generate, depth) {
                (tokens, 0, 0) => Test::Prefill { tokens },
                (0, generate, depth) => Test::Decode { depth, generate },
                (tokens, generate, depth) => Test::Mixed { tokens, depth, generate },
            },
            tokens_per_s: tokens_per_s
                .with_context(|| format!("{what}, but `samples_ts` and `avg_ts` are not speeds"))?,
            threads: number("n_threads")?,
            parameters: number("model_n_params")?,
            about: format!("llama.cpp {}, {}", text("build_commit"), text("model_type")),
        })
    }
}

impl Test {
    /// A sentence about a test that we have not done.
    fn without_counterpart(self) -> String {
        let remedy = match self {
            Test::Prefill { tokens } => format!("add {tokens} to --prompt"),
            Test::Decode { depth, generate } => {
                format!("measure with {depth} in --depth, --generate {generate} and 1 in --batch")
            }
            Test::Mixed { .. } => {
                "this program measures prompts from the start and answers, each alone".into()
            }
        };
        format!("llama.cpp's {self} has no counterpart here: {remedy}.")
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Test::Prefill { tokens } => write!(f, "prefill of {tokens} tokens"),
            Test::Decode { depth, generate } => write!(f, "decode of {generate} tokens at depth {depth}"),
            Test::Mixed { tokens, depth, generate: 0 } => {
                write!(f, "prefill of {tokens} tokens at depth {depth}")
            }
            Test::Mixed { tokens, depth, generate } => {
                write!(f, "prefill of {tokens} with decode of {generate} tokens at depth {depth}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::measure::{Decode, Prefill};

    /// Hand-made in the form of the real thing, less the keys that are not read.
    const FILE: &str = r#"
{"build_commit": "abc1234", "model_type": "nemotron_h 4B Q4_K - Medium", "model_n_params": 1000, "n_threads": 2, "n_prompt": 512, "n_gen": 0, "n_depth": 0, "avg_ts": 41.0, "stddev_ts": 2.0, "samples_ts": [ 40.0, 39.0, 44.0 ]}
{"build_commit": "abc1234", "model_type": "nemotron_h 4B Q4_K - Medium", "model_n_params": 1000, "n_threads": 2, "n_prompt": 512, "n_gen": 0, "n_depth": 0, "avg_ts": 20.0, "stddev_ts": 0.0, "flash_attn": 0}

{"build_commit": "abc1234", "model_type": "nemotron_h 4B Q4_K - Medium", "model_n_params": 1000, "n_threads": 2, "n_prompt": 0, "n_gen": 64, "n_depth": 0, "avg_ts": 10.0}
{"build_commit": "abc1234", "model_type": "nemotron_h 4B Q4_K - Medium", "model_n_params": 1000, "n_threads": 2, "n_prompt": 0, "n_gen": 64, "n_depth": 4096, "avg_ts": 8.0}
{"build_commit": "abc1234", "model_type": "nemotron_h 4B Q4_K - Medium", "model_n_params": 1000, "n_threads": 2, "n_prompt": 512, "n_gen": 64, "n_depth": 0, "avg_ts": 25.0}
"#;

    fn spread(median: f64) -> Spread {
        Spread { median, min: median, max: median }
    }

    fn measured() -> Measured {
        let prefill = |tokens, speed| Prefill { tokens, tokens_per_s: spread(speed), samples: vec![speed] };
        let decode = |depth, batch, speed| {
            let (tokens_per_s, samples) = (spread(speed), vec![speed]);
            Decode { depth, batch, tokens_per_s, samples, p50_ms: 1.0, p99_ms: 1.0 }
        };
        Measured {
            prefill: vec![prefill(512, 120.0), prefill(2048, 110.0)],
            decode: vec![decode(0, 1, 15.0), decode(0, 8, 60.0)],
            first_prefill_s: None,
        }
    }

    fn compare(threads: usize, parameters: u64) -> Comparison {
        let measured = measured();
        let peer = Peer::parse(FILE).expect("five lines");
        peer.compare(Ours { measured: &measured, generate: 64, threads: Some(threads), parameters })
    }

    #[test]
    fn equal_tests_are_matched_with_the_fastest_row() {
        let comparison = compare(2, 1000);
        let ratios: Vec<_> = comparison.ratios.iter().map(|r| (r.test, r.theirs, r.ratio())).collect();
        let decode = Test::Decode { depth: 0, generate: 64 };
        assert_eq!(ratios, [(Test::Prefill { tokens: 512 }, 40.0, 3.0), (decode, 10.0, 1.5)]);
        assert_eq!(comparison.peer, ["llama.cpp abc1234, nemotron_h 4B Q4_K - Medium"]);
    }

    #[test]
    fn what_has_no_counterpart_is_said() {
        assert_eq!(
            compare(2, 1000).notes,
            [
                "llama.cpp has not measured the prefill of 2048 tokens.",
                "llama-bench decodes one sequence at a time, so batches have no counterpart.",
                "llama.cpp's decode of 64 tokens at depth 4096 has no counterpart here: measure with 4096 in --depth, \
                 --generate 64 and 1 in --batch.",
                "llama.cpp's prefill of 512 with decode of 64 tokens at depth 0 has no counterpart here: this program \
                 measures prompts from the start and answers, each alone.",
            ]
        );
    }

    #[test]
    fn different_conditions_are_said_once() {
        let notes = compare(4, 2000).notes;
        let about = |text: &str| notes.iter().filter(|note| note.contains(text)).count();
        assert_eq!(about("llama.cpp ran with 2 threads, this program with 4."), 1);
        assert_eq!(about("llama.cpp's model has 1000 parameters, this one 2000"), 1);
    }

    #[test]
    fn other_files_are_refused_with_the_line() {
        let good = r#"{"n_prompt": 1, "n_gen": 0, "n_threads": 1, "model_n_params": 1, "avg_ts": 2.5}"#;
        let row = &Peer::parse(good).expect("the keys that are needed").rows[0];
        assert_eq!((row.test, row.tokens_per_s), (Test::Prefill { tokens: 1 }, 2.5));
        assert_eq!(row.about, "llama.cpp unknown, unknown");
        for (bad, expected) in [
            ("\n\n", "there is nothing in it"),
            ("| model | size |", "line 1: expected a JSON object"),
            ("[]", "expected a JSON object"),
            (r#"{"n_prompt": -1, "n_gen": 0}"#, "`n_prompt` is not a count"),
            (&good.replace("2.5", "0"), "are not speeds"),
            (&good.replace("2.5", "\"fast\""), "are not speeds"),
            (&format!("{good}\n{{}}"), "line 2: "),
        ] {
            let error = format!("{:#}", Peer::parse(bad).expect_err(bad));
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }
}
