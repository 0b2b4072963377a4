//! The conversation and the model's states along it.
//!
//! Every turn renders the whole conversation and continues from the kept state with the most tokens of it, so nothing
//! depends on what was typed before but the text. States are kept where the template lets prompts part: after the system
//! message, after every past answer, before the answer to come (the template removes the reasoning of past answers, so a
//! state inside an answer is of use only where it does not).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use tangelo_chat::budget::MARGIN_TOKENS_DEFAULT;
use tangelo_chat::{
    Conversation, CutKind, Message, Persona, PromptTokens, RenderOptions, Renderer, Role, StreamParser,
    ThinkingBudget, Tool, ToolCall, event,
};
use tangelo_engine::{Owner, Reason, SamplingParams, Sequence, StateTree};
use tangelo_formats::tokenizer::Tokenizer;
use tangelo_serve::template_identity;

use crate::model::bytes_for_state;
use crate::session::{
    Answer, ChatArgs, Ending, Plan, SamplingArgs, Session, answer, sampling_params, to_answer,
};
use crate::terminal::Screen;

/// Most bytes of kept states: some twenty of a model of 4 billion parameters.
const KEPT_BYTES_MAX: u64 = 2 << 30;
/// Part of the available memory that kept states may take.
const KEPT_SHARE: u64 = 4;

/// Whoever types owns all states.
pub(super) const OWNER: Owner = Owner(0);

/// A conversation with one model.
pub struct Dialogue<'s> {
    pub(super) session: &'s Session,
    pub(super) tokenizer: &'s Tokenizer,
    pub(super) renderer: Renderer,
    /// SHA-256 of the template, in hexadecimal digits.
    pub(super) template_identity: String,
    pub(super) conversation: Conversation,
    pub(super) states: StateTree,
    pub(super) thinking: Option<bool>,
    thinking_budget: Option<usize>,
    template_kwargs: Map<String, Value>,
    /// What the assistant says first.
    greeting: Option<String>,
    params: SamplingParams,
    max_tokens: Option<usize>,
    stops: Vec<String>,
    /// Answers so far. Each has its own seed, so that answering again gives another answer.
    answers: u64,
    /// What templates print as today; fixed, so that midnight does not change the prompt.
    pub(super) now_unix_s: Option<i64>,
    pub(super) interrupt: Arc<AtomicBool>,
    last: Option<Report>,
}

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer.
    Answered,
    /// The user stopped it before it began.
    Stopped,
    /// So many tool calls still wait for their result.
    CallsPending(usize),
}

/// What an answer took.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them a kept state stood for.
    pub reused_tokens: usize,
    /// Time to read the rest.
    pub prompt: Duration,
    first: Duration,
    answer_tokens: usize,
    tokens_per_second: Option<f64>,
    ending: Ending,
}

impl Report {
    /// Speeds and context use in one line.
    pub fn status_line(&self, context: usize) -> String {
        let used = self.prompt_tokens + self.answer_tokens;
        let speed = self.tokens_per_second.map_or(String::new(), |s| format!(", {s:.1} tokens/s"));
        let ending = match self.ending {
            Ending::StopToken | Ending::StopString => "",
            Ending::Length => ", cut at the limit of tokens",
            Ending::ContextFull => ", cut because the context is full",
            Ending::Interrupted => ", stopped",
        };
        format!(
            "[{} tokens{speed}, first after {:.2} s, context {used} / {context} ({:.1} %){ending}]",
            self.answer_tokens,
            (self.prompt + self.first).as_secs_f64(),
            100.0 * used as f64 / context as f64,
        )
    }
}

