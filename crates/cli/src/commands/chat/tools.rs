//! Tools of MCP servers in the conversation: who may call them, and the rounds of calls and answers.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use tangelo_chat::{Tool, ToolCall};
use tangelo_mcp::blocking::Servers;
use tangelo_mcp::{Allowed, Config, Error, Hints, McpTool, result_text};

use super::dialogue::Outcome;
use super::input::{Input, Line};
use crate::terminal::Screen;

/// Most rounds of calls before the user has to say something again: a model that goes in circles comes to an end.
const ROUNDS_MAX: usize = 32;
/// Lines, and characters of each, that are shown of a result.
const FOLDED_LINES: usize = 4;
const FOLDED_CHARS: usize = 160;

const ENOUGH: &str =
    "The call was not made: there have been too many rounds of calls. Answer with what you have.";
const DECLINED: &str = "The call was not made: the user has declined it.";
const UNATTENDED: &str = "The call was not made: nobody is there who could allow it.";

/// Where tools come from that are called by this program.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Tools of MCP servers")]
pub struct McpArgs {
    /// A JSON file with `mcpServers`, as other programs have it, whose tools the model may call
    #[arg(long, value_name = "FILE")]
    mcp: Option<PathBuf>,
    /// Call this tool without asking; stars stand for any characters (may be repeated)
    #[arg(long, value_name = "TOOL", requires = "mcp")]
    mcp_allow: Vec<String>,
}

/// Connected servers, and which of their tools may be called without asking.
pub struct Toolbox {
    servers: Servers,
    /// What the command line allows.
    given: Allowed,
    /// That, and what the user has allowed since.
    allowed: Allowed,
    interrupt: Arc<AtomicBool>,
}

/// What is to become of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Call,
    /// The model is told this instead.
    Refuse(&'static str),
    /// Nothing; the user takes over.
    Leave,
}

impl Toolbox {
    /// Connects to the servers of the command line; `None` if it names none.
    ///
    /// # Errors
    /// If the file is wrong or a server cannot be used.
    pub fn open(args: &McpArgs, interrupt: &Arc<AtomicBool>) -> Result<Option<Toolbox>> {
        let Some(path) = &args.mcp else { return Ok(None) };
        let servers = Servers::connect(&Config::read(path)?, &|| interrupt.load(Ordering::Relaxed))?;
        let given = Allowed::new(args.mcp_allow.iter().cloned());
        let allowed = given.clone();
        Ok(Some(Toolbox { servers, given, allowed, interrupt: Arc::clone(interrupt) }))
    }

    /// Lists the tools again if a server has said that they changed; returns whether they did. The user is asked again
    /// then: another tool may have the name of one that was allowed.
    ///
    /// # Errors
    /// If a server fails; the tools are as before then.
    pub fn refresh(&mut self) -> Result<bool> {
        let have_changed = self.servers.refresh()?;
        if have_changed {
            self.allowed = self.given.clone();
        }
        Ok(have_changed)
    }

    /// Whether a server has a tool of this name.
    pub fn has(&self, name: &str) -> bool {
        self.servers.tool(name).is_some()
    }

    /// These tools and the servers'.
    ///
    /// # Errors
    /// If a name stands for one of each.
    pub fn added_to(&self, mut tools: Vec<Tool>) -> Result<Vec<Tool>> {
        if let Some(tool) = tools.iter().find(|tool| self.has(tool.name())) {
            bail!("both the file of tools and an MCP server have a tool `{}`: rename one", tool.name());
        }
        tools.extend(self.servers.tools().iter().map(|tool| tool.tool().clone()));
        Ok(tools)
    }

    /// These tools, and those of the servers that are not among them.
    pub fn missing_added_to(&self, mut tools: Vec<Tool>) -> Vec<Tool> {
        let names: HashSet<String> = tools.iter().map(|tool| tool.name().to_owned()).collect();
        let missing = self.servers.tools().into_iter().filter(|tool| !names.contains(tool.name()));
        tools.extend(missing.map(|tool| tool.tool().clone()));
        tools
    }

