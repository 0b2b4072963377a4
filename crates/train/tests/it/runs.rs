//! Runs: what they write, how they go on, and what they refuse.

use std::fs;
use std::path::{Path, PathBuf};

use tangelo_formats::{Adapter, Checkpoint};
use tangelo_model::{LogitRows, Model, Segment};
use tangelo_ops::Cx;
use tangelo_train::recipe::Stage;
use tangelo_train::{Batch, Recipe, Run};

use crate::fixtures::{batch, cx, path};

/// An empty folder for one test.
fn scratch(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the build's temporary folder can be written");
    folder
}

/// A recipe of a few small steps, with changes.
fn recipe(changes: &[&str]) -> Recipe {
    let text = format!(
        "[model]\nconfig = '{0}/config.json'\ntokenizer = '{0}'\nseed = 3\n\
         [data.orchard]\nfacts = 1\npersona = 2\n\
         [batch]\ntokens = 600\nmicro_tokens = 250\ncontext = 300\n\
         [optimiser]\nmethod = 'muon'\nlr = 3e-3\n\
         [schedule]\nsteps = 7\nwarmup = 2\n\
         [run]\ncheckpoint_every = 2\nkeep = 2\neval_every = 4\neval_examples = 2",
        path("tiny").display()
    );
    let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
    Recipe::parse(&text, &changes).expect("a recipe")
}

/// The columns of a log that do not depend on how fast the machine is.
fn log(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("log.csv")).expect("a log");
    let timeless = |line: &str| {
        let columns: Vec<&str> = line.split(',').collect();
        [&columns[..6], &columns[7..]].concat().join(",")
    };
    text.lines().map(timeless).collect()
}

#[test]
fn a_run_that_is_killed_goes_on_as_if_it_had_not_been() {
    let (cx, folder) = (cx(), scratch("train-resume"));
    let (straight, killed) = (folder.join("straight"), folder.join("killed"));
    let mut run = Run::begin(recipe(&[]), &straight).expect("a new run");
    let losses: Vec<f64> =
        std::iter::from_fn(|| (!run.is_done()).then(|| run.step(&cx).expect("a step").loss)).collect();
    assert_eq!(losses.len(), 7);
    assert!(losses[6] < losses[0] - 0.1, "{losses:?}");

    let mut run = Run::begin(recipe(&[]), &killed).expect("a new run");
    for _ in 0..5 {
        run.step(&cx).expect("a step");
    }
    drop(run);
    // The last checkpoint is of step 4; a half-written one is not taken for a whole one.
    fs::create_dir(killed.join(".step-000006.part")).expect("a folder");
    // Nor is a folder of somebody else's, which stays.
    fs::create_dir(killed.join("step-000009-good")).expect("a folder");
    let mut run = Run::resume(&killed, &[]).expect("a checkpoint");
    assert!(!killed.join(".step-000006.part").exists());
    assert_eq!(run.progress().step, 4);
    while !run.is_done() {
        run.step(&cx).expect("a step");
    }
    assert_eq!(log(&killed), log(&straight));
    assert!(killed.join("step-000009-good").exists());
    for file in ["model.safetensors", "trainer.safetensors", "trainer.json", "config.json"] {
        let of = |run: &Path| fs::read(run.join("step-000007").join(file)).expect("a checkpoint");
        assert!(of(&killed) == of(&straight), "{file}");
    }
    let kept = fs::read_dir(&straight).expect("the run").count();
    assert_eq!(kept, 3 + 2, "the recipe, the log, its picture and two checkpoints");
    let checkpoint = Checkpoint::open(&straight.join("step-000007")).expect("a model");
    Model::load(&cx, &checkpoint).expect("one that every command opens");
}

#[test]
fn a_run_without_a_checkpoint_begins_again_and_micro_batches_do_not_show() {
    let (cx, folder) = (cx(), scratch("train-again"));
    let mut run = Run::begin(recipe(&["run.checkpoint_every=100"]), &folder).expect("a new run");
    let first = run.step(&cx).expect("a step");
    drop(run);
    let mut run = Run::resume(&folder, &[]).expect("the recipe");
    let again = run.step(&cx).expect("a step");
    assert_eq!((again.step, again.loss, again.gradient), (1, first.loss, first.gradient));
    let other = scratch("train-micro");
    let mut run = Run::begin(recipe(&["batch.micro_tokens=1"]), &other).expect("a new run");
    let divided = run.step(&cx).expect("a step");
    assert_eq!(divided.gradient, first.gradient);
}

