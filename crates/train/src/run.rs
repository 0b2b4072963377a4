//! A run: step after step, with checkpoints from which it goes on as if it had never stopped.
//!
//! ```text
//! RUN/recipe.toml          what the run depends on, with all changes and defaults
//! RUN/log.csv              a line per step
//! RUN/loss.svg             that as a picture, drawn with every checkpoint
//! RUN/step-000200/         a checkpoint: a model in the layout of the hub, or an adapter in that of PEFT, and
//!     trainer.safetensors      the moments of the optimiser
//!     trainer.json             how far it is
//! ```
//!
//! A checkpoint appears under its name when it is whole, so the newest one is always good.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tangelo_chat::Renderer;
use tangelo_formats::config::BlockKind;
use tangelo_formats::template::ChatTemplate;
use tangelo_formats::tokenizer::Tokenizer;
use tangelo_formats::{Checkpoint, Config};
use tangelo_ops::Cx;

use crate::adapter;
use crate::adapter_files;
use crate::batch::Batch;
use crate::disk::{Tensors, create, io, read, sync_folder, write, write_tensors};
use crate::error::{Error, Result};
use crate::examples::{Example, Source, Writer};
use crate::init::{init, repair_embeddings};
use crate::model_files::{self, Companions, companions};
use crate::network::Network;
use crate::optimiser::Optimiser;
use crate::params::{Gradients, Params};
use crate::plot;
use crate::recipe::{Recipe, shares};

const LOG_HEAD: &str = "step,examples,tokens,loss,lr,gradient,seconds,eval_loss";

/// What stands for the chat template of a model that has none.
const NO_TEMPLATE: &str =
    "{{ raise_exception('the model has no chat template, so it learns texts and no conversations') }}";

/// Exercises that are looked at before it is given up to find one that fits into the context.
const EXERCISES_MAX: u64 = 10_000;

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// The example that comes next.
    pub next_example: u64,
    /// How many pieces of it have been learned, if it is a long text.
    #[serde(default)]
    pub next_piece: usize,
    /// Tokens read.
    pub tokens: u64,
    /// Rows of the data, if they come to an end: the order depends on it.
    #[serde(default)]
    pub rows: Option<u64>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Number of the step, from 1 on.
    pub step: u64,
    /// Tokens of it.
    pub tokens: usize,
    /// Mean loss of what was learned, weighted, in nats.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Length of the gradient before it was clipped.
    pub gradient: f64,
    /// How long it took.
    pub time: Duration,
    /// Mean loss of answers that are not learned, if it was measured.
    pub eval_loss: Option<f64>,
}

/// A run in memory.
#[derive(Debug)]
pub struct Run {
    recipe: Recipe,
    folder: PathBuf,
    /// Contents of the files that belong to the model but are not its weights.
    companions: Companions,
    writer: Writer,
    learned: Source,
    examined: Option<Source>,
    params: Params,
    network: Network,
    optimiser: Optimiser,
    gradients: Gradients,
    progress: Progress,
    /// The last example that was wanted.
    kept: Option<Kept>,
    /// Embeddings that had no length when the run began.
    repaired: usize,
}

/// An example in pieces.
#[derive(Debug)]
struct Kept {
    index: u64,
    prompt_weight: f32,
    pieces: Rc<[Example]>,
}

