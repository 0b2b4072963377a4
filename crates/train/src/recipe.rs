//! Recipes: all that a run depends on, as a TOML file. A misspelt key is an error.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tangelo_orchard::Subject;

use crate::adapter;
use crate::error::{Error, Result};
use crate::optimiser::Settings;
use crate::schedule::Schedule;

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What is taught.
    pub model: Model,
    /// From what.
    #[serde(default)]
    pub data: Data,
    /// What learns beside the model; without it, the model itself does.
    pub adapter: Option<adapter::Settings>,
    /// How much at a time.
    #[serde(default)]
    pub batch: BatchSize,
    /// How weights change.
    #[serde(default)]
    pub optimiser: Settings,
    /// How fast.
    #[serde(default)]
    pub schedule: Schedule,
    /// What is kept.
    #[serde(default)]
    pub run: Keeping,
    /// What changes on the way, in the order of steps.
    #[serde(default)]
    pub stages: Vec<Stage>,
}

/// Values that hold from some step on; those that are not named stay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Steps that have been taken when it begins.
    pub step: u64,
    /// As in `data`.
    pub prompt_weight: Option<f32>,
    /// As in `optimiser`.
    pub lr: Option<f64>,
    /// As in `optimiser`.
    pub weight_decay: Option<f64>,
    /// As in `data`, all of it.
    pub orchard: Option<BTreeMap<String, f64>>,
}

/// What holds at some step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Now<'a> {
    /// How much tokens weigh that are not the assistant's.
    pub prompt_weight: f32,
    /// Learning rate at the top of the schedule.
    pub lr: f64,
    /// λ.
    pub weight_decay: f64,
    /// How often each subject comes up ([`shares`]).
    pub orchard: &'a BTreeMap<String, f64>,
}

/// What is taught: a new model of some shape, or one that there is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A folder in the layout of the hub to begin from.
    pub from: Option<PathBuf>,
    /// Sizes of a new model, a `config.json`.
    pub config: Option<PathBuf>,
    /// A folder with the tokenizer and the chat template of a new model.
    pub tokenizer: Option<PathBuf>,
    /// Seed of the weights of a new model.
    #[serde(default)]
    pub seed: u64,
    /// Whether activations are computed again on the way back: less memory for a third more time.
    #[serde(default)]
    pub recompute: bool,
}

/// What is learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Seed of exercises and of the order of data.
    pub seed: u64,
    /// JSONL or parquet files with conversations or texts; without any, exercises of the orchard are learned.
    pub files: Vec<PathBuf>,
    /// JSONL or parquet files with what is examined; without any, nothing is, unless exercises are.
    pub eval_files: Vec<PathBuf>,
    /// Exercises of the orchard: how often each subject comes up, relative to the others.
    pub orchard: BTreeMap<String, f64>,
    /// How much tokens weigh that are not the assistant's, relative to those that are.
    pub prompt_weight: f32,
    /// How often a conversation of files is learned without its lines of thought, thinking switched off.
    pub drop_thoughts: f64,
}

impl Default for Data {
    fn default() -> Data {
        let orchard = Subject::ALL.map(|subject| (subject.name().to_owned(), 1.0));
        Data {
            seed: 0,
            files: Vec::new(),
            eval_files: Vec::new(),
            orchard: orchard.into(),
            prompt_weight: 0.0,
            drop_thoughts: 0.0,
        }
    }
}

/// Subjects of the orchard with how often each comes up, relative to the others.
///
/// # Errors
/// If there is no such subject, or a share is not a positive number.
pub fn shares(orchard: &BTreeMap<String, f64>) -> Result<Vec<(Subject, f64)>> {
    let share = |(name, share): (&String, &f64)| {
        let subject = Subject::from_name(name).filter(|_| share.is_finite() && *share > 0.0);
        let names = || Subject::ALL.map(Subject::name).join(", ");
        let problem = || format!("`orchard.{name} = {share}`: expected a share above 0 of {}", names());
        Ok((subject.ok_or_else(|| Error::Recipe { problem: problem() })?, *share))
    };
    let shares = orchard.iter().map(share).collect::<Result<Vec<_>>>()?;
    match shares.is_empty() {
        true => {
            Err(Error::Recipe { problem: "`orchard` names no subject, so there is nothing to learn".into() })
        }
        false => Ok(shares),
    }
}

