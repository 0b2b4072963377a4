//! Tools of MCP servers in answers of this server.
//!
//! Their tools are offered beside those of the client. When an answer calls nothing but such tools, and all of them are on
//! the allow-list, the calls are run here, their results appended, and the answer goes on, up to a bound of rounds; the
//! client sees one answer and not these calls. Calls of the client's own tools go to the client, as ever, and so does an
//! answer that mixes both, because half of its results could not be sent back.
//!
//! Only what is allowed is offered: nobody sits at a server who could be asked.

use std::sync::Arc;

use tangelo_chat::event::assistant_message;
use tangelo_chat::{Conversation, Event};
use tangelo_mcp::{Allowed, Servers, answer_calls};
use tokio::sync::mpsc::{self, UnboundedSender};

use crate::answer::{AnswerStream, ChoiceUsage, Ending, Piece, TokenLogprob};
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::request::{Format, Input, Request, ToolChoice};

/// Most rounds of calls within one answer.
const ROUNDS_MAX: usize = 16;

/// Servers whose tools are offered, and which of these may be called.
#[derive(Debug)]
pub struct Tools {
    servers: Servers,
    allowed: Allowed,
}

/// How one round ended.
struct Round {
    events: Vec<Event>,
    ending: Ending,
    usage: ChoiceUsage,
    tokens: Vec<TokenLogprob>,
}

impl Tools {
    /// Tools of connected servers.
    pub fn new(servers: Servers, allowed: Allowed) -> Tools {
        Tools { servers, allowed }
    }

    /// Adds the tools to a conversation that may call them; false if there are none to add. A tool of the client comes
    /// before one of the same name.
    fn offer(&self, conversation: &mut Conversation) -> bool {
        let before = conversation.tools.len();
        for tool in self.servers.tools().iter().filter(|tool| self.allowed.allows(tool)) {
            if conversation.tool(tool.name()).is_none() {
                conversation.tools.push(tool.tool().clone());
            }
        }
        conversation.tools.len() > before
    }
}

impl App {
    /// Begins to answer a request, with the tools of MCP servers if there are any and it may use them.
    ///
    /// # Errors
    /// The request is wrong, too many wait already, or the server is shutting down.
    pub async fn ask(&self, caller: &Caller, mut request: Request) -> Result<AnswerStream, ApiError> {
        let Some(tools) = self.tools().filter(|_| may_use_tools(&request)).cloned() else {
            return self.ask_once(caller, request).await;
        };
        let is_offered = match &mut request.input {
            Input::Chat(conversation) => tools.offer(conversation),
            Input::Text(_) | Input::Tokens(_) => false,
        };
        let first = self.ask_once(caller, request.clone()).await?;
        if !is_offered {
            return Ok(first);
        }
        let facts = first.facts().clone();
        let (out, pieces) = mpsc::unbounded_channel();
        let (app, caller) = (self.clone(), *caller);
        tokio::spawn(async move { app.relay(&caller, request, &tools, first, &out).await });
        Ok(AnswerStream::new(facts, pieces, 1))
    }

    /// Passes an answer on, round after round, until one that calls no tool of ours.
    async fn relay(
        &self,
        caller: &Caller,
        mut request: Request,
        tools: &Tools,
        mut stream: AnswerStream,
        out: &UnboundedSender<Piece>,
    ) {
        let mut total = ChoiceUsage::default();
        for round in 0.. {
            let Some(Round { events, ending, usage, tokens }) = pass_on(&mut stream, round == 0, out).await
            else {
                return;
            };
            total += usage;
            let message = assistant_message(events.iter().cloned());
            let results = if ending == Ending::ToolCalls && round < ROUNDS_MAX {
                tokio::select! {
                    results = answer_calls(&tools.servers, &tools.allowed, &message) => results,
                    () = out.closed() => return,
                }
            } else {
                None
            };
            let Some(results) = results else {
                let calls = events.into_iter().filter(is_call);
                calls.for_each(|event| tell(out, Piece::Event { choice: 0, event, tokens: Vec::new() }));
                return tell(out, Piece::Finished { choice: 0, ending, usage: total, tokens });
            };
            if let Input::Chat(conversation) = &mut request.input {
                conversation.messages.push(message);
                conversation.messages.extend(results);
            }
            stream = match self.ask_once(caller, request.clone()).await {
                Ok(stream) => stream,
                Err(error) => return tell(out, Piece::Failed(error)),
            };
        }
    }
}

/// Whether an answer to this request can call tools and go on.
fn may_use_tools(request: &Request) -> bool {
    request.n == 1 && request.tool_choice == ToolChoice::Auto && request.format == Format::Text
}

/// Passes on everything of a round but its calls; `None` if there is nothing more to say.
async fn pass_on(stream: &mut AnswerStream, is_first: bool, out: &UnboundedSender<Piece>) -> Option<Round> {
    let mut events = Vec::new();
    loop {
        let piece = tokio::select! {
            piece = stream.next() => piece?,
            () = out.closed() => return None,
        };
        match piece {
            Piece::Started(_) if !is_first => {}
            Piece::Event { choice, event, tokens } => {
                events.push(event.clone());
                if !is_call(&event) {
                    tell(out, Piece::Event { choice, event, tokens });
                }
            }
            Piece::Finished { ending, usage, tokens, .. } => {
                return Some(Round { events, ending, usage, tokens });
            }
            Piece::Failed(error) => {
                tell(out, Piece::Failed(error));
                return None;
            }
            started => tell(out, started),
        }
    }
}

fn is_call(event: &Event) -> bool {
    !matches!(event, Event::Reasoning(_) | Event::Content(_))
}

/// Whether anybody listens is asked before the next piece.
fn tell(out: &UnboundedSender<Piece>, piece: Piece) {
    let _ = out.send(piece);
}

/// The tools that a server is started with, once they are connected.
pub(crate) type Connected = std::sync::OnceLock<Arc<Tools>>;
