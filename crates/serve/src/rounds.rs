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

    /// Ends the servers, as [`Servers::close`].
    pub(crate) async fn close(&self) {
        self.servers.close().await;
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
        tokio::spawn(async move {
            let ask = |request: Request| app.ask_once(&caller, request);
            relay(request, &tools, first, ask, &out).await;
        });
        Ok(AnswerStream::new(facts, pieces, 1))
    }
}

/// Passes an answer on, round after round, until one that calls no tool of ours. `ask` begins the next round.
async fn relay<Asked: Future<Output = Result<AnswerStream, ApiError>>>(
    mut request: Request,
    tools: &Tools,
    mut stream: AnswerStream,
    ask: impl Fn(Request) -> Asked,
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
        stream = match ask(request.clone()).await {
            Ok(stream) => stream,
            Err(error) => return tell(out, Piece::Failed(error)),
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Facts, Started};
    use serde_json::json;
    use std::sync::Mutex;
    use tangelo_chat::{Message, Role, Tool};
    use tangelo_mcp::Config;

    /// Answers what a client asks; every call of a tool is answered with its number.
    const SERVER: &str = r#"
        calls=0
        while read -r line; do
            id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
            case "$line" in
            *'"method":"initialize"'*)
                result='{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
            *'"method":"tools/list"'*)
                result='{"tools":[{"name":"ours","inputSchema":{"type":"object"}},{"name":"locked","inputSchema":{"type":"object"}}]}' ;;
            *'"method":"tools/call"'*)
                calls=$((calls + 1))
                result='{"content":[{"type":"text","text":"result '$calls'"}]}' ;;
            *) continue ;;
            esac
            printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
        done
    "#;

    /// What a model says in one round: words, then calls of these tools.
    fn round(words: &str, calls: &[&str]) -> AnswerStream {
        let (sender, pieces) = mpsc::unbounded_channel();
        tell(&sender, Piece::Started(Started { prompt_tokens: 10, ..Started::default() }));
        let say = |event| tell(&sender, Piece::Event { choice: 0, event, tokens: Vec::new() });
        say(Event::Content(words.to_owned()));
        for (index, name) in calls.iter().enumerate() {
            let id = format!("{words}-{index}");
            say(Event::ToolCallStart { index, id, name: (*name).to_owned() });
            say(Event::ToolCallArguments { index, json_delta: "{}".to_owned() });
            say(Event::ToolCallEnd { index, arguments: serde_json::Map::new(), complete: true });
        }
        let ending = if calls.is_empty() { Ending::Stop } else { Ending::ToolCalls };
        let usage = ChoiceUsage { answer_tokens: 3, reasoning_tokens: 1 };
        tell(&sender, Piece::Finished { choice: 0, ending, usage, tokens: Vec::new() });
        AnswerStream::new(Facts { id: words.to_owned(), created_unix_s: 0, model: "m".to_owned() }, pieces, 1)
    }

    /// What a client gets of these rounds, as text, and the conversations that the model was asked to continue.
    fn relayed(rounds: Vec<Result<AnswerStream, ApiError>>) -> (String, Vec<Vec<Message>>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let config = json!({"mcpServers": {"s": {"command": "sh", "args": ["-c", SERVER]}}}).to_string();
            let config = Config::parse(&config, &|_| None).expect("a configuration");
            let servers = Servers::connect(&config).await.expect("it answers");
            let tools = Tools::new(servers, Allowed::new(["ours".to_owned()]));
            let theirs = Tool::new(json!({"function": {"name": "theirs"}}), 0).expect("a tool");
            let mut conversation =
                Conversation { messages: vec![Message::new(Role::User, "Hi")], tools: vec![theirs] };
            assert!(tools.offer(&mut conversation));
            let names: Vec<&str> = conversation.tools.iter().map(Tool::name).collect();
            assert_eq!(names, ["theirs", "ours"], "what is not allowed is not offered");
            let mut rounds = rounds.into_iter();
            let first = rounds.next().expect("a round").expect("it begins");
            let (rounds, asked) = (Mutex::new(rounds), Mutex::new(Vec::new()));
            let ask = |request: Request| {
                let Input::Chat(conversation) = request.input else { panic!("a conversation") };
                asked.lock().expect("no panic").push(conversation.messages);
                std::future::ready(rounds.lock().expect("no panic").next().expect("one more round"))
            };
            let (out, mut pieces) = mpsc::unbounded_channel();
            relay(Request::new(Input::Chat(conversation)), &tools, first, ask, &out).await;
            drop(out);
            let mut seen = Vec::new();
            while let Some(piece) = pieces.recv().await {
                seen.push(match piece {
                    Piece::Started(_) => "started".to_owned(),
                    Piece::Event { event: Event::Content(text), .. } => text,
                    Piece::Event { event: Event::ToolCallStart { name, .. }, .. } => format!("call {name}"),
                    Piece::Event { .. } => "..".to_owned(),
                    Piece::Finished { ending, usage, .. } => format!("{ending:?} {}", usage.answer_tokens),
                    Piece::Failed(error) => format!("failed: {}", error.message),
                });
            }
            (seen.join(" | "), asked.into_inner().expect("no panic"))
        })
    }

    #[test]
    fn calls_of_allowed_tools_are_answered_and_the_answer_goes_on() {
        let rounds =
            vec![Ok(round("one", &["ours", "ours"])), Ok(round("two", &["ours"])), Ok(round("three", &[]))];
        let (seen, asked) = relayed(rounds);
        assert_eq!(seen, "started | one | two | three | Stop 9");
        let texts = |messages: &[Message]| {
            messages.iter().map(|m| m.content.clone().unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(texts(&asked[0]), ["Hi", "one", "result 1", "result 2"]);
        assert_eq!(texts(&asked[1])[4..], ["two", "result 3"]);
        assert_eq!(asked[0][1].tool_calls.len(), 2);
        assert_eq!(asked[0][2].tool_call_id.as_deref(), Some("one-0"));
    }

    #[test]
    fn calls_of_the_clients_tools_go_to_the_client() {
        for calls in [&["theirs"][..], &["ours", "theirs"], &["locked"], &["unheard_of"]] {
            let (seen, asked) = relayed(vec![Ok(round("one", calls))]);
            let told: String = calls.iter().map(|name| format!(" | call {name} | .. | ..")).collect();
            assert_eq!(seen, format!("started | one{told} | ToolCalls 3"));
            assert!(asked.is_empty(), "nothing was run");
        }
    }

    #[test]
    fn a_model_that_calls_without_end_is_stopped_and_what_fails_is_said() {
        let endless = (0..=ROUNDS_MAX).map(|_| Ok(round("again", &["ours"]))).collect();
        let (seen, asked) = relayed(endless);
        assert_eq!(asked.len(), ROUNDS_MAX);
        assert!(seen.ends_with(" | again | call ours | .. | .. | ToolCalls 51"), "{seen}");
        let full = ApiError::internal("no room");
        let (seen, _) = relayed(vec![Ok(round("one", &["ours"])), Err(full)]);
        assert_eq!(seen, "started | one | failed: no room");
    }
}