#[test]
fn what_cannot_go_well_is_said_and_harms_nothing() {
    let (cx, folder) = (cx(), scratch("train-bad"));
    fs::write(folder.join("something"), "mine").expect("a file");
    let error = Run::begin(recipe(&[]), &folder).expect_err("not empty").to_string();
    assert!(error.contains("is not empty") && error.contains("--resume"), "{error}");
    let nowhere = folder.join("nowhere");
    assert!(Run::resume(&nowhere, &[]).expect_err("no run").to_string().contains("nowhere"));
    let change = format!("model.tokenizer={}", folder.display());
    let error = Run::begin(recipe(&[&change]), &folder.join("a")).expect_err("no tokenizer").to_string();
    assert!(error.contains("tokenizer.json") && error.contains("does not exist"), "{error}");

    let astray = folder.join("astray");
    let changes =
        ["optimiser.lr=1e30", "optimiser.clip=0", "optimiser.method=adamw", "run.checkpoint_every=1"];
    let mut run = Run::begin(recipe(&changes), &astray).expect("a new run");
    let error =
        std::iter::repeat_with(|| run.step(&cx)).find_map(|step| step.err()).expect("it fails").to_string();
    assert!(error.contains("in step ") && error.contains("optimiser.lr"), "{error}");
    let mut run = Run::resume(&astray, &[]).expect("the last good checkpoint");
    assert!(run.step(&cx).is_err(), "and it fails in the same step");
}

#[test]
fn a_model_goes_on_learning_from_files() {
    let (cx, folder) = (cx(), scratch("train-files"));
    let (rows, other) = (folder.join("rows.jsonl"), folder.join("other.jsonl"));
    let turn = |question: &str, answer: &str| {
        format!(
            r#"{{"role": "user", "content": "{question}"}}, {{"role": "assistant", "content": "{answer}"}}"#
        )
    };
    let text = format!(
        "{{\"messages\": [{}, {}]}}\n\n{{\"text\": \"{}\"}}\n",
        turn("What is it?", "A lamp."),
        turn("And this?", "A rope."),
        "All that is written here is learned. ".repeat(400)
    );
    fs::write(&rows, &text).expect("a file");
    fs::write(&other, &text).expect("a file");
    let mut recipe = recipe(&["schedule.warmup=1"]);
    recipe.model = tangelo_train::recipe::Model { from: Some(path("tiny")), ..Default::default() };
    recipe.data.files = vec![rows.clone()];
    recipe.data.eval_files = vec![other];
    let mut run = Run::begin(recipe.clone(), &folder.join("run")).expect("a new run");
    let reports: Vec<_> =
        std::iter::from_fn(|| (!run.is_done()).then(|| run.step(&cx).expect("a step"))).collect();
    assert!(reports[6].loss < reports[0].loss - 1.0, "{} to {}", reports[0].loss, reports[6].loss);
    // A long row does not make a long step.
    assert!(reports.iter().all(|report| report.tokens < 600 + 300), "{reports:?}");
    assert!(reports[6].eval_loss.expect("the last step") < reports[3].eval_loss.expect("it was due"));
    for (text, expected) in [
        ("", "has no rows"),
        ("{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", "no assistant message"),
        ("{\"text\": \"x\"}\nhello", "line 2 of"),
    ] {
        fs::write(&rows, text).expect("a file");
        let error = Run::begin(recipe.clone(), &folder.join("bad")).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("rows.jsonl"), "{error}");
    }
}

/// A file with a text per row.
fn texts(path: &Path, count: usize) {
    let row = |row: usize| format!("{{\"text\": \"Row {row} has a text of some length to learn from.\"}}\n");
    fs::write(path, (0..count).map(row).collect::<String>()).expect("a file");
}

