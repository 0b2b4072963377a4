//! What was found: one JSON document for programs, one page for people.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Check;
use super::ratios::Ratio;
use super::run::Fault;

/// The record of a run.
pub struct Record {
    /// The machine and all numbers.
    pub facts: Value,
    /// What is asked of a card.
    pub ratios: Vec<Ratio>,
    steps: Vec<Step>,
}

struct Step {
    name: String,
    seconds: f64,
    outcome: Result<String, Fault>,
}

impl Step {
    /// How it went, in a word, and what there is to say.
    fn words(&self) -> (&'static str, String) {
        match &self.outcome {
            Ok(found) => ("passed", found.clone()),
            Err(fault @ Fault::Missing(_)) => ("not run", fault.to_string()),
            Err(fault) => ("FAILED", fault.to_string()),
        }
    }
}

impl Record {
    /// A record of a machine.
    pub fn new(facts: Value) -> Record {
        Record { facts, ratios: vec![], steps: vec![] }
    }

    /// Does a step and tells how it went.
    pub fn step(&mut self, name: &str, work: impl FnOnce() -> Result<String, Fault>) {
        let start = Instant::now();
        let outcome = work();
        let step = Step { name: name.to_string(), seconds: start.elapsed().as_secs_f64(), outcome };
        let (word, text) = step.words();
        println!("{word:7} {:6.1} s  {name}: {text}", step.seconds);
        self.steps.push(step);
    }

    /// Steps that failed.
    pub fn num_failed(&self) -> usize {
        self.count("FAILED")
    }

    fn count(&self, word: &str) -> usize {
        self.steps.iter().filter(|step| step.words().0 == word).count()
    }

    /// Writes both forms; their path without the ending. A trial's stay out of `bench/`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, check: &Check<'_>) -> Result<PathBuf, String> {
        let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() / 86_400);
        let device = slug(self.facts["device"].as_str().unwrap_or("device"));
        let folder = if check.options.quick { check.folder.clone() } else { check.root.join("bench") };
        let path = folder.join(format!("{}-gpu-{device}", date(days)));
        let write = |ending: &str, text: String| {
            let path = path.with_extension(ending);
            fs::write(&path, text).map_err(|e| format!("{} cannot be written: {e}", path.display()))
        };
        write("json", format!("{:#}\n", self.document()))?;
        write("md", self.page())?;
        Ok(path)
    }

    fn document(&self) -> Value {
        let step = |step: &Step| {
            let (word, text) = step.words();
            json!({ "step": step.name, "seconds": step.seconds, "outcome": word, "found": text })
        };
        let ratio = |ratio: &Ratio| {
            let sign = if ratio.at_least { "at least" } else { "at most" };
            json!({ "what": ratio.what, "value": ratio.value, sign: ratio.asked, "verdict": ratio.verdict() })
        };
        json!({
            "facts": self.facts,
            "ratios": self.ratios.iter().map(ratio).collect::<Vec<_>>(),
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
        })
    }

    /// The page.
    pub fn page(&self) -> String {
        let fact = |key: &str| self.facts[key].as_str().unwrap_or("not known");
        let mut page = format!(
            "# {}, compute capability {}\n\nMade by `cargo run --release -p xtask -- gpu-check` at commit {}. Toolkit: {}.\n\n\
             ```text\n{}\n```\n\n",
            fact("device"),
            fact("capability"),
            fact("commit"),
            fact("toolkit"),
            fact("driver"),
        );
        page += "| ratio | value | asked | |\n| --- | ---: | ---: | --- |\n";
        for ratio in &self.ratios {
            let value = ratio.value.map_or_else(|| "?".to_string(), |value| format!("{value:.2}"));
            let sign = if ratio.at_least { '≥' } else { '≤' };
            line(&mut page, &[ratio.what, &value, &format!("{sign} {}", ratio.asked), ratio.verdict()]);
        }
        page += "\n| step | s | outcome | found |\n| --- | ---: | --- | --- |\n";
        for step in &self.steps {
            let (word, text) = step.words();
            line(&mut page, &[&step.name, &format!("{:.1}", step.seconds), word, &text.replace('|', "\\|")]);
        }
        let counts = ["passed", "FAILED", "not run"].map(|word| self.count(word));
        let [passed, failed, missing] = counts;
        page + &format!("\n{passed} steps passed, {failed} failed, {missing} could not run.\n")
    }
}

fn line(page: &mut String, cells: &[&str]) {
    writeln!(page, "| {} |", cells.join(" | ")).expect("memory takes everything");
}

/// A name as part of a file's.
fn slug(name: &str) -> String {
    let kept = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect::<String>();
    kept.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// The date so many days after 1970-01-01, in the Gregorian calendar: years are counted from March, so that leap days end
/// them, and months of 30 and 31 days follow each other as `(153 m + 2) / 5` does.
fn date(days: u64) -> String {
    let days = days + 719_468; // From 0000-03-01.
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + era * 400, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{day:02}", if month <= 2 { year + 1 } else { year })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_names_of_files() {
        for (days, want) in
            [(0, "1970-01-01"), (11_016, "2000-02-29"), (11_017, "2000-03-01"), (20_513, "2026-03-01")]
        {
            assert_eq!(date(days), want);
        }
        assert_eq!(slug("NVIDIA GeForce RTX 4090 (x)"), "nvidia-geforce-rtx-4090-x");
    }

    #[test]
    fn every_outcome_is_counted_and_shown() {
        let mut record = Record::new(json!({ "device": "card" }));
        record.step("a", || Ok("1 | 2".into()));
        record.step("b", || Err(Fault::Failed("wrong".into())));
        record.step("c", || Err(Fault::Late("ended".into())));
        record.step("d", || Err(Fault::Missing("absent".into())));
        record.ratios.push(Ratio { what: "a over b", value: Some(0.5), asked: 1.0, at_least: true });
        let page = record.page();
        assert!(page.ends_with("\n1 steps passed, 2 failed, 1 could not run.\n"), "{page}");
        assert!(page.contains("| a over b | 0.50 | ≥ 1 | missed |") && page.contains("1 \\| 2"), "{page}");
        assert_eq!((record.num_failed(), &record.document()["steps"][3]["outcome"]), (2, &json!("not run")));
    }
}