impl<'s> Dialogue<'s> {
    /// A conversation that begins as the persona's do, with the system message and the tools of the command line; what
    /// that says about answers comes before the persona's.
    ///
    /// # Errors
    /// If the model cannot chat, or an argument is wrong.
    pub fn new(
        session: &'s Session,
        chat: &ChatArgs,
        sampling: &SamplingArgs,
        persona: Option<Persona>,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Dialogue<'s>> {
        let available = bytes_for_state(&session.cx, &session.model);
        let budget_bytes = available.map_or(KEPT_BYTES_MAX, |n| (n / KEPT_SHARE).min(KEPT_BYTES_MAX));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let system = chat.system.iter().map(|text| Message::new(Role::System, text));
        let conversation = Conversation { messages: system.collect(), tools: chat.read_tools()? };
        let template = session.chat_template(chat)?;
        let persona = persona.unwrap_or_default();
        let said = sampling.overrides().or(persona.sampling.clone()).or(session.suggested.overrides());
        Ok(Dialogue {
            session,
            tokenizer: session.require_tokenizer()?,
            template_identity: template_identity(template.source()),
            renderer: Renderer::new(template),
            conversation: persona.begin(conversation),
            states: StateTree::new(usize::try_from(budget_bytes).unwrap_or(usize::MAX)),
            thinking: chat.thinking().or(persona.thinking.enabled),
            thinking_budget: chat.thinking_budget.or(persona.thinking.budget),
            template_kwargs: persona.template_kwargs,
            greeting: persona.greeting,
            params: sampling_params(&said, session.model.config().vocab_size)?,
            max_tokens: said.max_tokens,
            stops: said.stop,
            answers: 0,
            now_unix_s: now.and_then(|t| i64::try_from(t.as_secs()).ok()),
            interrupt,
            last: None,
        })
    }

    /// Says something and lets the model answer.
    ///
    /// # Errors
    /// If the prompt cannot be rendered or does not fit; the message is taken back then.
    pub fn ask(&mut self, text: &str, screen: &mut Screen) -> Result<Outcome> {
        let before = self.conversation.messages.len();
        self.conversation.messages.push(Message::new(Role::User, text));
        self.respond(before, screen)
    }

    /// Gives the result of the first open tool call; when none is open any more, the model goes on. If no answer comes
    /// of that, the result is taken back.
    ///
    /// # Errors
    /// If no call is open, and as [`Dialogue::ask`].
    pub fn give_result(&mut self, text: &str, screen: &mut Screen) -> Result<Outcome> {
        let before = self.conversation.messages.len();
        self.add_result(text)?;
        match self.pending_calls().len() {
            0 => self.respond(before, screen),
            open => Ok(Outcome::CallsPending(open)),
        }
    }

    /// Gives the result of the first open tool call, and no more.
    ///
    /// # Errors
    /// If no call is open.
    pub fn add_result(&mut self, text: &str) -> Result<()> {
        let Some(call) = self.pending_call() else { bail!("no tool call is waiting for a result") };
        let message = tangelo_mcp::tool_message(call, text);
        self.conversation.messages.push(message);
        Ok(())
    }

    /// Lets the model answer what is there. If no answer comes of it, nothing is taken back: what tools have done is
    /// done.
    ///
    /// # Errors
    /// As [`Dialogue::ask`].
    pub fn go_on(&mut self, screen: &mut Screen) -> Result<Outcome> {
        self.respond(self.conversation.messages.len(), screen)
    }

    /// Answers the last message again, with the next seed.
    ///
    /// # Errors
    /// If there is none, and as [`Dialogue::ask`].
    pub fn retry(&mut self, screen: &mut Screen) -> Result<Outcome> {
        let question = self.last_question()?.to_owned();
        self.replace(&question, screen)
    }

    /// Puts another message in the place of the last one and everything behind it. If no answer comes of it, the
    /// conversation is as before.
    ///
    /// # Errors
    /// As [`Dialogue::retry`].
    pub fn replace(&mut self, text: &str, screen: &mut Screen) -> Result<Outcome> {
        let before = self.conversation.messages.clone();
        self.undo()?;
        let result = self.ask(text, screen);
        if !matches!(result, Ok(Outcome::Answered)) {
            self.conversation.messages = before;
        }
        result
    }