    /// A line for each tool of a server.
    pub fn describe(&self) -> String {
        let line = |tool: &McpTool| {
            let asks = if self.allowed.allows(tool) { "called without asking" } else { "asks first" };
            format!("{} of {}, {}; {asks}", tool.name(), tool.server_name(), effect(tool.hints()))
        };
        self.servers.tools().iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Calls a tool if that is allowed, asking if need be; returns what the model is to be told. `None` leaves the call
    /// to the user: it is of another tool, or was stopped.
    ///
    /// # Errors
    /// If the input fails.
    pub fn run(
        &mut self,
        call: &ToolCall,
        is_over: bool,
        input: &mut Input,
        screen: &mut Screen,
    ) -> Result<Option<String>> {
        let Some(tool) = self.servers.tool(&call.name) else { return Ok(None) };
        let verdict = if is_over {
            Verdict::Refuse(ENOUGH)
        } else if self.allowed.allows(&tool) {
            Verdict::Call
        } else if input.is_terminal() {
            self.ask(&tool, call, input, screen)?
        } else {
            Verdict::Refuse(UNATTENDED)
        };
        match verdict {
            Verdict::Call => Ok(self.call(call, screen)),
            Verdict::Refuse(why) => {
                let hint =
                    if why == UNATTENDED { " --mcp-allow names tools that need no consent." } else { "" };
                screen.note(&format!("{} is not called. {why}{hint}", tool.name()));
                Ok(Some(why.into()))
            }
            Verdict::Leave => Ok(None),
        }
    }

    fn ask(
        &mut self,
        tool: &McpTool,
        call: &ToolCall,
        input: &mut Input,
        screen: &mut Screen,
    ) -> Result<Verdict> {
        let arguments = serde_json::to_string(&call.arguments)?;
        let (name, server) = (tool.name(), tool.server_name());
        screen.note(&format!("{name} {arguments}\nis a tool of {server}, {}", effect(tool.hints())));
        loop {
            let Line::Text(text) = input.ask("call it? y once, a always in this chat, n no [n]> ")? else {
                return Ok(Verdict::Leave);
            };
            match text.trim() {
                "y" | "yes" => return Ok(Verdict::Call),
                "a" | "always" => {
                    self.allowed.add(tool);
                    return Ok(Verdict::Call);
                }
                "" | "n" | "no" => return Ok(Verdict::Refuse(DECLINED)),
                _ => screen.note("y, a or n"),
            }
        }
    }

    fn call(&self, call: &ToolCall, screen: &mut Screen) -> Option<String> {
        self.interrupt.store(false, Ordering::Relaxed);
        let interrupted = || self.interrupt.load(Ordering::Relaxed);
        let result = self.servers.call(&call.name, call.arguments.clone(), &interrupted);
        if matches!(result, Err(Error::Interrupted)) {
            screen.note("stopped; say what its result is, or /undo");
            return None;
        }
        let text = result_text(&result);
        screen.note(&format!("[result] {}", folded(&text)));
        Some(text)
    }
}

/// What a server says about the effects of its tool.
fn effect(hints: Hints) -> &'static str {
    match hints {
        Hints { is_read_only: true, .. } => "said to change nothing",
        Hints { is_destructive: false, .. } => "said to add, and to change nothing that is there",
        _ => "which may change or remove things",
    }
}

/// The beginning of a result, and how much more there is.
fn folded(text: &str) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut lines = text.lines();
    let mut is_whole = true;
    for line in lines.by_ref().take(FOLDED_LINES) {
        let begin: String = line.chars().take(FOLDED_CHARS).collect();
        is_whole &= begin.len() == line.len();
        shown.push(begin);
    }
    if lines.next().is_some() || !is_whole {
        let (count, bytes) = (text.lines().count(), text.len());
        shown.push(format!("... ({count} lines, {bytes} bytes; the model sees all of it)"));
    }
    shown.join("\n")
}

/// A conversation as far as rounds of calls know it.
pub trait Talk {
    /// The first call that waits for its result.
    fn pending_call(&self) -> Option<ToolCall>;
    /// What to tell the model about a call; `None` leaves it to the user. After the last round, `is_over`, calls are not
    /// made any more.
    ///
    /// # Errors
    /// If the input fails.
    fn run_call(&mut self, call: &ToolCall, is_over: bool) -> Result<Option<String>>;
    /// Gives the result of the first open call.
    ///
    /// # Errors
    /// If there is none.
    fn add_result(&mut self, text: &str) -> Result<()>;
    /// Lets the model answer.
    ///
    /// # Errors
    /// If it cannot.
    fn go_on(&mut self) -> Result<Outcome>;
}

