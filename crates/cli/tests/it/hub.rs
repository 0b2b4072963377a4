//! `tangelo pull`, `ls` and `rm` against a hub played by the test: what is taken, what survives an interruption,
//! what is said when it goes wrong, and what is never touched.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::fake_hub::{COMMIT, Faults, Hub, sha256};
use crate::program::{arg, fixture};

const MODEL: &str = "org/model-GGUF";
const FILE: &str = "model-Q4_K_M.gguf";

/// A hub and an empty cache for one test.
struct World {
    hub: Hub,
    home: PathBuf,
}

/// Contents that differ at every place, so that a misplaced byte shows.
fn contents(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u64).wrapping_mul(2654435761).to_le_bytes()[1] ^ seed).collect()
}

impl World {
    fn new(test: &str) -> World {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hub").join(test);
        if home.exists() {
            fs::remove_dir_all(&home).expect("what an earlier run left can be removed");
        }
        fs::create_dir_all(&home).expect("the build's temporary folder can be written");
        World { hub: Hub::start(), home }
    }

    /// A hub with one model of one large file.
    fn with_file(test: &str, bytes: &[u8]) -> World {
        let world = World::new(test);
        world.hub.add(MODEL, FILE, bytes, true);
        world
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tangelo"));
        command.args(args).stdin(Stdio::null());
        for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.hub.endpoint).env("HF_HOME", &self.home);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program starts")
    }

    /// Runs and expects success; returns standard output.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs and expects failure with one sentence; returns that sentence.
    fn fails(&self, args: &[&str]) -> String {
        sentence(&self.run(args))
    }

    fn folder(&self) -> PathBuf {
        self.home.join("hub/models--org--model-GGUF")
    }

    fn incomplete(&self, bytes: &[u8]) -> PathBuf {
        self.folder().join(format!("blobs/{}.incomplete", sha256(bytes)))
    }

    fn linked(&self) -> PathBuf {
        self.folder().join("snapshots").join(COMMIT).join(FILE)
    }
}

/// The one line of an error, with exit status 1.
fn sentence(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    assert_eq!(stderr.lines().last(), Some(errors[0]), "{stderr}");
    errors[0].to_string()
}