    /// Takes the last message and everything behind it back. The states before it stay, so that what follows continues
    /// from there.
    ///
    /// # Errors
    /// If there is none.
    pub fn undo(&mut self) -> Result<String> {
        let Some(place) = self.last_question_place() else { bail!("there is no message yet") };
        let removed = self.conversation.messages.len() - place;
        self.conversation.messages.truncate(place);
        Ok(format!("took {removed} messages back; {place} are left"))
    }

    /// Forgets everything but the system message, the tools and the greeting.
    pub fn clear(&mut self) -> &'static str {
        self.conversation.messages.retain(|message| message.role == Role::System);
        let greeting = self.greeting.as_ref().map(|text| Message::new(Role::Assistant, text));
        self.conversation.messages.extend(greeting);
        self.last = None;
        "a new conversation"
    }

    /// What the assistant says before anything is said to it.
    pub fn greeting(&self) -> Option<&str> {
        self.greeting.as_deref()
    }

    /// How the conversation is rendered for the next answer.
    pub(super) fn render_options(&self) -> RenderOptions {
        let kwargs = self.template_kwargs.clone();
        RenderOptions { kwargs, ..to_answer(self.thinking, self.now_unix_s) }
    }

    /// Sets or tells whether the model thinks before it answers.
    pub fn think(&mut self, thinking: Option<bool>) -> String {
        self.thinking = thinking.or(self.thinking);
        match self.thinking {
            Some(true) => "thinking is on".into(),
            Some(false) => "thinking is off".into(),
            None => "thinking is as the model's template has it".into(),
        }
    }

    /// Sets the system message, or removes it.
    pub fn system(&mut self, text: String) -> String {
        self.conversation.messages.retain(|message| message.role != Role::System);
        if text.is_empty() {
            return "no system message".into();
        }
        self.conversation.messages.insert(0, Message::new(Role::System, text));
        "the system message is set".into()
    }

    /// Replaces the tools.
    pub fn set_tools(&mut self, tools: Vec<Tool>) {
        self.conversation.tools = tools;
    }

    /// The tools.
    pub fn tools(&self) -> &[Tool] {
        &self.conversation.tools
    }

    /// Number of messages, the system message included.
    pub fn num_messages(&self) -> usize {
        self.conversation.messages.len()
    }

    /// The user's last message.
    ///
    /// # Errors
    /// If there is none.
    pub fn last_question(&self) -> Result<&str> {
        let place = self.last_question_place();
        let message = place.and_then(|place| self.conversation.messages.get(place));
        match message.and_then(|message| message.content.as_deref()) {
            Some(text) => Ok(text),
            None => bail!("there is no message yet"),
        }
    }

    /// The first tool call that waits for its result.
    pub fn pending_call(&self) -> Option<&ToolCall> {
        self.pending_calls().first()
    }

    /// What the last answer took.
    pub fn last_report(&self) -> Option<&Report> {
        self.last.as_ref()
    }

    /// Number and bytes of kept states.
    pub fn kept(&self) -> (usize, usize) {
        let stats = self.states.stats();
        (stats.states, stats.bytes)
    }

    /// Most tokens of a prompt and its answer.
    pub fn context(&self) -> usize {
        self.session.context
    }

    fn last_question_place(&self) -> Option<usize> {
        self.conversation.messages.iter().rposition(|message| message.role == Role::User)
    }

    /// Results follow their calls in order.
    fn pending_calls(&self) -> &[ToolCall] {
        let messages = &self.conversation.messages;
        let results = messages.iter().rev().take_while(|message| message.role == Role::Tool).count();
        let calls =
            messages.iter().rev().nth(results).map_or(&[][..], |message| message.tool_calls.as_slice());
        calls.get(results..).unwrap_or_default()
    }

    /// Answers the conversation; if nothing comes of it, the messages from `before` on are taken back.
    fn respond(&mut self, before: usize, screen: &mut Screen) -> Result<Outcome> {
        self.interrupt.store(false, Ordering::Relaxed);
        let result = self.try_respond(screen);
        if !matches!(result, Ok(Outcome::Answered)) {
            self.conversation.messages.truncate(before);
        }
        screen.finish()?;
        result
    }

    fn try_respond(&mut self, screen: &mut Screen) -> Result<Outcome> {
        let rendered = self.renderer.render(&self.conversation, &self.render_options())?;
        let prompt = rendered.tokens(self.tokenizer)?;
        self.session.check_prompt(prompt.ids.len())?;
        let plan = self.plan(rendered.starts_in_reasoning)?;
        let started = Instant::now();
        let reused_tokens = self.states.explain(OWNER, &prompt.ids).restored;
        let Some(sequence) = self.prefill(&prompt)? else { return Ok(Outcome::Stopped) };
        let read = started.elapsed();
        let interrupt = Arc::clone(&self.interrupt);
        let interrupted = || interrupt.load(Ordering::Relaxed);
        let answer = answer(self.session, sequence, plan, &interrupted, &mut |e| Ok(screen.show(e)?))?;
        if answer.ids.is_empty() && answer.ending == Ending::Interrupted {
            return Ok(Outcome::Stopped);
        }
        self.last = Some(Report {
            prompt_tokens: prompt.ids.len(),
            reused_tokens,
            prompt: read,
            first: answer.first,
            answer_tokens: answer.ids.len(),
            tokens_per_second: answer.tokens_per_second(),
            ending: answer.ending,
        });
        let Answer { events, sequence, .. } = answer;
        self.states.insert(OWNER, sequence.keep(), Reason::Cut);
        self.conversation.messages.push(event::assistant_message(events));
        Ok(Outcome::Answered)
    }

    fn plan(&mut self, starts_in_reasoning: bool) -> Result<Plan> {
        let dialect = self.renderer.dialect();
        let budget = self.thinking_budget.filter(|_| starts_in_reasoning);
        let budget = budget.map(|n| ThinkingBudget::new(self.tokenizer, dialect, n, MARGIN_TOKENS_DEFAULT));
        let parser = StreamParser::new(dialect, &self.conversation.tools, starts_in_reasoning);
        let seed = self.params.seed.wrapping_add(self.answers);
        let plan = Plan {
            params: SamplingParams { seed, ..self.params.clone() },
            limits: self.session.limits(self.max_tokens),
            stops: self.stops.clone(),
            parser: Some(parser.with_call_ids(format!("call_{}_", self.answers))),
            budget: budget.transpose()?,
        };
        self.answers += 1;
        Ok(plan)
    }

    /// A sequence of the prompt's tokens, from the best kept state on, keeping states on the way; `None` if the user
    /// stopped it.
    pub(super) fn prefill(&mut self, prompt: &PromptTokens) -> Result<Option<Sequence>> {
        let model = &self.session.model;
        let found = self.states.find(model, OWNER, &prompt.ids).sequence;
        let mut sequence = found.unwrap_or_else(|| Sequence::new(model));
        let interrupt = Arc::clone(&self.interrupt);
        let interrupted = || interrupt.load(Ordering::Relaxed);
        // The end of a user's turn and that of (removed) reasoning are a few tokens from other places.
        let is_worth = |kind| !matches!(kind, CutKind::User | CutKind::Reasoning);
        let places = prompt.cuts.iter().filter(|cut| is_worth(cut.kind)).map(|cut| cut.offset);
        for end in places.chain([prompt.ids.len()]) {
            let Some(part) = prompt.ids.get(sequence.position()..end).filter(|part| !part.is_empty()) else {
                continue;
            };
            if interrupted() || !self.session.prefill(&mut sequence, part, &interrupted)? {
                return Ok(None);
            }
            if end < prompt.ids.len() {
                self.states.insert(OWNER, sequence.keep(), Reason::Cut);
            }
        }
        Ok(Some(sequence))
    }
}
