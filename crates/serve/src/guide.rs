//! The guide of one answer: reads its tokens as they are chosen, says how to go on, and sends the pieces out.
//!
//! It runs on the thread that computes, between two tokens, and never waits: pieces go into a channel without bound,
//! which holds at most one answer. That the client has left is seen from the channel's other end.
//!
//! A grammar holds from the end of the reasoning on. Tokens of the reasoning are free; those that close it when its
//! budget is used up are forced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use tangelo_chat::{Event, Reader, StopStrings, StreamParser, ThinkingBudget};
use tangelo_core::TokenId;
use tangelo_engine::{
    Constraint, Ended, Error as EngineError, Finish, Flow, Guide, Logprobs, Report, Token, TokenMask,
};
use tangelo_formats::tokenizer::Tokenizer;
use tokio::sync::mpsc::UnboundedSender;

use crate::answer::{ChoiceUsage, Ending, Piece, Started, TokenAlternative, TokenLogprob};
use crate::error::ApiError;
use crate::metrics::Metrics;

/// What the answers to one request have in common.
#[derive(Debug)]
pub struct Shared {
    /// Where pieces go.
    pub pieces: UnboundedSender<Piece>,
    /// Whether the beginning has been told; all answers begin at once.
    pub has_started: AtomicBool,
    /// When the request came.
    pub asked: Instant,
    /// For counting.
    pub metrics: Arc<Metrics>,
}

/// What is called when an answer is complete, with all that was said.
pub type AfterAnswer = Box<dyn FnOnce(Vec<Event>) + Send>;

/// How one answer is read.
pub struct Reading {
    /// Makes text of tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// Texts that end the answer.
    pub stops: StopStrings,
    /// Finds reasoning and tool calls; without it all text is content.
    pub parser: Option<StreamParser>,
    /// Ends reasoning that goes on for too long.
    pub budget: Option<ThinkingBudget>,
    /// What the content must be like.
    pub constraint: Option<Constraint>,
    /// Most tokens of the answer, within which its grammar is brought to an end.
    pub max_tokens: usize,
    /// Is told a complete answer.
    pub after: Option<AfterAnswer>,
}

/// The guide of one answer.
pub struct AnswerGuide {
    choice: usize,
    shared: Arc<Shared>,
    tokenizer: Arc<Tokenizer>,
    reader: Reader,
    budget: Option<ThinkingBudget>,
    constraint: Option<Constraint>,
    max_tokens: usize,
    after: Option<AfterAnswer>,
    /// Said so far, for `after`.
    events: Vec<Event>,
    /// Not sent yet.
    tokens: Vec<TokenLogprob>,
    calls: usize,
    last_token: Option<Instant>,
    /// Why the answer cannot go on.
    failure: Option<EngineError>,
}

impl AnswerGuide {
    /// The guide of answer number `choice`.
    pub fn new(choice: usize, shared: Arc<Shared>, reading: Reading) -> AnswerGuide {
        let Reading { tokenizer, stops, parser, budget, constraint, max_tokens, after } = reading;
        AnswerGuide {
            choice,
            shared,
            reader: Reader::new(Some(tokenizer.clone()), stops, parser),
            tokenizer,
            budget,
            constraint,
            max_tokens,
            after,
            events: Vec::new(),
            tokens: Vec::new(),
            calls: 0,
            last_token: None,
            failure: None,
        }
    }

    fn send(&mut self, events: Vec<Event>) {
        for event in events {
            if matches!(event, Event::ToolCallEnd { complete: true, .. }) {
                self.calls += 1;
            }
            if self.after.is_some() {
                self.events.push(event.clone());
            }
            let tokens = std::mem::take(&mut self.tokens);
            self.tell(Piece::Event { choice: self.choice, event, tokens });
        }
    }

    /// Nobody may be listening any more; then the next question is whether anybody wants the answer.
    fn tell(&self, piece: Piece) {
        let _ = self.shared.pieces.send(piece);
    }

    fn usage(&self) -> ChoiceUsage {
        let (answer_tokens, reasoning_tokens) = (self.reader.tokens(), self.reader.reasoning_tokens());
        ChoiceUsage { answer_tokens, reasoning_tokens }
    }

    fn note_time(&mut self) {
        let now = Instant::now();
        let metrics = &self.shared.metrics;
        match self.last_token.replace(now) {
            Some(last) => metrics.inter_token.observe(now - last),
            None => metrics.first_token.observe(now - self.shared.asked),
        }
    }