#[test]
fn the_layout_is_the_hubs_own() {
    let bytes = contents(100_000, 1);
    let world = World::with_file("layout", &bytes);
    world.hub.add(MODEL, "model-Q8_0.gguf", b"other", true);
    let output = world.run(&["pull", MODEL]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is the Q4_K_M file of org/model-GGUF"));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), world.linked().to_string_lossy());
    let folder = world.folder();
    assert_eq!(fs::read_to_string(folder.join("refs/main")).expect("the branch is noted"), COMMIT);
    assert_eq!(fs::read(folder.join("blobs").join(sha256(&bytes))).expect("named by its SHA-256"), bytes);
    #[cfg(unix)]
    {
        let target = fs::read_link(world.linked()).expect("a link");
        assert_eq!(target, Path::new("../../blobs").join(sha256(&bytes)));
    }
    assert_eq!(fs::read(world.linked()).expect("the link leads to the contents"), bytes);
    assert_eq!(fs::read_dir(folder.join("blobs")).expect("a folder").count(), 1, "nothing unfinished stays");
}

#[test]
fn a_second_pull_transfers_nothing() {
    let world = World::with_file("again", &contents(5000, 2));
    world.ok(&["pull", MODEL]);
    assert_eq!(world.hub.take_transfers(FILE), [(None, 5000)]);
    world.ok(&["pull", MODEL]);
    assert_eq!(world.hub.take_transfers(FILE), []);
}

#[test]
fn a_folder_of_safetensors_is_taken_whole_and_nothing_else() {
    let world = World::new("folder");
    let model = "org/model";
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let wanted = [
        ("config.json", "{}"),
        ("tokenizer.json", "{ }"),
        ("chat_template.jinja", "{{ x }}"),
        ("LICENSE", "terms"),
        ("model.safetensors.index.json", index),
        ("model-00001-of-00002.safetensors", "first"),
        ("model-00002-of-00002.safetensors", "second"),
    ];
    for (name, text) in wanted {
        world.hub.add(model, name, text.as_bytes(), name.ends_with(".safetensors"));
    }
    world.hub.add(model, "pytorch_model.bin", b"not wanted", true);
    world.hub.add(model, "onnx/model.safetensors", b"not wanted", true);
    let folder = PathBuf::from(world.ok(&["pull", model]).trim());
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("the snapshot")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut expected: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for (name, text) in wanted {
        assert_eq!(fs::read_to_string(folder.join(name)).expect(name), text);
    }
}

#[test]
fn an_index_that_names_a_missing_shard_is_refused() {
    let world = World::new("bad-index");
    world.hub.add("org/model", "config.json", b"{}", false);
    let index = br#"{"weight_map": {"a": "../../../evil.safetensors"}}"#;
    world.hub.add("org/model", "model.safetensors.index.json", index, false);
    assert!(world.fails(&["pull", "org/model"]).contains("which the model does not have"));
    assert!(
        !world.home.join("hub/models--org--model/refs").exists(),
        "the branch is not moved to half a model"
    );
}

#[test]
fn one_named_file_needs_no_listing() {
    let world = World::with_file("one-file", &contents(100, 3));
    world.hub.add(MODEL, "sub/other.gguf", b"other", true);
    let spelled = format!("{MODEL}:sub/other.gguf@{COMMIT}");
    let path = world.ok(&["pull", &spelled]);
    assert_eq!(fs::read(path.trim()).expect("the file"), b"other");
    assert!(world.hub.state().log.iter().all(|r| !r.path.starts_with("/api/")));
    assert!(!world.folder().join("refs").exists(), "a commit needs no reference");
}

#[test]
fn a_dropped_connection_is_continued_where_it_broke() {
    let bytes = contents(300_000, 4);
    let world = World::with_file("dropped", &bytes);
    world.hub.break_file(MODEL, FILE, Faults { drops: 2, drop_after: 100_000, ..Faults::default() });
    world.ok(&["pull", MODEL]);
    let ranges = [None, Some("bytes=100000-".to_string()), Some("bytes=200000-".to_string())];
    let expected: Vec<_> = ranges.into_iter().map(|range| (range, 100_000)).collect();
    assert_eq!(world.hub.take_transfers(FILE), expected, "each byte travels once");
    assert_eq!(fs::read(world.linked()).expect("whole"), bytes);
}

#[test]
fn a_later_run_continues_an_interrupted_one() {
    let bytes = contents(300_000, 5);
    let world = World::with_file("later", &bytes);
    // One piece arrives, then every connection is dropped before the first byte until the program gives up.
    world.hub.break_file(MODEL, FILE, Faults { drops: 1, drop_after: 120_000, ..Faults::default() });
    let mut first =
        world.command(&["pull", MODEL]).stderr(Stdio::piped()).spawn().expect("the program starts");
    while world.hub.state().files.values().all(|f| f.faults.drops > 0) {
        std::thread::yield_now();
    }
    world.hub.break_file(MODEL, FILE, Faults { drops: u32::MAX, drop_after: 0, ..Faults::default() });
    assert_eq!(first.wait().expect("it ends").code(), Some(1));
    assert_eq!(fs::read(world.incomplete(&bytes)).expect("what arrived is kept"), &bytes[..120_000]);
    assert!(
        !world.linked().exists() && !world.folder().join("refs").exists(),
        "nothing half-written has a name"
    );
    world.hub.break_file(MODEL, FILE, Faults::default());
    world.hub.take_transfers(FILE);
    world.ok(&["pull", MODEL]);
    assert_eq!(world.hub.take_transfers(FILE), [(Some("bytes=120000-".to_string()), 180_000)]);
    assert_eq!(fs::read(world.linked()).expect("whole"), bytes);
}

#[test]
fn a_complete_but_unnamed_download_is_only_named() {
    let bytes = contents(2000, 6);
    let world = World::with_file("unnamed", &bytes);
    fs::create_dir_all(world.folder().join("blobs")).expect("a folder");
    fs::write(world.incomplete(&bytes), &bytes).expect("a file");
    world.ok(&["pull", MODEL]);
    assert_eq!(world.hub.take_transfers(FILE), []);
    assert_eq!(fs::read(world.linked()).expect("whole"), bytes);
}

#[test]
fn a_server_without_ranges_sends_everything_again() {
    let bytes = contents(50_000, 7);
    let world = World::with_file("no-ranges", &bytes);
    let faults = Faults { drops: 1, drop_after: 20_000, ignores_ranges: true, ..Faults::default() };
    world.hub.break_file(MODEL, FILE, faults);
    world.ok(&["pull", MODEL]);
    assert_eq!(fs::read(world.linked()).expect("whole"), bytes);
}

#[test]
fn a_server_without_head_is_asked_for_one_byte() {
    let bytes = contents(5000, 8);
    let world = World::with_file("no-head", &bytes);
    for is_large in [true, false] {
        world.hub.add(MODEL, FILE, &bytes, is_large);
        world.hub.break_file(MODEL, FILE, Faults { refuses_head: true, ..Faults::default() });
        world.ok(&["pull", MODEL]);
        assert_eq!(fs::read(world.linked()).expect("whole"), bytes);
    }
}

#[test]
fn damaged_contents_are_removed_and_named() {
    let bytes = contents(5000, 9);
    let world = World::with_file("damaged", &bytes);
    let other = sha256(b"something else");
    world.hub.break_file(MODEL, FILE, Faults { etag: Some(other.clone()), ..Faults::default() });
    let error = world.fails(&["pull", MODEL]);
    assert!(
        error.contains("arrived damaged") && error.contains(&other) && error.contains(&sha256(&bytes)),
        "{error}"
    );
    assert_eq!(fs::read_dir(world.folder().join("blobs")).expect("a folder").count(), 0);
    assert!(!world.linked().exists());
    // A remainder of an earlier attempt that went bad on disk is found out in the same way, and heals.
    world.hub.break_file(MODEL, FILE, Faults::default());
    fs::write(world.incomplete(&bytes), vec![0; 100]).expect("a file");
    assert!(world.fails(&["pull", MODEL]).contains("arrived damaged"));
    world.ok(&["pull", MODEL]);
    assert_eq!(fs::read(world.linked()).expect("whole"), bytes);
}

#[test]
fn refusals_are_one_sentence_with_a_remedy() {
    let world = World::with_file("refusals", b"x");
    world.hub.add(MODEL, "b-Q8_0.gguf", b"x", true);
    world.hub.add("org/several", "a-Q8_0.gguf", b"x", true);
    world.hub.add("org/several", "b-Q4_0.gguf", b"x", true);
    world.hub.add("org/other", "weights.bin", b"x", true);
    let check = |model: &str, parts: &[&str]| {
        let error = world.fails(&["pull", model]);
        assert!(parts.iter().all(|p| error.contains(p)), "{model}: {error}");
    };
    check("org/nothing", &["org/nothing", "check the model's name"]);
    check("org/model-GGUF:c.gguf", &["no file `c.gguf`", "b-Q8_0.gguf", FILE]);
    check("org/model-GGUF@v9", &["v9", "its revision"]);
    check("org/several", &["several GGUF files", "a-Q8_0.gguf", "b-Q4_0.gguf", "org/several:FILE"]);
    check("org/other", &["not a model this program can run", "weights.bin"]);
    world.hub.state().status = Some(503);
    check(MODEL, &["HTTP status 503", "try again later"]);
    world.hub.state().status = None;
    world.hub.state().token = Some("secret".into());
    check(MODEL, &["refused access", "HF_TOKEN"]);
    let offline =
        sentence(&world.command(&["pull", MODEL]).env("HF_HUB_OFFLINE", "1").output().expect("it starts"));
    assert!(offline.contains("HF_HUB_OFFLINE"), "{offline}");
    // Nothing listens on the discard port.
    let nobody = world.command(&["pull", MODEL]).env("HF_ENDPOINT", "http://127.0.0.1:9").output();
    let error = sentence(&nobody.expect("it starts"));
    assert!(
        error.contains("no connection to http://127.0.0.1:9") && error.contains("check the network"),
        "{error}"
    );
    assert!(!world.home.join("hub").exists(), "a refusal leaves nothing behind");
}

#[test]
fn the_token_is_shown_to_the_hub_only() {
    let world = World::with_file("token", &contents(100, 10));
    world.hub.state().token = Some("secret".into());
    let run = world.command(&["pull", MODEL]).env("HF_TOKEN", "secret").output().expect("it starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    fs::write(world.home.join("token"), "secret\n").expect("the token file of the hub's own tools");
    world.ok(&["pull", MODEL]);
    let state = world.hub.state();
    let shown: Vec<bool> = state.log.iter().map(|r| r.headers.contains_key("authorization")).collect();
    let at_hub: Vec<bool> = state.log.iter().map(|r| !r.at_store).collect();
    assert_eq!(shown, at_hub);
    assert!(at_hub.contains(&false), "the file came from the store");
}

#[test]
fn names_from_the_network_do_not_leave_the_cache() {
    let world = World::new("hostile");
    world.hub.add(MODEL, "../../../../evil.gguf", b"evil", false);
    assert!(world.fails(&["pull", MODEL]).contains("no files"), "names that climb are not listed");
    world.hub.add(MODEL, FILE, b"evil", false);
    world.hub.break_file(MODEL, FILE, Faults { etag: Some("../../../../evil".into()), ..Faults::default() });
    assert!(world.fails(&["pull", MODEL]).contains("unusable ETag"));
    world.hub.state().commit = "../../../evil".into();
    assert!(world.fails(&["pull", MODEL]).contains("is no commit"));
    assert!(world.fails(&["pull", &format!("{MODEL}:{FILE}")]).contains("unusable commit"));
    let climbed = walk(&world.home).into_iter().filter(|p| p.to_string_lossy().contains("evil")).count();
    assert_eq!(climbed, 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_survived() {
    let bytes = contents(5000, 11);
    let world = World::with_file("full", &bytes);
    fs::create_dir_all(world.folder().join("blobs")).expect("a folder");
    std::os::unix::fs::symlink("/dev/full", world.incomplete(&bytes)).expect("a device that is always full");
    let error = world.fails(&["pull", MODEL]);
    assert!(error.contains("no space left") && error.contains("HF_HUB_CACHE"), "{error}");
    assert!(!world.linked().exists());
    fs::remove_file(world.incomplete(&bytes)).expect("the device goes");
    world.ok(&["pull", MODEL]);
    assert_eq!(fs::read(world.linked()).expect("whole"), bytes);
}

#[test]
fn two_programs_share_one_download() {
    let bytes = contents(40_000, 12);
    let world = World::with_file("shared", &bytes);
    world.hub.break_file(MODEL, FILE, Faults { is_slow: true, ..Faults::default() });
    let start = || world.command(&["pull", MODEL]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let (mut a, mut b) = (start().expect("it starts"), start().expect("it starts"));
    assert!(a.wait().expect("it ends").success() && b.wait().expect("it ends").success());
    assert_eq!(world.hub.take_transfers(FILE), [(None, 40_000)]);
    assert_eq!(fs::read(world.linked()).expect("whole"), bytes);
}

#[test]
fn a_moved_branch_keeps_what_did_not_change() {
    let world = World::with_file("moved", &contents(100, 13));
    world.ok(&["pull", MODEL]);
    let moved = "2".repeat(40);
    world.hub.state().commit = moved.clone();
    world.hub.take_transfers(FILE);
    world.ok(&["pull", MODEL]);
    assert_eq!(world.hub.take_transfers(FILE), [], "the contents are the same");
    assert_eq!(fs::read_to_string(world.folder().join("refs/main")).expect("a reference"), moved);
    // Removing the old commit leaves the contents to the new one; removing that takes them too.
    world.ok(&["rm", "--yes", &format!("{MODEL}@{COMMIT}")]);
    assert!(!world.linked().exists());
    assert_eq!(fs::read(world.folder().join("snapshots").join(&moved).join(FILE)).expect("kept").len(), 100);
    world.ok(&["rm", "--yes", &format!("{MODEL}@main")]);
    assert!(!world.folder().exists());
}

#[test]
fn ls_shows_what_is_there() {
    let world = World::with_file("ls", &contents(3_000_000, 14));
    assert!(world.ok(&["ls"]).contains("holds no models; `tangelo pull"));
    world.ok(&["pull", MODEL]);
    let text = world.ok(&["ls"]);
    for part in [MODEL, FILE, "2.86 MiB", "111111111111 (main)"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json: Value = serde_json::from_str(&world.ok(&["ls", "--json"])).expect("one JSON document");
    let model = &json["models"][0];
    assert_eq!(model["model"], MODEL);
    assert_eq!(model["bytes"], 3_000_000);
    assert_eq!(model["incomplete_bytes"], 0);
    assert_eq!(model["revisions"][0]["commit"], COMMIT);
    assert_eq!(model["revisions"][0]["refs"][0], "main");
    assert_eq!(model["revisions"][0]["files"][0]["name"], FILE);
    assert_eq!(model["revisions"][0]["files"][0]["bytes"], 3_000_000);
}

#[test]
fn rm_asks_first() {
    let world = World::with_file("rm-asks", b"x");
    world.ok(&["pull", MODEL]);
    assert!(world.fails(&["rm", MODEL]).contains("--yes"), "nobody answers");
    for (answer, stays) in [("n\n", true), ("\n", true), ("y\n", false)] {
        let mut child = world.command(&["rm", MODEL]);
        let mut child = child
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        child.stdin.take().expect("piped").write_all(answer.as_bytes()).expect("it listens");
        assert!(child.wait().expect("it ends").success());
        assert_eq!(world.folder().exists(), stays, "{answer:?}");
    }
    assert!(world.fails(&["rm", "--yes", MODEL]).contains("is not in the cache"));
}

#[test]
fn rm_stays_inside_the_cache() {
    let world = World::with_file("rm-inside", b"x");
    world.ok(&["pull", MODEL]);
    for climbing in ["../model", "org/..", "org/../../x", "/etc"] {
        let output = world.run(&["rm", "--yes", climbing]);
        assert_eq!(output.status.code(), Some(2), "{climbing}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "), "{climbing}");
    }
    #[cfg(unix)]
    {
        let outside = world.home.join("outside");
        fs::create_dir_all(outside.join("snapshots/x")).expect("a folder");
        fs::write(outside.join("snapshots/x/precious"), "kept").expect("a file");
        std::os::unix::fs::symlink(&outside, world.home.join("hub/models--org--elsewhere")).expect("a link");
        assert!(world.fails(&["rm", "--yes", "org/elsewhere"]).contains("leads out of the cache"));
        // A snapshot entry that points out of the cache: the entry goes, its target stays.
        let stray = world.folder().join("snapshots").join(COMMIT).join("stray.gguf");
        std::os::unix::fs::symlink(outside.join("snapshots/x/precious"), &stray).expect("a link");
        world.ok(&["rm", "--yes", &format!("{MODEL}:stray.gguf")]);
        assert!(!stray.exists() && world.linked().exists());
        assert_eq!(fs::read_to_string(outside.join("snapshots/x/precious")).expect("kept"), "kept");
    }
}

#[test]
fn wrong_usage_is_status_two() {
    let world = World::new("usage");
    for args in [
        &["pull"][..],
        &["pull", "not-an-id"],
        &["pull", "a/b", "--wrong"],
        &["ls", "extra"],
        &["nonsense"],
        &[],
    ] {
        let output = world.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

/// Every file below `folder`.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn data_sets_are_named_downloaded_once_and_learned() {
    let world = World::new("dataset");
    let row = r#"{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]}"#;
    world.hub.add("datasets/org/talk", "data/train.jsonl", format!("{row}\n").as_bytes(), true);
    world.hub.add("datasets/org/talk", "data/test.jsonl", b"not rows", true);
    let tiny = fixture("tiny");
    let teach = |out: &str, data: &str| {
        let out = world.home.join(out);
        let sizes = ["--steps", "1", "--set", "batch.tokens=20"];
        world.ok(&[&["sft", "--model", arg(&tiny), "--data", data, "--out", arg(&out)], &sizes[..]].concat());
        fs::read_to_string(out.join("recipe.toml")).expect("the recipe of the run")
    };
    let recipe = teach("first", "datasets/org/talk");
    assert!(recipe.contains("datasets--org--talk/snapshots/") && recipe.contains("train.jsonl"), "{recipe}");
    assert!(!recipe.contains("test.jsonl"), "{recipe}");
    assert_eq!(world.hub.take_transfers("train.jsonl").len(), 1);
    teach("second", "datasets/org/talk:data/train.jsonl");
    assert_eq!(world.hub.take_transfers("train.jsonl").len(), 0, "it is in the cache");
    assert!(world.ok(&["pull", "datasets/org/talk"]).ends_with("train.jsonl\n"));
    assert!(world.ok(&["ls"]).contains("datasets/org/talk  "));
    let json: Value = serde_json::from_str(&world.ok(&["ls", "--json"])).expect("one JSON document");
    assert_eq!((&json["datasets"][0]["dataset"], &json["models"]), (&json!("datasets/org/talk"), &json!([])));
    world.ok(&["rm", "--yes", "datasets/org/talk"]);
    assert!(world.ok(&["ls"]).contains("holds no models"));
    let missing = ["sft", "--model", arg(&tiny), "--data", "datasets/org/none", "--out", "x"];
    assert!(world.fails(&missing).contains("datasets/org/none"));
}
