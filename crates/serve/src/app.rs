//! What handlers share: the model, the thread that computes, and what may be asked of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use tangelo_chat::event::assistant_message;
use tangelo_chat::{Event, Origin, follow_ups, origin_of_token};
use tangelo_core::TokenId;
use tangelo_engine::scheduler::{Branch, Job, Options, Refused, Work};
use tangelo_engine::{Folder, Scheduler, StateTree};
use tangelo_formats::tokenizer::{EncodeOptions, Tokenizer};
use tangelo_model::Model;
use tangelo_ops::Cx;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::answer::{AnswerStream, Facts};
use crate::auth::{Caller, Keys};
use crate::error::ApiError;
use crate::guide::{AfterAnswer, AnswerGuide, Shared};
use crate::metrics::Metrics;
use crate::model::{ModelFacts, Text};
use crate::personas::{Installed, Personas};
use crate::prepare::{Prepared, Prompt, Turn};
use crate::request::{Input, Request};
use crate::rounds::{Connected, Tools};
use crate::router::new_id;
use crate::states::Store;
use crate::worker::Worker;

/// What the server may use, and who may use it.
pub struct Settings {
    /// Who is let in.
    pub keys: Keys,
    /// Bounds of the scheduler.
    pub scheduler: Options,
    /// States that memory has no room for.
    pub folder: Option<Folder>,
    /// States with names; without a store there are none.
    pub states: Option<Store>,
    /// Who else may be asked for.
    pub personas: Personas,
    /// Most tokens of an answer where the request does not say; `None` leaves it to the model's authors, then to the
    /// context.
    pub max_tokens: Option<usize>,
}

/// The server's inside. A clone is the same server.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// What there is one of.
pub(crate) struct Inner {
    pub(crate) facts: ModelFacts,
    pub(crate) text: Text,
    pub(crate) max_tokens: Option<usize>,
    weights: Arc<Model>,
    worker: Arc<Worker>,
    metrics: Arc<Metrics>,
    keys: Keys,
    states: Option<Arc<Store>>,
    personas: Personas,
    scheduler: Options,
    /// One permit per prompt that may be rendered and tokenised at once.
    preparing: Semaphore,
    tools: Connected,
    is_closing: AtomicBool,
}

/// What a text is to the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// Mean over all tokens of the last hidden state, after the final norm, (d).
    pub vector: Vec<f32>,
    /// Number of tokens.
    pub tokens: usize,
}