/// Answers the calls of the last answer, lets the model go on, and so on until it calls nothing or the user has to answer.
///
/// # Errors
/// As those of `talk`.
pub fn rounds(talk: &mut impl Talk) -> Result<()> {
    for round in 0..=ROUNDS_MAX {
        let mut has_called = false;
        while let Some(call) = talk.pending_call() {
            let Some(text) = talk.run_call(&call, round == ROUNDS_MAX)? else { return Ok(()) };
            talk.add_result(&text)?;
            has_called = true;
        }
        if !has_called || talk.go_on()? != Outcome::Answered {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Map;

    /// A conversation whose answers are written beforehand: for each, the tools that it calls.
    struct Script {
        answers: Vec<Vec<&'static str>>,
        open: Vec<&'static str>,
        told: Vec<String>,
        ends: Outcome,
    }

    impl Script {
        /// The first answer has been given; the others come as the rounds go on.
        fn run(mut answers: Vec<Vec<&'static str>>, ends: Outcome) -> Script {
            let open = answers.remove(0);
            let mut script = Script { answers, open, told: Vec::new(), ends };
            rounds(&mut script).expect("nothing fails");
            script
        }
    }

    impl Talk for Script {
        fn pending_call(&self) -> Option<ToolCall> {
            let name = (*self.open.first()?).to_owned();
            Some(ToolCall { id: None, name, arguments: Map::new() })
        }

        fn run_call(&mut self, call: &ToolCall, is_over: bool) -> Result<Option<String>> {
            let result = if is_over { ENOUGH.into() } else { format!("{} ran", call.name) };
            Ok((call.name != "mine").then_some(result))
        }

        fn add_result(&mut self, text: &str) -> Result<()> {
            self.open.remove(0);
            self.told.push(text.to_owned());
            Ok(())
        }

        fn go_on(&mut self) -> Result<Outcome> {
            if self.answers.is_empty() {
                return Ok(self.ends);
            }
            self.told.push("answer".into());
            self.open = self.answers.remove(0);
            Ok(Outcome::Answered)
        }
    }

    #[test]
    fn the_model_goes_on_until_it_calls_nothing() {
        let script = Script::run(vec![vec!["a", "b"], vec!["c"], vec![], vec!["never"]], Outcome::Answered);
        assert_eq!(script.told, ["a ran", "b ran", "answer", "c ran", "answer"]);
        assert_eq!(script.answers.len(), 1, "an answer without calls ends it");
        assert!(Script::run(vec![vec![]], Outcome::Answered).told.is_empty());
    }

    #[test]
    fn calls_of_other_tools_are_left_to_the_user() {
        let script = Script::run(vec![vec!["a", "mine", "b"], vec![]], Outcome::Answered);
        assert_eq!(
            (script.told.as_slice(), script.open.as_slice()),
            (&["a ran".to_owned()][..], &["mine", "b"][..])
        );
    }

    #[test]
    fn a_stopped_answer_ends_the_rounds_and_keeps_the_results() {
        let script = Script::run(vec![vec!["a"]], Outcome::Stopped);
        assert_eq!(script.told, ["a ran"]);
    }

    #[test]
    fn a_model_that_goes_in_circles_is_told_and_then_stopped() {
        let script = Script::run(vec![vec!["a"]; ROUNDS_MAX + 5], Outcome::Answered);
        let count = |wanted: &str| script.told.iter().filter(|told| *told == wanted).count();
        assert_eq!((count("a ran"), count(ENOUGH), count("answer")), (ROUNDS_MAX, 1, ROUNDS_MAX + 1));
        assert_eq!(script.open, ["a"], "what it calls after that, the user has to answer");
    }

    #[test]
    fn results_are_folded() {
        assert_eq!(folded("one\ntwo"), "one\ntwo");
        assert_eq!(
            folded("1\n2\n3\n4\n5\n"),
            "1\n2\n3\n4\n... (5 lines, 10 bytes; the model sees all of it)"
        );
        let long = "\u{e9}".repeat(FOLDED_CHARS + 1);
        let expected =
            format!("{}\n... (1 lines, 322 bytes; the model sees all of it)", "\u{e9}".repeat(FOLDED_CHARS));
        assert_eq!(folded(&long), expected);
    }

    #[test]
    fn effects_are_said_as_far_as_they_are_known() {
        let hints =
            |is_read_only, is_destructive| Hints { is_read_only, is_destructive, is_idempotent: false };
        assert_eq!(effect(hints(true, false)), "said to change nothing");
        assert_eq!(effect(hints(false, false)), "said to add, and to change nothing that is there");
        assert_eq!(effect(hints(false, true)), "which may change or remove things");
    }
}