    fn note_logprobs(&mut self, token: &Token) {
        let Some(Logprobs { chosen, top }) = &token.logprobs else { return };
        let bytes = |id: TokenId| self.tokenizer.token_bytes(id).unwrap_or_default().to_vec();
        let top =
            top.iter().map(|&(id, logprob)| TokenAlternative { id, bytes: bytes(id), logprob }).collect();
        self.tokens.push(TokenLogprob { id: token.id, bytes: bytes(token.id), logprob: *chosen, top });
    }

    /// Tells the grammar about a token of the content.
    fn constrain(&mut self, token: &Token) -> Result<bool, EngineError> {
        let Some(constraint) = self.constraint.as_mut().filter(|_| !token.is_forced) else {
            return Ok(false);
        };
        constraint.accept(token.id)?;
        Ok(constraint.is_complete())
    }

    fn finish(&mut self, ending: Ending) {
        let events = self.reader.finish();
        self.send(events);
        let ending = match ending {
            Ending::Stop if self.calls > 0 => Ending::ToolCalls,
            other => other,
        };
        let is_complete = !matches!(ending, Ending::Cancelled | Ending::ContextFull);
        let (tokens, usage) = (std::mem::take(&mut self.tokens), self.usage());
        self.tell(Piece::Finished { choice: self.choice, ending, usage, tokens });
        let after = self.after.take().filter(|_| is_complete);
        if let Some(after) = after {
            after(std::mem::take(&mut self.events));
        }
    }
}

impl Guide for AnswerGuide {
    fn is_wanted(&self) -> bool {
        !self.shared.pieces.is_closed()
    }

    fn started(&mut self, report: &Report) -> Vec<TokenId> {
        self.shared.metrics.answers.fetch_add(1, Relaxed);
        if !self.shared.has_started.swap(true, Relaxed) {
            let &Report { prompt_tokens, cached_tokens, matched_tokens, .. } = report;
            self.tell(Piece::Started(Started { prompt_tokens, cached_tokens, matched_tokens }));
        }
        let closing = self.budget.as_mut().and_then(ThinkingBudget::before_first);
        closing.map(<[TokenId]>::to_vec).unwrap_or_default()
    }

    fn allowed(&mut self) -> Result<Option<&TokenMask>, EngineError> {
        if self.reader.is_reasoning() {
            return Ok(None);
        }
        let left = self.max_tokens.saturating_sub(self.reader.tokens());
        let Some(constraint) = &mut self.constraint else { return Ok(None) };
        constraint.close_within(left)?;
        constraint.allowed().map(Some)
    }

    fn token(&mut self, token: &Token) -> Flow {
        self.note_time();
        self.note_logprobs(token);
        let was_reasoning = self.reader.is_reasoning();
        let bytes = self.tokenizer.token_bytes(token.id).unwrap_or_default();
        let closing = match &mut self.budget {
            Some(budget) if !token.is_forced => budget.observe(bytes).map(<[TokenId]>::to_vec),
            _ => None,
        };
        let is_complete = match was_reasoning {
            true => Ok(false),
            false => self.constrain(token),
        };
        let events = self.reader.push(token.id);
        self.send(events);
        let is_over = self.reader.stop_string().is_some();
        match (is_complete, closing) {
            (Err(error), _) => {
                self.failure = Some(error);
                Flow::Stop
            }
            (Ok(is_complete), _) if is_complete || is_over => Flow::Stop,
            (_, Some(closing)) => Flow::Force(closing),
            _ => Flow::Continue,
        }
    }

    fn ended(&mut self, ended: Ended) {
        let metrics = self.shared.metrics.clone();
        metrics.duration.observe(self.shared.asked.elapsed());
        metrics.reasoning_tokens.fetch_add(self.reader.reasoning_tokens() as u64, Relaxed);
        let stop_string = self.reader.stop_string().map(str::to_owned);
        let ended = match self.failure.take() {
            Some(error) => Ended::Failed(error),
            None => ended,
        };
        match ended {
            Ended::Finished(Finish::StopToken(_)) => self.finish(Ending::Stop),
            Ended::Finished(Finish::Length) => self.finish(Ending::Length),
            Ended::Finished(Finish::ContextFull) => self.finish(Ending::ContextFull),
            Ended::Stopped => self.finish(stop_string.map_or(Ending::Stop, Ending::StopString)),
            Ended::Cancelled => {
                metrics.cancellations.fetch_add(1, Relaxed);
                self.finish(Ending::Cancelled);
            }
            Ended::Failed(error) => {
                metrics.failures.fetch_add(1, Relaxed);
                self.tell(Piece::Failed(ApiError::from(error)));
            }
        }
    }
}