impl App {
    /// Starts the thread that computes with `model` in `cx`.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        model: Arc<Model>,
        cx: Cx,
        text: Text,
        facts: ModelFacts,
        settings: Settings,
    ) -> std::io::Result<App> {
        let Settings { keys, scheduler: options, folder, states, personas, max_tokens } = settings;
        let tree = StateTree::new(options.state_bytes);
        let tree = match folder {
            Some(folder) => tree.with_folder(folder),
            None => tree,
        };
        let metrics = Arc::new(Metrics::default());
        let scheduler = Scheduler::new(model.clone(), tree, options);
        let worker = Arc::new(Worker::start(scheduler, cx, metrics.clone())?);
        Ok(App(Arc::new(Inner {
            facts,
            text,
            max_tokens,
            weights: model,
            worker,
            metrics,
            keys,
            states: states.map(Arc::new),
            personas,
            scheduler: options,
            preparing: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
            tools: Connected::new(),
            is_closing: AtomicBool::new(false),
        })))
    }

    /// Begins to answer. Whatever is wrong with the request is said here, before anything is answered.
    ///
    /// # Errors
    /// The request is wrong, too many wait already, or the server is shutting down.
    pub(crate) async fn ask_once(&self, caller: &Caller, request: Request) -> Result<AnswerStream, ApiError> {
        let asked = Instant::now();
        let model = match self.persona_of(&request)? {
            Some(persona) => self.name_of(persona.name()),
            None => self.0.facts.name.clone(),
        };
        let facts = Facts { id: new_id(), created_unix_s: now_unix_s(), model };
        self.check_queue()?;
        let request = self.resolve(caller, request).await?;
        let (app, id) = (self.clone(), facts.id.clone());
        let permit = self.0.preparing.acquire().await;
        let prepared = blocking(move || app.0.prepare(&request, &id)).await??;
        drop(permit);
        let (sender, pieces) = mpsc::unbounded_channel();
        let metrics = self.0.metrics.clone();
        let shared = Arc::new(Shared { pieces: sender, has_started: AtomicBool::new(false), asked, metrics });
        let Prepared { prompt, cuts, answers, turn } = prepared;
        let count = answers.len();
        let mut turn = turn;
        let branches = answers.into_iter().enumerate().map(|(choice, (params, limits, mut reading))| {
            reading.after = turn.take().map(|turn| self.after_answer(caller, turn));
            let guide = Box::new(AnswerGuide::new(choice, shared.clone(), reading));
            Branch { params, limits, guide }
        });
        let work = Work::Answer(branches.collect());
        self.submit(Job { owner: caller.owner, prompt, cuts, work }).await?;
        Ok(AnswerStream::new(facts, pieces, count))
    }

    /// Refuses while the queue is full, before any work is done for the request: under overload it is refusals that there
    /// are many of.
    fn check_queue(&self) -> Result<(), ApiError> {
        let waiting = self.0.metrics.engine().0.queued;
        if waiting < self.0.scheduler.queue {
            return Ok(());
        }
        self.0.metrics.refusals.fetch_add(1, Relaxed);
        Err(Refused::QueueFull { waiting }.into())
    }

    /// Hands over a job, counting refusals.
    async fn submit(&self, job: Job) -> Result<(), ApiError> {
        self.0.worker.submit(job).await.inspect_err(|error| {
            if error.status == StatusCode::TOO_MANY_REQUESTS {
                self.0.metrics.refusals.fetch_add(1, Relaxed);
            }
        })
    }

    /// What is to happen when an answer is complete: the prompts that can follow are computed while there is nothing
    /// else to do.
    fn after_answer(&self, caller: &Caller, turn: Turn) -> AfterAnswer {
        let (app, owner) = (self.clone(), caller.owner);
        let runtime = tokio::runtime::Handle::current();
        Box::new(move |events: Vec<Event>| {
            runtime.spawn(async move {
                let inner = app.clone();
                let Ok(prompts) = blocking(move || inner.0.next_prompts(&turn, events)).await else { return };
                for prompt in prompts {
                    let done = Box::new(|_| {});
                    let work = Work::Warm { is_urgent: false, done };
                    let cuts = prompt.cuts.iter().map(|cut| cut.offset).collect();
                    // Nobody waits for it, so it may as well be refused.
                    let _ = app.0.worker.submit(Job { owner, prompt: prompt.ids, cuts, work }).await;
                }
            });
        })
    }

    /// A request that stands for itself: with what its state and its persona begin with.
    async fn resolve(&self, caller: &Caller, request: Request) -> Result<Request, ApiError> {
        let request = self.after_state(caller, request).await?;
        self.in_character(caller.owner, request).await
    }

    /// Puts the tokens or the messages of a named state before those of a request that begins with one.
    async fn after_state(&self, caller: &Caller, mut request: Request) -> Result<Request, ApiError> {
        let Some(name) = request.state.take() else { return Ok(request) };
        let entry = self.begin_from(caller.owner, &name).await?;
        let mut tokens = entry.tokens;
        request.input = match (request.input, entry.conversation) {
            (Input::Chat(mut new), Some(mut conversation)) => {
                conversation.messages.append(&mut new.messages);
                if !new.tools.is_empty() {
                    conversation.tools = new.tools;
                }
                Input::Chat(conversation)
            }
            (Input::Chat(_), None) => {
                let message = format!(
                    "the state {name:?} is of tokens and not of a conversation: continue it with `prompt`, or send the \
                     whole conversation without `state`, which finds the state by its tokens"
                );
                return Err(ApiError::invalid(Some("state".to_owned()), message));
            }
            (Input::Text(text), _) => {
                let app = self.clone();
                let encoded =
                    blocking(move || app.0.text.tokenizer.encode(&text, EncodeOptions::PROMPT)).await?;
                let wrong = |error| ApiError::invalid(Some("prompt".to_owned()), format!("{error}"));
                tokens.extend(encoded.map_err(wrong)?);
                Input::Tokens(tokens)
            }
            (Input::Tokens(more), _) => {
                tokens.extend(more);
                Input::Tokens(tokens)
            }
        };
        Ok(request)
    }

    /// The prompt of a request; see [`Inner::prompt`].
    pub(crate) async fn prompt(
        &self,
        caller: &Caller,
        request: Request,
        is_answered: bool,
    ) -> Result<Prompt, ApiError> {
        let request = self.resolve(caller, request).await?;
        let app = self.clone();
        blocking(move || app.0.prompt(&request, is_answered)).await?
    }

    /// The tokens that a request would begin with.
    ///
    /// # Errors
    /// It cannot be rendered or tokenised.
    pub async fn prompt_tokens(&self, caller: &Caller, request: Request) -> Result<Vec<TokenId>, ApiError> {
        Ok(self.prompt(caller, request, true).await?.ids)
    }

    /// Which part of a conversation a token of its prompt comes from; `None` behind its end.
    pub(crate) async fn origin(&self, turn: Turn, token: usize) -> Result<Option<Origin>, ApiError> {
        let app = self.clone();
        let find = move || {
            let text = &app.0.text;
            let renderer = text.require_renderer()?;
            let Turn { conversation, options } = &turn;
            Ok(origin_of_token(renderer, &text.tokenizer, conversation, options, token)?)
        };
        blocking(find).await?
    }

    /// Number of tokens that a request would begin with.
    ///
    /// # Errors
    /// As [`App::prompt_tokens`].
    pub async fn count_tokens(&self, caller: &Caller, request: Request) -> Result<usize, ApiError> {
        Ok(self.prompt_tokens(caller, request).await?.len())
    }

    /// What a text is to the model.
    ///
    /// # Errors
    /// It is empty or too long, too many wait already, or the server is shutting down.
    pub async fn embed(&self, caller: &Caller, input: Input) -> Result<Embedding, ApiError> {
        let prompt = self.prompt_tokens(caller, Request::new(input)).await?;
        let tokens = prompt.len();
        let (done, embedded) = oneshot::channel();
        let work = Work::Embed(Box::new(move |result| drop(done.send(result))));
        self.submit(Job { owner: caller.owner, prompt, cuts: Vec::new(), work }).await?;
        let gone = |_| ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down");
        let vector = embedded.await.map_err(gone)??;
        Ok(Embedding { vector, tokens })
    }

    /// What is told about the model.
    pub fn model(&self) -> &ModelFacts {
        &self.0.facts
    }

    /// All names that a request may use as its model: the model's own, and those of the model as a persona.
    pub fn model_names(&self) -> Vec<String> {
        let personas = self.0.personas.names().map(|name| self.name_of(name));
        std::iter::once(self.0.facts.name.clone()).chain(personas).collect()
    }

    /// The name of the model as a persona.
    fn name_of(&self, persona: &str) -> String {
        format!("{}:{persona}", self.0.facts.name)
    }

    /// The model of this name, or as the persona of this name; without one, the model there is.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn model_for(&self, name: Option<&str>) -> Result<&ModelFacts, ApiError> {
        self.find_model(name).map(|_| &self.0.facts)
    }

    /// The persona that a model's name stands for, if it does.
    ///
    /// # Errors
    /// There is no model of this name.
    pub(crate) fn find_model(&self, name: Option<&str>) -> Result<Option<&Installed>, ApiError> {
        let Some(name) = name else { return Ok(None) };
        // Ollama's clients add a tag to a name without one.
        let name = name.strip_suffix(":latest").unwrap_or(name);
        let own = self.0.facts.name.as_str();
        if name == own {
            return Ok(None);
        }
        let persona = name.strip_prefix(own).and_then(|rest| rest.strip_prefix(':')).unwrap_or(name);
        self.0.personas.get(persona).map(Some).ok_or_else(|| {
            let names = self.model_names().join(", ");
            let mut error = ApiError::not_found(format!("there is no model {name:?} here, but {names}"));
            error.param = Some("model".to_owned());
            error
        })
    }

    pub(crate) fn personas(&self) -> &Personas {
        &self.0.personas
    }

    /// Offers the tools of MCP servers from now on. Those of a second call are not taken.
    pub fn offer(&self, tools: Tools) {
        let _ = self.0.tools.set(Arc::new(tools));
    }

    /// The tools of MCP servers, if there are any.
    pub(crate) fn tools(&self) -> Option<&Arc<Tools>> {
        self.0.tools.get()
    }

    /// Takes no new work from now on.
    pub(crate) fn close(&self) {
        self.0.is_closing.store(true, Relaxed);
    }

    /// Whether new work is refused.
    pub fn is_closing(&self) -> bool {
        self.0.is_closing.load(Relaxed)
    }

    pub(crate) fn text(&self) -> &Text {
        &self.0.text
    }

    pub(crate) fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.0.text.tokenizer
    }

    pub(crate) fn weights(&self) -> &Arc<Model> {
        &self.0.weights
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.0.worker
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Numbers about the server.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The named states, if they are kept.
    pub(crate) fn states(&self) -> Option<&Arc<Store>> {
        self.0.states.as_ref()
    }

    /// Bytes that all states in memory may have.
    pub(crate) fn state_bytes(&self) -> usize {
        self.0.scheduler.state_bytes
    }
}

impl Inner {
    /// The prompts that can follow an answer.
    fn next_prompts(&self, turn: &Turn, events: Vec<Event>) -> Vec<tangelo_chat::PromptTokens> {
        let Some(renderer) = &self.text.renderer else { return Vec::new() };
        let answer = assistant_message(events);
        let found = follow_ups(renderer, &self.text.tokenizer, &turn.conversation, &turn.options, &answer);
        // A template that refuses the conversation then will refuse it when it comes.
        found.unwrap_or_default()
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("model", &self.0.facts.name).finish_non_exhaustive()
    }
}

/// Does work that may take long or wait for the disk on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::internal("the work was ended by a fault of the server"))
}

/// The present, in seconds since 1970.
pub fn now_unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