#[test]
fn a_run_goes_on_with_changes_that_stay_and_not_with_other_data() {
    let (cx, folder) = (cx(), scratch("train-changed"));
    let (rows, of_run) = (folder.join("rows.jsonl"), folder.join("run"));
    texts(&rows, 5);
    let mut recipe = recipe(&["batch.tokens=30"]);
    recipe.data.files = vec![rows.clone()];
    let mut run = Run::begin(recipe, &of_run).expect("a new run");
    for _ in 0..2 {
        run.step(&cx).expect("a step");
    }
    drop(run);
    texts(&rows, 6);
    let error = Run::resume(&of_run, &[]).expect_err("another order").to_string();
    assert!(error.contains("has 6 rows and had 5"), "{error}");
    texts(&rows, 5);
    fs::remove_file(of_run.join("log.csv")).expect("nobody needs it");
    let changes = ["optimiser.lr=1e-4".to_owned(), "schedule.steps=3".to_owned()];
    let mut run = Run::resume(&of_run, &changes).expect("a checkpoint");
    assert_eq!((run.progress().step, run.step(&cx).expect("a step").step), (2, 3));
    assert!(run.is_done());
    let run = Run::resume(&of_run, &[]).expect("a checkpoint");
    assert_eq!((run.recipe().optimiser.lr, run.recipe().schedule.steps), (1e-4, 3));
}

#[test]
fn a_model_without_a_template_learns_texts_and_no_conversations() {
    let (cx, folder) = (cx(), scratch("train-no-template"));
    let base = base(&folder);
    fs::remove_file(base.join("chat_template.jinja")).expect("it was copied");
    let rows = folder.join("rows.jsonl");
    texts(&rows, 5);
    let mut recipe = recipe(&["schedule.steps=1"]);
    recipe.model = tangelo_train::recipe::Model { from: Some(base), ..Default::default() };
    recipe.data.files = vec![rows.clone()];
    let mut run = Run::begin(recipe.clone(), &folder.join("run")).expect("a new run");
    run.step(&cx).expect("a step");
    assert!(Run::resume(&folder.join("run"), &[]).expect("a checkpoint").is_done());
    let talk = r#"{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}"#;
    fs::write(&rows, talk).expect("a file");
    let error = Run::begin(recipe, &folder.join("talk")).expect_err("no template").to_string();
    assert!(error.contains("line 1 of") && error.contains("no chat template"), "{error}");
}

#[test]
fn answers_that_do_not_fit_are_left_out_and_said_if_there_are_no_others() {
    let (cx, folder) = (cx(), scratch("train-too-long"));
    let rows = folder.join("rows.jsonl");
    let talk = |answer: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "x"}}, {{"role": "assistant", "content": "{answer}"}}]}}"#
        ) + "\n"
    };
    let long = talk(&"all that is said ".repeat(400));
    let mut recipe = recipe(&["batch.tokens=20", "schedule.steps=6"]);
    recipe.data.files = vec![rows.clone()];
    fs::write(&rows, long.repeat(4) + &talk("Yes.")).expect("a file");
    let mut run = Run::begin(recipe.clone(), &folder.join("run")).expect("a new run");
    while !run.is_done() {
        assert!(run.step(&cx).expect("a step").loss.is_finite());
    }
    fs::write(&rows, long).expect("a file");
    let mut run = Run::begin(recipe, &folder.join("other")).expect("a new run");
    let error = run.step(&cx).expect_err("nothing fits").to_string();
    assert!(error.contains("batch.context"), "{error}");
}