/// How much is learned at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchSize {
    /// Tokens per step, the last sequence of which may go beyond it.
    pub tokens: usize,
    /// Tokens whose activations are in memory at one time; changes memory and speed and no result.
    pub micro_tokens: usize,
    /// Longest sequence; longer examples lose their beginning.
    pub context: usize,
}

impl Default for BatchSize {
    fn default() -> BatchSize {
        BatchSize { tokens: 16_384, micro_tokens: 4096, context: 1024 }
    }
}

/// What is kept of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keeping {
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Number of checkpoints kept.
    pub keep: usize,
    /// Steps between evaluations.
    pub eval_every: u64,
    /// Examples of an evaluation.
    pub eval_examples: u64,
}

impl Default for Keeping {
    fn default() -> Keeping {
        Keeping { checkpoint_every: 200, keep: 2, eval_every: 100, eval_examples: 200 }
    }
}

impl Recipe {
    /// Reads a recipe, with changes of the form `key.of.it=value` in TOML's notation; a value that is none is a text.
    ///
    /// # Errors
    /// If it is not a recipe, or a change is of nothing.
    pub fn parse(text: &str, changes: &[String]) -> Result<Recipe> {
        let recipe: Recipe = toml::Value::Table(changed(text, changes)?).try_into().map_err(not_a_recipe)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Whether a recipe, which need not be whole, has an adapter.
    ///
    /// # Errors
    /// If it is no TOML.
    pub fn names_adapter(text: &str, changes: &[String]) -> Result<bool> {
        Ok(changed(text, changes)?.contains_key("adapter"))
    }

    /// What holds when so many steps have been taken.
    pub fn at(&self, step: u64) -> Now<'_> {
        let Settings { lr, weight_decay, .. } = self.optimiser;
        let Data { prompt_weight, orchard, .. } = &self.data;
        let begin = Now { prompt_weight: *prompt_weight, lr, weight_decay, orchard };
        self.stages.iter().filter(|stage| stage.step <= step).fold(begin, |now, stage| Now {
            prompt_weight: stage.prompt_weight.unwrap_or(now.prompt_weight),
            lr: stage.lr.unwrap_or(now.lr),
            weight_decay: stage.weight_decay.unwrap_or(now.weight_decay),
            orchard: stage.orchard.as_ref().unwrap_or(now.orchard),
        })
    }

    /// Whether every number lies where it means something.
    fn check_numbers(&self) -> Result<()> {
        let Recipe { data, optimiser, schedule, .. } = self;
        let Settings { betas: [b1, b2], .. } = optimiser;
        let within =
            |name: &str, value: f64, range: std::ops::RangeInclusive<f64>| match range.contains(&value) {
                true => Ok(()),
                false => {
                    let problem = format!(
                        "`{name}` is {value:?} and must be from {:?} to {:?}",
                        range.start(),
                        range.end()
                    );
                    Err(Error::Recipe { problem })
                }
            };
        // The largest value below one that a moment can be kept by.
        let most = 1.0 - 1e-7;
        within("data.prompt_weight", data.prompt_weight.into(), 0.0..=1.0)?;
        within("data.drop_thoughts", data.drop_thoughts, 0.0..=1.0)?;
        within("optimiser.lr", optimiser.lr, 1e-12..=1e30)?;
        within("optimiser.weight_decay", optimiser.weight_decay, 0.0..=10.0)?;
        within("optimiser.betas", *b1, 0.0..=most)?;
        within("optimiser.betas", *b2, 0.0..=most)?;
        within("optimiser.momentum", optimiser.momentum, 0.0..=most)?;
        within("optimiser.eps", optimiser.eps, 1e-30..=1.0)?;
        within("optimiser.clip", optimiser.clip, 0.0..=f64::MAX)?;
        within("schedule.steps", schedule.steps as f64, 1.0..=1e12)?;
        within("schedule.decay", schedule.decay, 0.0..=1.0)?;
        within("schedule.end", schedule.end, 0.0..=1.0)?;
        for stage in &self.stages {
            within("stages.prompt_weight", stage.prompt_weight.unwrap_or(0.0).into(), 0.0..=1.0)?;
            within("stages.lr", stage.lr.unwrap_or(1.0), 1e-12..=1e30)?;
            within("stages.weight_decay", stage.weight_decay.unwrap_or(0.0), 0.0..=10.0)?;
        }
        if let Some(adapter) = &self.adapter {
            within("adapter.rank", adapter.rank as f64, 0.0..=65_536.0)?;
            within("adapter.alpha", adapter.alpha, 1e-6..=1e6)?;
        }
        Ok(())
    }

