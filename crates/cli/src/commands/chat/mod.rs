//! `tangelo chat`: a conversation in the terminal.
//!
//! [`input`] reads lines, [`command`] understands those that begin with a slash, [`dialogue`] holds the conversation and
//! the model's states, [`files`] saves and loads it, [`tools`] calls tools of MCP servers. This file connects them.

mod command;
mod dialogue;
mod files;
mod input;
mod tools;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use indicatif::HumanBytes;
use tangelo_chat::{Event, Persona, Tool, ToolCall};

use self::command::{Command, HELP};
use self::dialogue::{Dialogue, Outcome};
use self::input::{Input, Line};
use self::tools::{McpArgs, Talk, Toolbox, rounds};
use crate::session::{ChatArgs, ModelArgs, SamplingArgs, Session, read_tools};
use crate::terminal::Screen;
use crate::{persona, pocket};

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
    #[command(flatten)]
    mcp: McpArgs,
    /// Talk to a persona: a TOML file with a system message, tools, a greeting and ways of answering; other options come
    /// before what it says
    #[arg(long, value_name = "FILE")]
    persona: Option<PathBuf>,
    /// Continue a conversation that was saved with /save
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
}

/// Talks until the input ends.
///
/// # Errors
/// If the model cannot be opened or has no chat template, or standard output is closed. What goes wrong within the
/// conversation is said and does not end it.
pub fn run(args: Args) -> Result<()> {
    let interrupt = install_interrupt()?;
    let persona = persona_of(&args)?;
    let toolbox = Toolbox::open(&args.mcp, &interrupt)?;
    let session = Session::open(&args.model)?;
    let mut chat = Chat {
        dialogue: Dialogue::new(&session, &args.chat, &args.sampling, persona, interrupt)?,
        toolbox,
        input: Input::new()?,
        screen: Screen::new(args.chat.hide_reasoning),
    };
    chat.set_tools(chat.dialogue.tools().to_vec())?;
    if chat.input.is_terminal() {
        chat.screen.note(&format!(
            "{}, context {} tokens; /help lists the commands",
            args.model.model, session.context
        ));
    }
    if let Some(path) = &args.persona {
        chat.take_up_state(&persona::state_path(path));
    }
    if let Some(path) = &args.load {
        chat.load(path)?;
        let taken_up = rounds(&mut chat);
        chat.tell(taken_up)?;
    } else {
        chat.greet()?;
    }
    chat.talk()
}