impl Run {
    /// Begins a run in a new folder.
    ///
    /// # Errors
    /// If the recipe's files cannot be read, or the folder exists and is not empty.
    pub fn begin(recipe: Recipe, folder: &Path) -> Result<Run> {
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::FolderInUse { folder: folder.to_path_buf() });
        }
        Run::begin_in(recipe, folder)
    }

    /// [`Run::begin`] in a folder that may have the beginning of this run.
    fn begin_in(recipe: Recipe, folder: &Path) -> Result<Run> {
        let mut repaired = 0;
        let (params, config, companions) = match (&recipe.model.from, &recipe.model.config) {
            (Some(from), _) => {
                let checkpoint = Checkpoint::open(from)?;
                let mut params = Params::load(&checkpoint)?;
                if recipe.adapter.is_none() {
                    repaired = repair_embeddings(&mut params, recipe.model.seed);
                }
                let companions = companions(from, checkpoint.config(), checkpoint.chat_template()?)?;
                (params, checkpoint.config().clone(), companions)
            }
            (None, Some(path)) => {
                let config = Config::from_json(&String::from_utf8_lossy(&read(path)?))?;
                let companions =
                    companions(recipe.model.tokenizer.as_deref().unwrap_or(Path::new("")), &config, None)?;
                (init(&config, recipe.model.seed), config, companions)
            }
            (None, None) => return Err(Error::Recipe { problem: "`model` names no model".into() }),
        };
        let mut run = Run::assemble(recipe, folder, companions, config, params)?;
        run.repaired = repaired;
        // Nothing is left behind by a run that cannot begin.
        create(folder)?;
        run.write_recipe()?;
        write(&folder.join("log.csv"), format!("{LOG_HEAD}\n").as_bytes())?;
        Ok(run)
    }

    fn assemble(
        recipe: Recipe,
        folder: &Path,
        companions: Companions,
        config: Config,
        mut params: Params,
    ) -> Result<Run> {
        if let Some(settings) = &recipe.adapter {
            adapter::add(&config, &mut params, settings)?;
        }
        let file = |name: &str| companions.get(name).map(Vec::as_slice).unwrap_or_default();
        let tokenizer =
            Tokenizer::from_json(file("tokenizer.json"))?.with_config(file("tokenizer_config.json"))?;
        tokenizer.check_vocabulary(config.vocab_size)?;
        let template = companions.get("chat_template.jinja");
        let template = template.map_or(NO_TEMPLATE.into(), |file| String::from_utf8_lossy(file)).into_owned();
        let template = ChatTemplate::new(template).map_err(tangelo_chat::Error::from)?;
        let writer = Writer { tokenizer, renderer: Renderer::new(template) };
        let mut network = Network::with_adapter(&config, &params, recipe.adapter.as_ref())?;
        network.recompute = recipe.model.recompute;
        let (learned, examined) = (Source::learned(&recipe.data)?, Source::examined(&recipe.data)?);
        [Some(&learned), examined.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|source| source.check(&writer))?;
        Ok(Run {
            folder: folder.to_path_buf(),
            companions,
            writer,
            examined,
            optimiser: Optimiser::new(recipe.optimiser.clone(), &params),
            gradients: params.no_gradients(),
            params,
            network,
            progress: Progress { rows: learned.num_rows(), ..Progress::default() },
            learned,
            kept: None,
            repaired: 0,
            recipe,
        })
    }

    /// Goes on from the newest checkpoint of a folder, or from the beginning if it has none, with changes of its recipe, which
    /// are kept in it.
    ///
    /// # Errors
    /// If there is no run, its files cannot be read, or its data is not what it was.
    pub fn resume(folder: &Path, changes: &[String]) -> Result<Run> {
        let (recipe, model) = begun(folder, changes)?;
        remove_parts(folder)?;
        let (Some(newest), Some(model)) = (checkpoints(folder)?.pop(), model) else {
            return Run::begin_in(recipe, folder);
        };
        let is_adapted = recipe.adapter.is_some();
        let checkpoint = Checkpoint::open(&model)?;
        let config = checkpoint.config().clone();
        let params = Params::load(&checkpoint)?;
        let companions = companions(&model, &config, checkpoint.chat_template()?)?;
        let mut run = Run::assemble(recipe, folder, companions, config, params)?;
        if is_adapted {
            adapter_files::read(&newest, &mut run.params)?;
        }
        let progress = read(&newest.join("trainer.json"))?;
        let wrong = |cause: serde_json::Error| Error::Recipe { problem: format!("trainer.json: {cause}") };
        let progress: Progress = serde_json::from_slice(&progress).map_err(wrong)?;
        if let (Some(expected), Some(found)) = (progress.rows, run.progress.rows)
            && expected != found
        {
            return Err(Error::OtherData { expected, found });
        }
        run.progress = Progress { rows: run.progress.rows, ..progress };
        run.load_moments(&newest.join("trainer.safetensors"))?;
        run.optimiser.steps = run.progress.step;
        run.cut_log()?;
        if !changes.is_empty() {
            run.write_recipe()?;
        }
        Ok(run)
    }

    fn write_recipe(&self) -> Result<()> {
        let text =
            toml::to_string(&self.recipe).map_err(|cause| Error::Recipe { problem: cause.to_string() });
        write(&self.folder.join("recipe.toml"), text?.as_bytes())
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// How far it is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether all steps have been taken.
    pub fn is_done(&self) -> bool {
        self.progress.step >= self.recipe.schedule.steps
    }

    /// The network and its parameters.
    pub fn model(&self) -> (&Network, &Params) {
        (&self.network, &self.params)
    }

    /// Embeddings that had no length when the run began, and got one ([`crate::repair_embeddings`]).
    pub fn num_repaired(&self) -> usize {
        self.repaired
    }

    /// Number of layers with a recurrent state.
    pub fn num_mixers(&self) -> usize {
        self.network.config().num_blocks(BlockKind::Mamba)
    }

    /// Takes a step, and a checkpoint and an evaluation when they are due.
    ///
    /// # Errors
    /// If the loss is not a number, nothing is changed; or if a file cannot be written.
    pub fn step(&mut self, cx: &Cx) -> Result<Report> {
        let started = Instant::now();
        let now = self.recipe.at(self.progress.step);
        self.optimiser.set_rates(now.lr, now.weight_decay);
        let (lr, prompt_weight) = (now.lr, now.prompt_weight);
        if let Source::Orchard(orchard) = &mut self.learned {
            orchard.shares = shares(now.orchard)?;
        }
        let mut progress = self.progress.clone();
        let mut micro = self.gather(&mut progress, prompt_weight)?;
        let total: f64 = micro.iter().map(Batch::weight).sum();
        let tokens = micro.iter().map(|batch| batch.tokens.len()).sum();
        self.gradients.clear();
        let mut loss = 0.0;
        for batch in &mut micro {
            batch.scale((1.0 / total) as f32);
            let losses = self.network.add_gradients(cx, &self.params, batch, &mut self.gradients);
            let weights = batch.targets.iter().filter(|target| target.weight != 0.0);
            loss += weights
                .zip(losses)
                .map(|(target, loss)| f64::from(target.weight) * f64::from(loss))
                .sum::<f64>();
        }
        self.network.complete(&self.params, &mut self.gradients);
        let share = self.recipe.schedule.share(self.progress.step);
        if !loss.is_finite() {
            return Err(Error::NotFinite { step: self.progress.step + 1, loss });
        }
        let gradient = self.optimiser.step(cx, &mut self.params, &mut self.gradients, share);
        if !gradient.is_finite() {
            return Err(Error::NotFinite { step: self.progress.step + 1, loss: gradient });
        }
        progress.step += 1;
        progress.tokens += tokens as u64;
        self.progress = progress;
        let time = started.elapsed();
        let step = self.progress.step;
        let is_due = |every: u64| step.is_multiple_of(every) || self.is_done();
        let eval_loss = if is_due(self.recipe.run.eval_every) { self.evaluate(cx)? } else { None };
        if let Some(loss) = eval_loss.filter(|loss| !loss.is_finite()) {
            return Err(Error::NotFinite { step, loss });
        }
        let lr = lr * share;
        let report = Report { step, tokens, loss, lr, gradient, time, eval_loss };
        self.log(&report)?;
        if is_due(self.recipe.run.checkpoint_every) {
            self.save()?;
        }
        Ok(report)
    }

    /// The batches of the next step.
    fn gather(&mut self, progress: &mut Progress, prompt_weight: f32) -> Result<Vec<Batch>> {
        let size = self.recipe.batch.clone();
        let (mut batches, mut total) = (vec![Batch::default()], 0);
        while total < size.tokens {
            let pieces = self.pieces(progress.next_example, prompt_weight)?;
            let mut is_whole = true;
            for piece in pieces.iter().skip(progress.next_piece) {
                if total >= size.tokens {
                    is_whole = false;
                    break;
                }
                if batches.last().is_none_or(|batch| batch.is_full(&piece.tokens, size.micro_tokens)) {
                    batches.push(Batch::default());
                }
                if let Some(batch) = batches.last_mut() {
                    batch.push(&piece.tokens, &piece.weights);
                }
                total += piece.tokens.len().saturating_sub(1);
                progress.next_piece += 1;
            }
            if is_whole {
                (progress.next_example, progress.next_piece) = (progress.next_example + 1, 0);
            }
            let read = progress.next_example - self.progress.next_example;
            // Twice as many as there are, since every epoch has its own order.
            if total == 0 && read > self.learned.num_rows().map_or(EXERCISES_MAX, |rows| 2 * rows) {
                return Err(Error::TooShort);
            }
        }
        Ok(batches)
    }

    /// The sequences of an example, which are kept for the next step in case it goes on with them.
    fn pieces(&mut self, index: u64, prompt_weight: f32) -> Result<Rc<[Example]>> {
        let is_it = |kept: &&Kept| kept.index == index && kept.prompt_weight == prompt_weight;
        if let Some(kept) = self.kept.as_ref().filter(is_it) {
            return Ok(Rc::clone(&kept.pieces));
        }
        let examples = self.learned.examples(&self.writer, index, prompt_weight)?;
        let pieces = examples.into_iter().flat_map(|example| example.cut(self.recipe.batch.context));
        let pieces: Rc<[Example]> = pieces.collect();
        self.kept = Some(Kept { index, prompt_weight, pieces: Rc::clone(&pieces) });
        Ok(pieces)
    }

    /// Mean loss of what is not learned, if there is something.
    fn evaluate(&self, cx: &Cx) -> Result<Option<f64>> {
        let Some(examined) = &self.examined else { return Ok(None) };
        let (mut sum, mut count) = (0.0, 0usize);
        let mut add = |batch: Batch| {
            let losses = self.network.losses(cx, &self.params, &batch);
            sum += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
            count += losses.len();
        };
        let examples = self.recipe.run.eval_examples.min(examined.num_rows().unwrap_or(u64::MAX));
        let mut batch = Batch::default();
        for index in 0..examples {
            let examples = examined.examples(&self.writer, index, 0.0)?;
            for example in examples.into_iter().flat_map(|example| example.cut(self.recipe.batch.context)) {
                if batch.is_full(&example.tokens, self.recipe.batch.micro_tokens) {
                    add(std::mem::take(&mut batch));
                }
                batch.push(&example.tokens, &example.weights);
            }
        }
        if !batch.tokens.is_empty() {
            add(batch);
        }
        Ok((count > 0).then(|| sum / count as f64))
    }

    fn log(&self, report: &Report) -> Result<()> {
        let path = self.folder.join("log.csv");
        let Report { step, loss, lr, gradient, time, eval_loss, .. } = report;
        let Progress { next_example, tokens, .. } = self.progress;
        let eval = eval_loss.map_or_else(String::new, |loss| format!("{loss:.6}"));
        let line = format!(
            "{step},{next_example},{tokens},{loss:.9},{lr:.4e},{gradient:.6},{:.3},{eval}\n",
            time.as_secs_f64()
        );
        let file = fs::OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|cause| io(&path, cause))
    }

    /// Takes lines out of the log that belong to steps after the checkpoint.
    fn cut_log(&self) -> Result<()> {
        let path = self.folder.join("log.csv");
        let text = if path.exists() { read(&path)? } else { Vec::new() };
        let text = String::from_utf8_lossy(&text);
        let is_before = |line: &&str| {
            let step = line.split(',').next().and_then(|step| step.parse::<u64>().ok());
            step.is_some_and(|step| step <= self.progress.step)
        };
        let kept = text.lines().filter(is_before).map(|line| format!("{line}\n"));
        write(&path, format!("{LOG_HEAD}\n{}", kept.collect::<String>()).as_bytes())
    }

    /// Writes a checkpoint and removes old ones.
    ///
    /// # Errors
    /// If it cannot be written; then the older ones are still there.
    pub fn save(&self) -> Result<()> {
        let name = format!("step-{:06}", self.progress.step);
        let (path, part) = (self.folder.join(&name), self.folder.join(format!(".{name}.part")));
        if path.exists() {
            return Ok(());
        }
        let _ = fs::remove_dir_all(&part);
        self.write_checkpoint(&part).inspect_err(|_| {
            // Half of it would only fill the disk.
            let _ = fs::remove_dir_all(&part);
        })?;
        fs::rename(&part, &path).map_err(|cause| io(&path, cause))?;
        sync_folder(&self.folder);
        self.draw()?;
        let mut old = checkpoints(&self.folder)?;
        old.truncate(old.len().saturating_sub(self.recipe.run.keep));
        old.iter().try_for_each(|path| fs::remove_dir_all(path).map_err(|cause| io(path, cause)))
    }

    fn write_checkpoint(&self, folder: &Path) -> Result<()> {
        create(folder)?;
        match &self.recipe.adapter {
            Some(settings) => adapter_files::write(folder, &self.recipe, settings, &self.params)?,
            None => self.write_model(folder)?,
        }
        self.save_moments(&folder.join("trainer.safetensors"))?;
        let progress = serde_json::to_string_pretty(&self.progress).unwrap_or_default();
        write(&folder.join("trainer.json"), progress.as_bytes())?;
        sync_folder(folder);
        Ok(())
    }

    /// Draws the log.
    fn draw(&self) -> Result<()> {
        let log = self.folder.join("log.csv");
        let picture = plot::svg(&String::from_utf8_lossy(&read(&log)?));
        write(&self.folder.join("loss.svg"), picture.as_bytes())
    }

    /// Writes the model as a folder in the layout of the hub, in f32.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_model(&self, folder: &Path) -> Result<()> {
        model_files::write_model(folder, &self.companions, self.network.config(), &self.params)
    }

    fn save_moments(&self, path: &Path) -> Result<()> {
        let mut tensors = Vec::new();
        for (at, (_, param)) in self.params.iter().enumerate() {
            for (kind, moments) in
                [("first", &self.optimiser.first[at]), ("second", &self.optimiser.second[at])]
            {
                if !moments.is_empty() {
                    tensors.push((
                        format!("{kind}.{}", param.name),
                        vec![moments.len()],
                        moments.as_slice().into(),
                    ));
                }
            }
        }
        write_tensors(path, &tensors)
    }

    fn load_moments(&mut self, path: &Path) -> Result<()> {
        let tensors = Tensors::read(path)?;
        for (at, (_, param)) in self.params.iter().enumerate() {
            for (kind, moments) in
                [("first", &mut self.optimiser.first[at]), ("second", &mut self.optimiser.second[at])]
            {
                if !moments.is_empty() {
                    tensors.copy(&format!("{kind}.{}", param.name), moments)?;
                }
            }
        }
        Ok(())
    }
}

