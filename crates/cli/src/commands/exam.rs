//! `tangelo exam`: how a model does in the exercises of the orchard.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Result, bail};
use serde_json::json;
use tangelo_chat::{RenderOptions, Renderer, StreamParser, event};
use tangelo_core::random::Random;
use tangelo_engine::{SamplingParams, Sequence};
use tangelo_formats::template::ChatTemplate;
use tangelo_orchard::{Exercise, Game, Move, Split, Subject, exercise};

use crate::progress;
use crate::session::{Ending, ModelArgs, Plan, Session, answer, parse_count};

/// Most tokens of an answer, its line of thought included.
const ANSWER_TOKENS_MAX: usize = 300;

/// Examine a model in the exercises of the orchard
///
/// Names and arguments are others than those that models are taught with. Answers are the most probable ones, and are graded
/// exactly; `games` are played besides, to the end.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Exercises per subject
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = parse_count)]
    count: usize,
    /// Seed of the exercises
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Only this subject (may be repeated)
    #[arg(long, value_name = "NAME")]
    subject: Vec<String>,
    /// Print wrong answers
    #[arg(long)]
    show: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was scored under one name.
#[derive(Debug, Default, Clone, Copy)]
struct Score {
    count: usize,
    right: usize,
}

impl Score {
    fn add(&mut self, is_right: bool) {
        self.count += 1;
        self.right += usize::from(is_right);
    }

    fn share(&self) -> f64 {
        self.right as f64 / self.count.max(1) as f64
    }
}

struct Examination<'s> {
    session: &'s Session,
    renderer: Renderer,
    scores: BTreeMap<String, Score>,
    shows: bool,
}

/// Asks, grades and prints.
///
/// # Errors
/// If the model cannot be opened or cannot chat.
pub fn run(args: Args) -> Result<()> {
    let subjects = subjects(&args.subject)?;
    let session = Session::open(&args.model)?;
    let renderer = Renderer::new(ChatTemplate::require(session.own_template())?);
    let mut examination =
        Examination { session: &session, renderer, scores: BTreeMap::new(), shows: args.show };
    let bar = progress::bar("examining", (subjects.len() * args.count) as u64, progress::Unit::Items);
    for subject in &subjects {
        for index in 0..args.count {
            examination.ask(&exercise(*subject, Split::Test, args.seed, index as u64))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if subjects.contains(&Subject::Games) {
        let mut random = Random::new(args.seed).named("played");
        for index in 0..args.count {
            let kind = Game::KINDS[index % Game::KINDS.len()];
            let Some(game) = Game::of_kind(kind, &mut random, Split::Test) else { continue };
            examination.play(kind, game, &mut random)?;
        }
    }
    Ok(examination.print(args.json, &mut std::io::stdout().lock())?)
}

fn subjects(names: &[String]) -> Result<Vec<Subject>> {
    if names.is_empty() {
        return Ok(Subject::ALL.to_vec());
    }
    let subject = |name: &String| match Subject::from_name(name) {
        Some(subject) => Ok(subject),
        None => bail!("there is no subject `{name}`, but {}", Subject::ALL.map(Subject::name).join(", ")),
    };
    names.iter().map(subject).collect()
}

impl Examination<'_> {
    fn ask(&mut self, exercise: &Exercise) -> Result<()> {
        let (said, ending) = self.answer(exercise)?;
        // Whoever never stops has not answered.
        let is_right = ending == Ending::StopToken && (exercise.grader)(&said) == 1.0;
        let thinking = if exercise.thinks { "thinking" } else { "direct" };
        for name in [
            exercise.subject.name().to_owned(),
            exercise.kind.to_owned(),
            format!("{} ({thinking})", exercise.subject.name()),
        ] {
            self.scores.entry(name).or_default().add(is_right);
        }
        if self.shows && !is_right {
            let asked = exercise.conversation.messages.last().and_then(|message| message.content.as_deref());
            writeln!(
                std::io::stdout(),
                "{}: {}\n  said: {}\n  right: {}",
                exercise.kind,
                asked.unwrap_or_default(),
                short(&said),
                short(&exercise.answer)
            )?;
        }
        Ok(())
    }

    fn answer(&self, exercise: &Exercise) -> Result<(tangelo_chat::Message, Ending)> {
        let options = RenderOptions {
            add_generation_prompt: true,
            enable_thinking: Some(exercise.thinks),
            ..RenderOptions::default()
        };
        let rendered = self.renderer.render(&exercise.conversation, &options)?;
        let tokens = rendered.tokens(self.session.require_tokenizer()?)?.ids;
        self.session.check_prompt(tokens.len())?;
        let mut sequence = Sequence::new(&self.session.model);
        self.session.prefill(&mut sequence, &tokens, &|| false)?;
        let dialect = self.renderer.dialect();
        let tools = &exercise.conversation.tools;
        let plan = Plan {
            params: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            limits: self.session.limits(Some(ANSWER_TOKENS_MAX)),
            stops: Vec::new(),
            parser: Some(StreamParser::new(dialect, tools, rendered.starts_in_reasoning)),
            budget: None,
        };
        let answer = answer(self.session, sequence, plan, &|| false, &mut |_| Ok(()))?;
        Ok((event::assistant_message(answer.events), answer.ending))
    }

    /// Plays a game to its end, and the same kind of game at random.
    fn play(&mut self, kind: &str, mut game: Game, random: &mut Random) -> Result<()> {
        let outcome = loop {
            let question = tangelo_chat::Message::new(tangelo_chat::Role::User, game.observation());
            let conversation = tangelo_chat::Conversation { messages: vec![question], tools: Vec::new() };
            let exercise = Exercise {
                subject: Subject::Games,
                kind: "games",
                conversation,
                thinks: false,
                answer: tangelo_chat::Message::new(tangelo_chat::Role::Assistant, ""),
                grader: Box::new(|_| 0.0),
            };
            let (said, _) = self.answer(&exercise)?;
            match game.play(said.content.as_deref().unwrap_or_default()) {
                Move::Goes | Move::Illegal => {}
                outcome => break outcome,
            }
        };
        self.scores.entry(format!("played.{kind}")).or_default().add(matches!(outcome, Move::Won));
        let Some(mut game) = Game::of_kind(kind, random, Split::Test) else { return Ok(()) };
        let outcome = loop {
            let moves = game.legal_moves();
            match game.play(random.of(&moves).as_str()) {
                Move::Goes | Move::Illegal => {}
                outcome => break outcome,
            }
        };
        self.scores.entry(format!("played.{kind} at random")).or_default().add(matches!(outcome, Move::Won));
        Ok(())
    }

    fn print(&self, as_json: bool, out: &mut dyn Write) -> std::io::Result<()> {
        if as_json {
            let of = |(name, score): (&String, &Score)| {
                (name.clone(), json!({"count": score.count, "right": score.right, "share": score.share()}))
            };
            return writeln!(out, "{:#}", serde_json::Value::Object(self.scores.iter().map(of).collect()));
        }
        for (name, score) in &self.scores {
            writeln!(
                out,
                "{name:30} {:5} / {:5}  {:5.1} %",
                score.right,
                score.count,
                100.0 * score.share()
            )?;
        }
        Ok(())
    }
}

fn short(message: &tangelo_chat::Message) -> String {
    let calls = message
        .tool_calls
        .iter()
        .map(|call| format!(" {}({})", call.name, serde_json::Value::from(call.arguments.clone())));
    format!("{}{}", message.content.as_deref().unwrap_or_default(), calls.collect::<String>())
}