/// Who is to answer: the persona that is asked for. The model that ships with the program plays the keeper of a shop unless
/// it is told who it is.
fn persona_of(args: &Args) -> Result<Option<Persona>> {
    match &args.persona {
        Some(path) => Ok(Some(persona::read(path)?)),
        None if pocket::is_meant_by(&args.model.model)
            && args.chat.system.is_none()
            && args.load.is_none() =>
        {
            Ok(Some(pocket::shopkeeper()?))
        }
        None => Ok(None),
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

/// The conversation and those who take part in it.
struct Chat<'s> {
    dialogue: Dialogue<'s>,
    toolbox: Option<Toolbox>,
    input: Input,
    screen: Screen,
}

impl Chat<'_> {
    /// Reads and obeys until the input ends.
    fn talk(&mut self) -> Result<()> {
        loop {
            let prompt = self.dialogue.pending_call();
            let prompt = prompt.map_or("> ".into(), |call| format!("result of {}> ", call.name));
            let line = match self.input.read(&prompt)? {
                Line::Text(text) => text,
                Line::Interrupted => {
                    self.screen.note("Ctrl-D or /quit leaves");
                    continue;
                }
                Line::End => return Ok(()),
            };
            let command = match Command::parse(&line) {
                Ok(Command::Quit) => return Ok(()),
                Ok(command) => command,
                Err(problem) => {
                    self.screen.note(&problem);
                    continue;
                }
            };
            let obeyed = self.obey(command);
            self.tell(obeyed)?;
        }
    }

    /// Says what went wrong. A closed output ends the program; everything else is part of the conversation.
    fn tell(&mut self, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if error.is::<std::io::Error>() => Err(error),
            Err(error) => {
                self.screen.note(&format!("error: {error:#}"));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn obey(&mut self, command: Command) -> Result<()> {
        if matches!(command, Command::Say(_)) && self.dialogue.pending_call().is_none() {
            self.refresh_tools()?;
        }
        let Chat { dialogue, screen, .. } = self;
        match command {
            Command::Nothing | Command::Quit => {}
            Command::Say(text) if dialogue.pending_call().is_some() => {
                let outcome = dialogue.give_result(&text, screen)?;
                self.conclude(outcome)?;
            }
            Command::Say(text) => {
                let outcome = dialogue.ask(&text, screen)?;
                self.conclude(outcome)?;
            }
            Command::Result(text) => {
                let outcome = dialogue.give_result(&text, screen)?;
                self.conclude(outcome)?;
            }
            Command::Retry => {
                let outcome = dialogue.retry(screen)?;
                self.conclude(outcome)?;
            }
            Command::Edit(text) => return self.edit(text),
            Command::Undo => screen.note(&dialogue.undo()?),
            Command::Clear => {
                screen.note(dialogue.clear());
                self.greet()?;
            }
            Command::Think(thinking) => screen.note(&dialogue.think(thinking)),
            Command::System(text) => screen.note(&dialogue.system(text)),
            Command::Tools(None) => self.describe_tools(),
            Command::Tools(Some(path)) => {
                match path.as_str() {
                    "off" => dialogue.set_tools(Vec::new()),
                    path => self.set_tools(read_tools(Path::new(path))?)?,
                }
                self.describe_tools();
            }
            Command::Save(path) => screen.note(&dialogue.save(Path::new(&path))?),
            Command::Load(path) => {
                self.load(Path::new(&path))?;
                rounds(self)?;
            }
            Command::Stats => screen.note(&stats(dialogue)),
            Command::Help => screen.note(HELP.trim_end()),
        }
        Ok(())
    }

    fn edit(&mut self, text: Option<String>) -> Result<()> {
        let old = self.dialogue.last_question()?.to_owned();
        let text = match text {
            Some(text) => text,
            None => match self.input.edit(&old)? {
                Some(text) => text,
                None => return Ok(()),
            },
        };
        let outcome = self.dialogue.replace(&text, &mut self.screen)?;
        self.conclude(outcome)
    }

    /// Says how it went, and makes the calls that are open now.
    fn conclude(&mut self, outcome: Outcome) -> Result<()> {
        self.report(outcome);
        if outcome == Outcome::Stopped { Ok(()) } else { rounds(self) }
    }

    fn report(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered => {
                if let Some(last) = self.dialogue.last_report() {
                    self.screen.note(&last.status_line(self.dialogue.context()));
                }
            }
            Outcome::Stopped => {
                self.screen.note("stopped before the answer began; the conversation is as before")
            }
            Outcome::CallsPending(count) => self.screen.note(&format!("{count} more results are needed")),
        }
    }

    /// Lets the model call these tools and those of the servers.
    fn set_tools(&mut self, tools: Vec<Tool>) -> Result<()> {
        let tools = match &self.toolbox {
            Some(toolbox) => toolbox.added_to(tools)?,
            None => tools,
        };
        self.dialogue.set_tools(tools);
        Ok(())
    }

    /// The state of a persona, if it has been built. Without it the beginning is read when something is asked.
    fn take_up_state(&mut self, path: &Path) {
        if path.is_file()
            && let Err(why) = self.dialogue.load_state(path)
        {
            self.screen.note(&format!("the persona's state is not used, because {why:#}"));
        }
    }

    fn greet(&mut self) -> Result<()> {
        if let Some(text) = self.dialogue.greeting() {
            self.screen.show(&Event::Content(text.to_owned()))?;
            self.screen.finish()?;
        }
        Ok(())
    }

    fn load(&mut self, path: &Path) -> Result<()> {
        let note = self.dialogue.load(path)?;
        self.screen.note(&note);
        if let Some(toolbox) = &self.toolbox {
            let tools = toolbox.missing_added_to(self.dialogue.tools().to_vec());
            self.dialogue.set_tools(tools);
        }
        Ok(())
    }

    /// Takes up what the servers say about their tools between two turns.
    fn refresh_tools(&mut self) -> Result<()> {
        let Some(toolbox) = &mut self.toolbox else { return Ok(()) };
        let (theirs, ours): (Vec<Tool>, Vec<Tool>) =
            self.dialogue.tools().iter().cloned().partition(|tool| toolbox.has(tool.name()));
        if !toolbox.refresh()? || theirs.is_empty() {
            return Ok(());
        }
        self.screen.note("the tools of MCP servers have changed");
        self.set_tools(ours)
    }

    fn describe_tools(&mut self) {
        let toolbox = self.toolbox.as_ref();
        let is_theirs = |tool: &&Tool| toolbox.is_some_and(|toolbox| toolbox.has(tool.name()));
        let (theirs, ours): (Vec<&Tool>, Vec<&Tool>) = self.dialogue.tools().iter().partition(is_theirs);
        let mut lines = Vec::new();
        if !ours.is_empty() {
            let names: Vec<&str> = ours.into_iter().map(Tool::name).collect();
            lines.push(format!("tools: {}", names.join(", ")));
        }
        if let (Some(toolbox), false) = (toolbox, theirs.is_empty()) {
            lines.push(toolbox.describe());
        }
        if lines.is_empty() {
            lines.push("no tools".into());
        }
        self.screen.note(&lines.join("\n"));
    }
}

impl Talk for Chat<'_> {
    fn pending_call(&self) -> Option<ToolCall> {
        self.dialogue.pending_call().cloned()
    }

    fn run_call(&mut self, call: &ToolCall, is_over: bool) -> Result<Option<String>> {
        match &mut self.toolbox {
            Some(toolbox) => toolbox.run(call, is_over, &mut self.input, &mut self.screen),
            None => Ok(None),
        }
    }

    fn add_result(&mut self, text: &str) -> Result<()> {
        self.dialogue.add_result(text)
    }

    fn go_on(&mut self) -> Result<Outcome> {
        let outcome = self.dialogue.go_on(&mut self.screen)?;
        self.report(outcome);
        Ok(outcome)
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