/// Removes checkpoints that were being written when a run was killed.
fn remove_parts(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|cause| io(folder, cause))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(".step-") && name.ends_with(".part") {
            fs::remove_dir_all(&path).map_err(|cause| io(&path, cause))?;
        }
    }
    Ok(())
}

/// The recipe of a run with changes, and the model to go on with if it has a checkpoint.
pub(crate) fn begun(folder: &Path, changes: &[String]) -> Result<(Recipe, Option<PathBuf>)> {
    let text = String::from_utf8_lossy(&read(&folder.join("recipe.toml"))?).into_owned();
    let recipe = Recipe::parse(&text, changes)?;
    let newest = checkpoints(folder)?.pop();
    // An adapter stands beside the model that the run began with.
    let adapted = recipe.model.from.clone().filter(|_| recipe.adapter.is_some());
    let model = newest.map(|newest| adapted.unwrap_or(newest));
    Ok((recipe, model))
}

/// Checkpoints of a run, oldest first.
fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|cause| io(folder, cause))?;
    // Other folders are the user's, whatever their names begin with.
    let step = |path: PathBuf| {
        let digits = path.file_name()?.to_str()?.strip_prefix("step-")?;
        let is_step = digits.bytes().all(|digit| digit.is_ascii_digit()) && path.is_dir();
        Some((digits.parse::<u64>().ok().filter(|_| is_step)?, path))
    };
    let mut found: Vec<(u64, PathBuf)> = entries.filter_map(|entry| step(entry.ok()?.path())).collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
