//! A server in this process, with the miniature model of the fixtures.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tangelo_chat::Renderer;
use tangelo_engine::{Folder, context_bytes, scheduler};
use tangelo_formats::template::ChatTemplate;
use tangelo_formats::tokenizer::Tokenizer;
use tangelo_formats::{Checkpoint, TokenizerSource};
use tangelo_mcp::{Allowed, Config, Servers};
use tangelo_model::Model;
use tangelo_ops::{Cx, Simd};
use tangelo_serve::personas::Source;
use tangelo_serve::rounds::Tools;
use tangelo_serve::{App, Keys, ModelFacts, Options, Personas, Settings, Store, Text};
use tokio::sync::mpsc;

use crate::client::{Response, send};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a test asks for.
pub struct Plan {
    pub context: usize,
    pub keys: Vec<&'static str>,
    pub parallel: usize,
    pub queue: usize,
    pub state_folder: Option<PathBuf>,
    pub personas: Vec<Source>,
    pub tools: Option<(Config, Allowed)>,
    pub drain_time: Duration,
    pub body_bytes_max: usize,
    pub body_time: Duration,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            context: 4096,
            keys: Vec::new(),
            parallel: 4,
            queue: 16,
            state_folder: None,
            personas: Vec::new(),
            tools: None,
            drain_time: PATIENCE,
            body_bytes_max: 1 << 20,
            body_time: PATIENCE,
        }
    }
}

/// A running server. Dropped, it is told to stop twice, which ends it at once.
pub struct Server {
    pub address: SocketAddr,
    stop: mpsc::UnboundedSender<()>,
    thread: Option<JoinHandle<()>>,
}

/// A folder that is removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(test: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("tangelo-serve-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The miniature model of the fixtures.
pub struct Opened {
    pub checkpoint: Checkpoint,
    pub cx: Cx,
    pub model: Model,
    pub text: Text,
}

impl Opened {
    pub fn new() -> Opened {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny");
        let checkpoint = Checkpoint::open(&folder).expect("the miniature model");
        let TokenizerSource::Json(json) = checkpoint.tokenizer_source() else {
            panic!("it has a tokenizer.json")
        };
        let json = std::fs::read(json).expect("it can be read");
        let tokenizer = Tokenizer::from_json(&json).expect("a tokenizer");
        let template = checkpoint.chat_template().expect("readable");
        let template = ChatTemplate::require(template).expect("a template");
        let cx = Cx::new(1, Simd::best()).expect("a context");
        let model = Model::load(&cx, &checkpoint).expect("weights");
        let text = Text::new(&checkpoint, tokenizer, Some(Renderer::new(template)));
        Opened { checkpoint, cx, model, text }
    }
}

fn open(plan: &Plan) -> App {
    let Opened { checkpoint, cx, model, text } = Opened::new();
    let context = plan.context;
    let state_bytes = usize::try_from(context_bytes(&model, context)).expect("small") * 8;
    let facts = ModelFacts::new("tiny".to_owned(), &checkpoint, &model, &text, context, 0);
    let personas = Personas::new(plan.personas.clone(), &text, &model).expect("personas");
    let model = Arc::new(model);
    let budget = 1 << 30;
    let settings = Settings {
        keys: Keys::new(plan.keys.iter().map(|key| (*key).to_owned())),
        scheduler: scheduler::Options {
            context,
            parallel: plan.parallel,
            queue: plan.queue,
            prefill_tokens: 128,
            mixed_tokens: 32,
            state_bytes,
        },
        folder: plan
            .state_folder
            .as_ref()
            .map(|path| Folder::open(path, budget, model.clone()).expect("a folder")),
        states: plan.state_folder.as_ref().map(|path| Store::open(path, budget).expect("a folder")),
        personas,
        max_tokens: None,
    };
    App::start(model, cx, text, facts, settings).expect("a thread")
}

impl Server {
    pub fn start(plan: Plan) -> Server {
        let app = open(&plan);
        let listener = tangelo_serve::bind(([127, 0, 0, 1], 0).into(), false, false).expect("a port");
        let address = listener.local_addr().expect("an address");
        let Plan { body_bytes_max, body_time, drain_time, tools, .. } = plan;
        let options = Options { body_bytes_max, body_time, ..Options::default() };
        let (stop, mut told) = mpsc::unbounded_channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.expect("a runtime");
            let told = async move || {
                // Without a sender nobody says anything any more.
                if told.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
            };
            let served = runtime.block_on(async {
                if let Some((config, allowed)) = tools {
                    let servers = Servers::connect(&config).await.expect("MCP servers");
                    app.offer(Tools::new(servers, allowed));
                }
                tangelo_serve::serve(listener, app, &options, drain_time, told).await
            });
            served.expect("it ends in peace");
        });
        Server { address, stop, thread: Some(thread) }
    }

    /// Tells the server to stop.
    pub fn stop(&self) {
        self.stop.send(()).expect("it listens");
    }

    /// Waits for its end.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not panic");
        }
    }

    pub fn get(&self, path: &str) -> Response {
        send(self.address, "GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path, &[], body)
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        let headers = [&[("Content-Type", "application/json")], headers].concat();
        send(self.address, method, path, &headers, body.to_string().as_bytes())
    }

    /// A number of `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }

    /// Waits until a number of `/metrics` is what it should be.
    pub fn wait_for(&self, name: &str, value: u64) {
        let started = Instant::now();
        while self.metric(name) != value {
            assert!(started.elapsed() < PATIENCE, "{name} is {} and not {value}", self.metric(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for _ in 0..2 {
            let _ = self.stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}
