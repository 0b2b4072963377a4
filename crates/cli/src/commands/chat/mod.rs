//! `tangelo chat`: a conversation in the terminal.
//!
//! [`input`] reads lines, [`command`] understands those that begin with a slash, [`dialogue`] holds the conversation and
//! the model's states, [`files`] saves and loads it. This file connects them.

mod command;
mod dialogue;
mod files;
mod input;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use indicatif::HumanBytes;

use self::command::{Command, HELP};
use self::dialogue::{Dialogue, Outcome};
use self::input::{Input, Line};
use crate::session::{ChatArgs, ModelArgs, SamplingArgs, Session, read_tools};
use crate::terminal::Screen;

/// Exit status of a program ended by an interrupt: 128 + SIGINT.
const INTERRUPTED_STATUS: i32 = 130;

/// Talk to a model
///
/// Ctrl-C stops an answer, Ctrl-D leaves. A line that ends with a backslash goes on, and """ begins and ends a text of
/// several lines. /help lists the commands.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Continue a conversation that was saved with /save
    #[arg(long, value_name = "FILE")]
    load: Option<std::path::PathBuf>,
}

/// Talks until the input ends.
///
/// # Errors
/// If the model cannot be opened or has no chat template, or standard output is closed. What goes wrong within the
/// conversation is said and does not end it.
pub fn run(args: Args) -> Result<()> {
    let session = Session::open(&args.model)?;
    let interrupt = install_interrupt()?;
    let mut screen = Screen::new(args.chat.hide_reasoning);
    let mut dialogue = Dialogue::new(&session, &args.chat, &args.sampling, interrupt)?;
    let mut input = Input::new()?;
    if input.is_terminal() {
        screen.note(&format!(
            "{}, context {} tokens; /help lists the commands",
            args.model.model, session.context
        ));
    }
    if let Some(path) = &args.load {
        screen.note(&dialogue.load(path)?);
    }
    loop {
        let prompt = dialogue.pending_call().map_or("> ".into(), |call| format!("result of {}> ", call.name));
        let line = match input.read(&prompt)? {
            Line::Text(text) => text,
            Line::Interrupted => {
                screen.note("Ctrl-D or /quit leaves");
                continue;
            }
            Line::End => return Ok(()),
        };
        let command = match Command::parse(&line) {
            Ok(Command::Quit) => return Ok(()),
            Ok(command) => command,
            Err(problem) => {
                screen.note(&problem);
                continue;
            }
        };
        if let Err(error) = obey(command, &mut dialogue, &mut input, &mut screen) {
            // A closed output ends the program; everything else is part of the conversation.
            if error.is::<std::io::Error>() {
                return Err(error);
            }
            screen.note(&format!("error: {error:#}"));
        }
    }
}

/// Ctrl-C sets the flag; a second one before the flag was looked at ends the program.
fn install_interrupt() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&flag);
    let handler = move || {
        if shared.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED_STATUS);
        }
    };
    ctrlc::set_handler(handler).context("cannot watch for Ctrl-C")?;
    Ok(flag)
}

fn obey(command: Command, dialogue: &mut Dialogue<'_>, input: &mut Input, screen: &mut Screen) -> Result<()> {
    match command {
        Command::Nothing | Command::Quit => {}
        Command::Say(text) if dialogue.pending_call().is_some() => {
            let outcome = dialogue.give_result(&text, screen)?;
            conclude(outcome, dialogue, screen);
        }
        Command::Say(text) => {
            let outcome = dialogue.ask(&text, screen)?;
            conclude(outcome, dialogue, screen);
        }
        Command::Result(text) => {
            let outcome = dialogue.give_result(&text, screen)?;
            conclude(outcome, dialogue, screen);
        }
        Command::Retry => {
            let outcome = dialogue.retry(screen)?;
            conclude(outcome, dialogue, screen);
        }
        Command::Edit(text) => {
            let old = dialogue.last_question()?.to_owned();
            let text = match text {
                Some(text) => text,
                None => match input.edit(&old)? {
                    Some(text) => text,
                    None => return Ok(()),
                },
            };
            let outcome = dialogue.replace(&text, screen)?;
            conclude(outcome, dialogue, screen);
        }
        Command::Undo => screen.note(&dialogue.undo()?),
        Command::Clear => screen.note(dialogue.clear()),
        Command::Think(thinking) => screen.note(&dialogue.think(thinking)),
        Command::System(text) => screen.note(&dialogue.system(text)),
        Command::Tools(None) => screen.note(&describe_tools(dialogue)),
        Command::Tools(Some(path)) => {
            let tools = if path == "off" { Vec::new() } else { read_tools(Path::new(&path))? };
            dialogue.set_tools(tools);
            screen.note(&describe_tools(dialogue));
        }
        Command::Save(path) => screen.note(&dialogue.save(Path::new(&path))?),
        Command::Load(path) => screen.note(&dialogue.load(Path::new(&path))?),
        Command::Stats => screen.note(&stats(dialogue)),
        Command::Help => screen.note(HELP.trim_end()),
    }
    Ok(())
}

fn conclude(outcome: Outcome, dialogue: &Dialogue<'_>, screen: &mut Screen) {
    match outcome {
        Outcome::Answered => {
            if let Some(last) = dialogue.last_report() {
                screen.note(&last.status_line(dialogue.context()));
            }
        }
        Outcome::Stopped => screen.note("stopped before the answer began; the conversation is as before"),
        Outcome::CallsPending(count) => screen.note(&format!("{count} more results are needed")),
    }
}

fn describe_tools(dialogue: &Dialogue<'_>) -> String {
    let names: Vec<&str> = dialogue.tools().iter().map(tangelo_chat::Tool::name).collect();
    match names.as_slice() {
        [] => "no tools".into(),
        names => format!("tools: {}", names.join(", ")),
    }
}

fn stats(dialogue: &Dialogue<'_>) -> String {
    let (states, bytes) = dialogue.kept();
    let mut text = format!(
        "{} messages; {states} kept states, at most {} of memory",
        dialogue.num_messages(),
        HumanBytes(bytes as u64)
    );
    if let Some(last) = dialogue.last_report() {
        text += &format!(
            "\nlast prompt {} tokens, {} of them from a kept state, read in {:.2} s\nlast answer {}",
            last.prompt_tokens,
            last.reused_tokens,
            last.prompt.as_secs_f64(),
            last.status_line(dialogue.context())
        );
    }
    text
}