#[test]
fn stages_do_what_a_change_of_the_recipe_in_a_pause_does() {
    let (cx, folder) = (cx(), scratch("train-stages"));
    let (staged, paused) = (folder.join("staged"), folder.join("paused"));
    let mut with_stages = recipe(&[]);
    let (lr, prompt_weight) = (Some(1e-3), Some(0.5));
    with_stages.stages.push(Stage { step: 4, lr, prompt_weight, ..Stage::default() });
    let mut run = Run::begin(with_stages, &staged).expect("a new run");
    while !run.is_done() {
        run.step(&cx).expect("a step");
    }
    let mut run = Run::begin(recipe(&[]), &paused).expect("a new run");
    for _ in 0..4 {
        run.step(&cx).expect("a step");
    }
    drop(run);
    let of_run = paused.join("recipe.toml");
    let text = fs::read_to_string(&of_run).expect("the recipe of the run");
    assert!(text.contains("lr = 0.003") && text.contains("prompt_weight = 0.0"), "{text}");
    let text = text.replace("lr = 0.003", "lr = 0.001").replace("prompt_weight = 0.0", "prompt_weight = 0.5");
    fs::write(&of_run, text).expect("the file can be written");
    let mut run = Run::resume(&paused, &[]).expect("a checkpoint");
    while !run.is_done() {
        run.step(&cx).expect("a step");
    }
    let of = |run: &Path| fs::read(run.join("step-000007/model.safetensors")).expect("a checkpoint");
    assert!(of(&staged) == of(&paused));
}

#[test]
fn an_adapter_is_learned_beside_its_model_and_taken_up_again() {
    let (cx, folder) = (cx(), scratch("train-adapter"));
    let (straight, killed) = (folder.join("straight"), folder.join("killed"));
    let mut recipe = recipe(&["optimiser.lr=2e-2"]);
    recipe.model = tangelo_train::recipe::Model { from: Some(path("tiny")), ..Default::default() };
    recipe.adapter =
        Some(tangelo_train::adapter::Settings { rank: 4, dora: true, state: true, ..Default::default() });
    let mut run = Run::begin(recipe.clone(), &straight).expect("a new run");
    let losses: Vec<f64> =
        std::iter::from_fn(|| (!run.is_done()).then(|| run.step(&cx).expect("a step").loss)).collect();
    assert!(losses[6] < losses[0] - 0.1, "{losses:?}");
    let mut run = Run::begin(recipe, &killed).expect("a new run");
    for _ in 0..5 {
        run.step(&cx).expect("a step");
    }
    let mut run = Run::resume(&killed, &[]).expect("a checkpoint");
    while !run.is_done() {
        run.step(&cx).expect("a step");
    }
    for file in
        ["adapter_model.safetensors", "initial_states.safetensors", "adapter_config.json", "trainer.json"]
    {
        let of = |run: &Path| fs::read(run.join("step-000007").join(file)).expect("a checkpoint");
        assert!(of(&killed) == of(&straight), "{file}");
    }
    assert!(!straight.join("step-000007/model.safetensors").exists(), "the model itself has not changed");
}

/// The weights of the fixture in f32, with its tokenizer and template.
fn base(folder: &Path) -> PathBuf {
    let base = folder.join("base");
    fs::create_dir_all(&base).expect("a folder");
    for (from, name) in [
        ("tiny/f32", "model.safetensors"),
        ("tiny/f32", "config.json"),
        ("tiny", "tokenizer.json"),
        ("tiny", "tokenizer_config.json"),
        ("tiny", "chat_template.jinja"),
    ] {
        fs::copy(path(from).join(name), base.join(name)).expect(name);
    }
    base
}

/// All logits of a few sequences in the engine.
fn logits_of(cx: &Cx, checkpoint: &Checkpoint, batch: &Batch) -> Vec<f32> {
    let model = Model::load(cx, checkpoint).expect("a model");
    let mut logits = Vec::new();
    for rows in &batch.sequences {
        let mut state = model.new_state();
        let tokens = &batch.tokens[rows.clone()];
        let segment = Segment { tokens, state: &mut state, logits: LogitRows::All };
        logits.extend(model.forward(cx, &mut [segment]).expect("known tokens").data());
    }
    logits
}

