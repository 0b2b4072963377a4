//! One answer: tokens are sampled, read as they come, and shown.

use std::time::{Duration, Instant};

use anyhow::Result;
use tangelo_chat::{Event, Reader, StopStrings, StreamParser, ThinkingBudget};
use tangelo_core::TokenId;
use tangelo_engine::{Finish, Generation, Limits, Logprobs, SamplingParams, Sequence, Step};

use super::{Interrupted, Session};

/// How to answer.
#[derive(Debug)]
pub struct Plan {
    /// How to choose tokens.
    pub params: SamplingParams,
    /// When to stop.
    pub limits: Limits,
    /// Texts that end the answer.
    pub stops: Vec<String>,
    /// Finds reasoning and tool calls; without it all text is content.
    pub parser: Option<StreamParser>,
    /// Ends reasoning that goes on for too long.
    pub budget: Option<ThinkingBudget>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The model chose a stop token.
    StopToken,
    /// The text came to a stop string.
    StopString,
    /// It has as many tokens as were allowed.
    Length,
    /// The context is full.
    ContextFull,
    /// The user stopped it.
    Interrupted,
}

/// An answer and how it came about.
#[derive(Debug)]
pub struct Answer {
    /// Its tokens, without the stop token.
    pub ids: Vec<TokenId>,
    /// What it consists of.
    pub events: Vec<Event>,
    /// What the model thought of each token, if the parameters ask for that.
    pub logprobs: Vec<Logprobs>,
    /// Why it ended.
    pub ending: Ending,
    /// Time to choose the first token, whose logits the prompt's forward gave.
    pub first: Duration,
    /// Time from the first token to the last.
    pub decode: Duration,
    /// The sequence as far as the model has run.
    pub sequence: Sequence,
}

impl Answer {
    /// Tokens per second of decoding; `None` if nothing was decoded.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let decoded = self.ids.len().saturating_sub(1);
        (decoded > 0).then(|| decoded as f64 / self.decode.as_secs_f64().max(f64::MIN_POSITIVE))
    }

    /// Whether the model calls tools.
    pub fn calls_tools(&self) -> bool {
        self.events.iter().any(|e| matches!(e, Event::ToolCallEnd { complete: true, .. }))
    }
}

/// Continues a prefilled sequence, giving every event to `show` as it happens.
///
/// # Errors
/// If no token can be chosen, or `show` fails.
pub fn answer(
    session: &Session,
    sequence: Sequence,
    plan: Plan,
    interrupted: Interrupted<'_>,
    show: &mut dyn FnMut(&Event) -> Result<()>,
) -> Result<Answer> {
    let Plan { params, limits, stops, parser, mut budget } = plan;
    let tokenizer = session.tokenizer();
    let mut generation = Generation::new(sequence, params, limits)?;
    let mut reader = Reader::new(session.tokenizer.clone(), StopStrings::new(stops), parser);
    let (mut events, mut logprobs) = (Vec::new(), Vec::new());
    if let Some(closing) = budget.as_mut().and_then(ThinkingBudget::before_first) {
        generation.force(closing);
    }
    let started = Instant::now();
    let mut times = None;
    let ending = loop {
        if interrupted() {
            break Ending::Interrupted;
        }
        let token = match generation.step(&session.model, &session.cx)? {
            Step::Finished(Finish::StopToken(_)) => break Ending::StopToken,
            Step::Finished(Finish::Length) => break Ending::Length,
            Step::Finished(Finish::ContextFull) => break Ending::ContextFull,
            Step::Token(token) => token,
        };
        let now = started.elapsed();
        times = Some((times.map_or(now, |(first, _)| first), now));
        let bytes = tokenizer.and_then(|t| t.token_bytes(token.id)).unwrap_or_default();
        if !token.is_forced
            && let Some(closing) = budget.as_mut().and_then(|budget| budget.observe(bytes))
        {
            generation.force(closing);
        }
        logprobs.extend(token.logprobs);
        let new = reader.push(token.id);
        new.iter().try_for_each(&mut *show)?;
        events.extend(new);
        if reader.stop_string().is_some() {
            break Ending::StopString;
        }
    };
    let last = reader.finish();
    last.iter().try_for_each(&mut *show)?;
    events.extend(last);
    let ids = generation.answer().to_vec();
    let (first, last) = times.unwrap_or_default();
    Ok(Answer {
        ids,
        events,
        logprobs,
        ending,
        first,
        decode: last.saturating_sub(first),
        sequence: generation.into_sequence(),
    })
}