    /// Whether everything that is said of data is of data that is learned.
    fn check_data(&self) -> Result<()> {
        let problem = |problem: &str| Err(Error::Recipe { problem: problem.to_owned() });
        if self.data.files.is_empty() && self.data.drop_thoughts > 0.0 {
            return problem("`data.drop_thoughts` is for conversations of `data.files`, and there are none");
        }
        if self.data.files.is_empty() && !self.data.eval_files.is_empty() {
            return problem(
                "`data.eval_files` is examined beside `data.files`, and there are none: exercises of the orchard are \
                 examined with their own",
            );
        }
        if !self.data.files.is_empty() && self.stages.iter().any(|stage| stage.orchard.is_some()) {
            return problem("`stages.orchard` is for exercises, and `data.files` is learned instead");
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let problem = |problem: &str| Err(Error::Recipe { problem: problem.to_owned() });
        if !self.stages.is_sorted_by_key(|stage| stage.step) {
            return problem("`stages` must be in the order of their steps");
        }
        let Recipe { model, batch, run, .. } = self;
        if model.from.is_some() == model.config.is_some() {
            return problem(
                "`model` needs either `from`, a model to begin with, or `config`, the sizes of a new one",
            );
        }
        if model.config.is_some() && model.tokenizer.is_none() {
            return problem(
                "`model.config` needs `model.tokenizer`, a folder with the tokenizer of the new model",
            );
        }
        if self.adapter.is_some() && model.from.is_none() {
            return problem("`adapter` needs `model.from`, a model to stand beside");
        }
        if batch.tokens == 0 || batch.micro_tokens == 0 || batch.context < 2 {
            return problem(
                "`batch.tokens` and `batch.micro_tokens` must be above 0, `batch.context` above 1",
            );
        }
        if run.checkpoint_every == 0 || run.keep == 0 || run.eval_every == 0 {
            return problem("`run.checkpoint_every`, `run.keep` and `run.eval_every` must be above 0");
        }
        self.check_numbers()?;
        self.check_data()?;
        let of_stages = self.stages.iter().filter_map(|stage| stage.orchard.as_ref());
        [&self.data.orchard].into_iter().chain(of_stages).try_for_each(|orchard| shares(orchard).map(|_| ()))
    }
}

fn not_a_recipe(cause: toml::de::Error) -> Error {
    Error::Recipe { problem: cause.to_string().trim_end().replace('\n', " ") }
}

fn changed(text: &str, changes: &[String]) -> Result<toml::Table> {
    let mut table: toml::Table = toml::from_str(text).map_err(not_a_recipe)?;
    changes.iter().try_for_each(|change| apply(&mut table, change))?;
    Ok(table)
}

fn apply(table: &mut toml::Table, change: &str) -> Result<()> {
    let problem = |problem: String| Error::Recipe { problem };
    let wrong = || problem(format!("`{change}` is not of the form key=value"));
    let (key, text) = change.split_once('=').ok_or_else(wrong)?;
    let (key, text) = (key.trim(), text.trim());
    let parsed: Option<toml::Table> = toml::from_str(&format!("value = {text}")).ok();
    let value = parsed.and_then(|mut table| table.remove("value"));
    let value = value.unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(wrong)?;
    let mut at = table;
    let mut parts = parts.into_iter();
    while let Some(part) = parts.next() {
        let next = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = match next {
            toml::Value::Array(list) => {
                let (count, number) = (list.len(), parts.next());
                let entry = number.and_then(|number| list.get_mut(number.parse::<usize>().ok()?));
                entry.and_then(toml::Value::as_table_mut).ok_or_else(|| {
                    problem(format!(
                        "`{key}`: `{part}` is a list of {count}, so its entries are `{part}.0` and so on"
                    ))
                })?
            }
            next => next
                .as_table_mut()
                .ok_or_else(|| problem(format!("`{key}`: `{part}` is a value and has nothing below it")))?,
        };
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[model]\nconfig = 'c.json'\ntokenizer = 't'\n[data.orchard]\nfacts = 2\n[optimiser]\nmethod = 'muon'";

    #[test]
    fn changes_come_before_the_file_and_defaults_after_it() {
        let changes = [
            "optimiser.lr=2e-3",
            "schedule.steps = 7",
            "data.orchard.tools=1",
            "model.tokenizer=other/folder",
        ];
        let recipe = Recipe::parse(TEXT, &changes.map(str::to_owned)).expect("a recipe");
        assert_eq!((recipe.optimiser.lr, recipe.schedule.steps, recipe.batch.context), (2e-3, 7, 1024));
        assert_eq!(shares(&recipe.data.orchard).expect("shares").len(), 2);
        assert_eq!(recipe.model.tokenizer, Some(PathBuf::from("other/folder")));
    }

    #[test]
    fn stages_change_what_they_name_from_their_step_on() {
        let stages = "\n[[stages]]\nstep = 5\nlr = 1e-3\n[[stages]]\nstep = 8\nprompt_weight = 0.5\norchard = { tools = 1 }";
        let recipe = Recipe::parse(&format!("{TEXT}\nlr = 3e-3{stages}"), &[]).expect("a recipe");
        let of = |step| (recipe.at(step).lr, recipe.at(step).prompt_weight);
        assert_eq!(
            [0, 4, 5, 7, 8, 99].map(of),
            [(3e-3, 0.0), (3e-3, 0.0), (1e-3, 0.0), (1e-3, 0.0), (1e-3, 0.5), (1e-3, 0.5)]
        );
        assert_eq!([7, 8].map(|step| recipe.at(step).orchard.contains_key("tools")), [false, true]);
        let error = Recipe::parse(&format!("{TEXT}{stages}\n[[stages]]\nstep = 1"), &[]).expect_err("order");
        assert!(error.to_string().contains("order"), "{error}");
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let refused = |text: &str, change: &str, expected: &str| {
            let changes: Vec<String> =
                Some(change.to_owned()).filter(|c| !c.is_empty()).into_iter().collect();
            let error = Recipe::parse(text, &changes).expect_err(text).to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        };
        refused(
            "[model]\nconfig = 'c'\ntokenizer = 't'\n[optimiser]\nlearning_rate = 1",
            "",
            "learning_rate",
        );
        refused("[modle]\nconfig = 'c'", "", "modle");
        refused("[model]\nfrom = 'a'\nconfig = 'c'", "", "either `from`");
        refused("[model]\nconfig = 'c'", "", "model.tokenizer");
        refused(TEXT, "data.orchard.fact=1", "fact = 1");
        refused(TEXT, "data.orchard.facts=-1", "above 0");
        refused(&format!("{TEXT}\n[[stages]]\nstep = 1\norchard = {{ tool = 1 }}"), "", "tool = 1");
        refused(TEXT, "data.drop_thoughts=30", "`data.drop_thoughts` is 30.0 and must be from 0.0 to 1.0");
        refused(TEXT, "data.prompt_weight=-1", "data.prompt_weight");
        refused(TEXT, "data.prompt_weight=nan", "data.prompt_weight");
        refused(TEXT, "optimiser.betas=[0.9, 1.0]", "optimiser.betas");
        refused(TEXT, "optimiser.eps=0", "optimiser.eps");
        refused(TEXT, "schedule.steps=0", "schedule.steps");
        refused(TEXT, "schedule.decay=1.5", "schedule.decay");
        refused(TEXT, "adapter.rank=1000000000000", "adapter");
        refused(&format!("{TEXT}\n[[stages]]\nstep = 1\nlr = -1"), "", "stages.lr");
        refused(TEXT, "optimiser.lr=0", "optimiser.lr");
        refused(TEXT, "optimiser", "key=value");
        refused(TEXT, "optimiser.method=sgd", "sgd");
        refused(TEXT, "data.drop_thoughts=0.3", "`data.files`");
        refused(TEXT, "data.eval_files=['a']", "`data.files`");
        let staged = format!("{TEXT}\n[[stages]]\nstep = 1\norchard = {{ tools = 1 }}");
        refused(&staged, "data.files=['a']", "`stages.orchard`");
        refused(&staged, "stages.1.lr=1", "`stages` is a list of 1");
        refused(&staged, "stages.lr=1", "`stages` is a list of 1");
        refused(TEXT, "optimiser.method.x=1", "has nothing below it");
        let changed = Recipe::parse(&staged, &["stages.0.lr=0.5".to_owned()]).expect("a recipe");
        assert_eq!(changed.stages[0].lr, Some(0.5));
    }
}