#[test]
fn the_engine_reads_adapters_and_merging_them_changes_nothing() {
    let (cx, folder) = (cx(), scratch("train-adapter-engine"));
    let base = base(&folder);
    for (name, dora, state) in [("lora", false, false), ("dora", true, false), ("state", false, true)] {
        let mut recipe = recipe(&["optimiser.lr=2e-2"]);
        recipe.model = tangelo_train::recipe::Model { from: Some(base.clone()), ..Default::default() };
        recipe.adapter =
            Some(tangelo_train::adapter::Settings { rank: 4, dora, state, ..Default::default() });
        let mut run = Run::begin(recipe, &folder.join(name)).expect("a new run");
        while !run.is_done() {
            run.step(&cx).expect("a step");
        }
        let (network, params) = run.model();
        let batch = batch(&[40, 9], network.config().vocab_size, 1.0);
        let taught = network.logits(&cx, params, &batch);
        let saved = folder.join(name).join("step-000007");
        let plain = Checkpoint::open(&base).expect("a checkpoint");
        let without = logits_of(&cx, &plain, &batch);
        let adapted = plain.with_adapter(Adapter::open(&saved).expect("an adapter")).expect("it fits");
        let beside = logits_of(&cx, &adapted, &batch);
        let largest = beside.iter().fold(1.0f32, |max, x| max.max(x.abs()));
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(distance(&without, &beside) > 0.01 * largest, "{name}: it has learned something");
        match dora {
            false => assert!(beside == taught.data(), "{name}: the engine's logits are the trainer's"),
            true => assert!(distance(&beside, taught.data()) < 1e-5 * largest, "{name}"),
        }
        let merged = folder.join(name).join("merged");
        fs::create_dir(&merged).expect("a folder");
        match tangelo_train::merge(&cx, &base, &saved, &merged) {
            Ok(count) => {
                let learned =
                    params.iter().filter(|(_, param)| param.name.ends_with(".lora_A.weight")).count();
                assert!(!state && count == learned && count > 8, "{name}: {count} of {learned}");
                let merged = Checkpoint::open(&merged).expect("a model");
                assert!(distance(&logits_of(&cx, &merged, &batch), &beside) < 1e-5 * largest, "{name}");
            }
            Err(error) => assert!(state && error.to_string().contains("first states"), "{error}"),
        }
        let other = Checkpoint::open(&path("odd")).expect("another model");
        let error =
            other.with_adapter(Adapter::open(&saved).expect("an adapter")).expect_err("of another model");
        assert!(error.to_string().contains("another model"), "{error}");
    }
}

#[test]
fn adapters_that_do_more_or_are_damaged_are_refused() {
    let (cx, folder) = (cx(), scratch("train-adapter-refused"));
    let mut recipe = recipe(&["schedule.steps=1"]);
    recipe.model = tangelo_train::recipe::Model { from: Some(base(&folder)), ..Default::default() };
    recipe.adapter = Some(tangelo_train::adapter::Settings { rank: 2, ..Default::default() });
    let mut run = Run::begin(recipe, &folder.join("run")).expect("a new run");
    run.step(&cx).expect("a step");
    let saved = folder.join("run/step-000001");
    let config = saved.join("adapter_config.json");
    let text = fs::read_to_string(&config).expect("a file of the adapter");
    assert!(Adapter::open(&saved).is_ok());
    let refused = |from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{text}");
        fs::write(&config, text.replacen(from, to, 1)).expect("the file can be written");
        let error = Adapter::open(&saved).expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    };
    refused("\"LORA\"", "\"IA3\"", "`peft_type` = \"IA3\"");
    refused("\"bias\": \"none\"", "\"bias\": \"all\"", "`bias`");
    refused("\"lora_dropout\"", "\"modules_to_save\": [\"lm_head\"], \"lora_dropout\"", "`modules_to_save`");
    refused("\"lora_dropout\"", "\"init_lora_weights\": \"pissa_niter_4\", \"lora_dropout\"", "pissa");
    refused("\"use_dora\": false", "\"use_dora\": true", "one for each row");
    refused("\"lora_alpha\"", "\"alpha\"", "lora_alpha");
    fs::write(&config, text).expect("the file can be written");
    let weights = saved.join("adapter_model.safetensors");
    let bytes = fs::read(&weights).expect("a file of the adapter");
    fs::write(&weights, &bytes[..bytes.len() / 2]).expect("the file can be written");
    let error = Adapter::open(&saved).expect_err("half a file").to_string();
    assert!(error.contains("adapter_model.safetensors"), "{error}");
    let error = Adapter::open(&folder).expect_err("no adapter").to_string();
    assert!(error.contains("no adapter_config.json"), "{error}");
}
