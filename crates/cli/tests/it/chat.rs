//! `tangelo chat` from end to end: what is typed comes from a pipe, so there are no escape codes and no line editing.
//!
//! Speeds are in the status lines, so transcripts hold standard output only; standard error is searched for what counts.

use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::program::{arg, fixture, output, refused, run, scratch};
use serde_json::{Value, json};

/// Types these lines; returns what goes to standard output and to standard error.
#[track_caller]
fn chat(args: &[&str], lines: &[&str]) -> (String, String) {
    let model = fixture("tiny");
    let args = [&["chat", arg(&model), "-n", "20"], args].concat();
    let typed: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let output = output(&args, typed.as_bytes());
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(!out.contains('\x1b') && !err.contains('\x1b'), "no escape codes without a terminal");
    (out, err)
}

/// Answers without reasoning, always the most probable tokens: the same wherever they stand in a conversation.
const PLAIN: [&str; 2] = ["--greedy", "--no-think"];

/// The number before ` of them from a kept state` in every `/stats`.
fn reused(err: &str) -> Vec<usize> {
    let numbers = err.lines().filter_map(|line| line.strip_prefix("last prompt "));
    let number = |line: &str| line.split(", ").nth(1).and_then(|part| part.split(' ').next()?.parse().ok());
    numbers.map(|line| number(line).expect("a number")).collect()
}

#[test]
fn a_seeded_conversation_is_the_recorded_one() {
    let lines =
        ["Hello", "Draw \\", "a box.", "\"\"\"", "Draw", "another.", "\"\"\"", "/retry", "/edit A circle."];
    let (out, err) = chat(&["--seed", "3", "--system", "Be brief.", "--no-think"], &lines);
    assert_eq!(out, include_str!("transcripts/chat.txt"));
    let statuses: Vec<&str> = err.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(statuses.len(), 5, "{err}");
    assert!(statuses.iter().all(|line| line.contains(" tokens/s, first after ")), "{err}");
    assert!(statuses[0].contains(", context 55 / 4096 (1.3 %)"), "{err}");
}

#[test]
fn a_turn_reads_only_what_is_new_and_undo_goes_back() {
    let second = ["Hello", "/stats", "Second", "/stats"];
    let (out, err) = chat(&PLAIN, &second);
    let answers: Vec<&str> = out.split_inclusive('\n').collect();
    let undone = [
        "Hello",
        "Something else",
        "/undo",
        "Second",
        "/stats",
        "/undo",
        "/undo",
        "/undo",
        "Hello",
        "/stats",
    ];
    let (again, err_again) = chat(&PLAIN, &undone);
    assert!(
        again.ends_with(&out[..out.len() - answers.last().map_or(0, |a| a.len())]),
        "the first answer again"
    );
    assert!(again.contains(answers.last().expect("two answers")), "the second answer again");
    assert!(err_again.contains("took 2 messages back; 2 are left"), "{err_again}");
    assert!(err_again.contains("error: there is no message yet"), "{err_again}");
    let (straight, back) = (reused(&err), reused(&err_again));
    assert_eq!(straight[0], 0);
    // 26 tokens come before the first answer. What the model wrote at random, the tokenizer would write otherwise.
    assert_eq!(straight[1], 26, "{err}");
    assert!(back[0] > straight[1], "after /undo the first answer, read once, is not read again: {err_again}");
    assert_eq!(back[1], 26, "{err_again}");
}

#[test]
fn reasoning_is_shown_apart_and_forgotten_by_the_next_prompt() {
    let (out, err) =
        chat(&["--seed", "3"], &["/think", "Hello", "/think off", "Again", "/think on", "/think maybe"]);
    assert!(err.starts_with("thinking is as the model's template has it\nen"), "{err}");
    assert!(err.contains("thinking is off") && err.contains("thinking is on"), "{err}");
    assert!(err.contains("/think is on or off, not `maybe`"), "{err}");
    assert!(!out.is_empty() && !out.starts_with("en"), "{out}");
    let (hidden, hidden_err) = chat(&["--seed", "3", "--hide-reasoning"], &["Hello"]);
    assert!(out.starts_with(&hidden) && hidden_err.starts_with('['), "{hidden_err}");
}

#[test]
fn a_saved_conversation_goes_on_with_the_same_bits_and_reads_nothing_again() {
    let folder = scratch("chat-save");
    let (talk, state) = (folder.join("talk.json"), folder.join("talk.state"));
    let save = format!("/save {}", arg(&talk));
    let ask = ["Hello", "Draw a box.", &save, "And now?", "/stats"];
    let (out, err) = chat(&PLAIN, &ask);
    assert!(err.contains("saved 4 messages, and the state of "), "{err}");
    let last = out.split_inclusive('\n').next_back().expect("an answer").to_owned();
    let load = [&PLAIN[..], &["--load", arg(&talk)]].concat();
    let (continued, err_loaded) = chat(&load, &["And now?", "/stats"]);
    assert_eq!(continued, last);
    assert!(err_loaded.starts_with("loaded 4 messages, and the state of "), "{err_loaded}");
    assert_eq!(reused(&err), reused(&err_loaded), "as much is known as if the program had never ended");

    // Without the state, with a damaged one and with that of other messages: the same answer, by reading again.
    let good = fs::read(&state).expect("the state");
    fs::remove_file(&state).expect("it was there");
    let reread = |reason: &str| {
        let (out, err) = chat(&load, &["And now?"]);
        assert_eq!(out, last);
        assert!(err.contains("they will be read again, because ") && err.contains(reason), "{err}");
    };
    reread("does not exist");
    let mut damaged = good.clone();
    *damaged.last_mut().expect("bytes") ^= 1;
    fs::write(&state, damaged).expect("a file");
    reread("SHA-256");
    let elsewhere = folder.join("other.json");
    chat(&PLAIN, &["Something else", &format!("/save {}", arg(&elsewhere))]);
    fs::copy(elsewhere.with_extension("state"), &state).expect("a copy");
    reread("belongs to other messages");
    fs::write(&state, good).expect("a file");
    let template = folder.join("template.jinja");
    let source = fs::read_to_string(fixture("tiny/chat_template.jinja")).expect("the template");
    fs::write(&template, format!("{source}{{#- the same, but for this -#}}")).expect("a file");
    let (_, err) = chat(&[&load[..], &["--chat-template", arg(&template)]].concat(), &[]);
    assert!(err.contains("was made with another chat template"), "{err}");
}

#[test]
fn files_that_are_no_conversations_are_refused_and_change_nothing() {
    let folder = scratch("chat-files");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).expect("a file");
        arg(&path).to_owned()
    };
    let (no_json, no_talk) = (write("a.json", "hello"), write("b.json", "{\"message\": 1}"));
    let (newer, bad) = (
        write("c.json", "{\"version\": 9, \"messages\": []}"),
        write("d.json", "{\"messages\": [{\"content\": \"x\"}]}"),
    );
    let loads = [&no_json, &no_talk, &newer, &bad].map(|path| format!("/load {path}"));
    let lines: Vec<&str> = ["Hello"].into_iter().chain(loads.iter().map(String::as_str)).collect();
    let nowhere = format!("/save {}", arg(&folder.join("none/x.json")));
    let state = format!("/save {}", arg(&folder.join("x.state")));
    let (out, err) = chat(&PLAIN, &[&lines[..], &[&nowhere, &state, "/load", "/stats", "Second"]].concat());
    for expected in [
        "a.json is not JSON",
        "b.json is not a saved conversation",
        "c.json has version 9",
        "d.json",
        "is in a folder that does not exist",
        "would be the name of the state",
        "/load needs the name of a file",
        "2 messages; ",
    ] {
        assert!(err.contains(expected), "{expected}: {err}");
    }
    assert_eq!(out, chat(&PLAIN, &["Hello", "Second"]).0);
    let refusal = format!("{} is not JSON", no_json);
    refused(&["chat", arg(&fixture("tiny")), "--load", &no_json], 1, &refusal);
}

/// A saved conversation in which the model has called two tools.
fn with_calls(path: &Path) {
    let call = |id: &str, city: &str| {
        let arguments = json!({ "city": city }).to_string();
        json!({ "id": id, "type": "function", "function": { "name": "weather", "arguments": arguments } })
    };
    let talk = json!({
        "messages": [
            { "role": "user", "content": "Rome or Oslo?" },
            { "role": "assistant", "content": null, "tool_calls": [call("a", "Rome"), call("b", "Oslo")] },
        ],
        "tools": [{ "type": "function", "function": { "name": "weather", "parameters": {
            "type": "object", "properties": { "city": { "type": "string" } } } } }],
    });
    fs::write(path, talk.to_string()).expect("a file");
}

#[test]
fn tool_calls_wait_for_their_results() {
    let folder = scratch("chat-tools");
    let (talk, saved) = (folder.join("talk.json"), folder.join("saved.json"));
    with_calls(&talk);
    let load = [&PLAIN[..], &["--load", arg(&talk)]].concat();
    let save = format!("/save {}", arg(&saved));
    let (out, err) =
        chat(&load, &["/tools", "/result 31 C", "/stats", "2 C", &save, "/result late", "/tools off"]);
    assert!(err.contains("tools: weather") && err.contains("1 more results are needed"), "{err}");
    assert!(
        err.contains("3 messages; ") && err.contains("no tool call is waiting") && err.contains("no tools"),
        "{err}"
    );
    assert_eq!(out.lines().count(), 1, "one answer, after the second result: {out}");
    let saved: Value = serde_json::from_slice(&fs::read(&saved).expect("the file")).expect("JSON");
    let message = |i: usize| &saved["messages"][i];
    assert_eq!((&message(2)["role"], &message(2)["content"]), (&json!("tool"), &json!("31 C")));
    assert_eq!((&message(2)["tool_call_id"], &message(2)["name"]), (&json!("a"), &json!("weather")));
    assert_eq!((&message(3)["tool_call_id"], &message(3)["content"]), (&json!("b"), &json!("2 C")));
    assert_eq!(message(4)["role"], "assistant");
    assert_eq!(saved["tools"][0]["function"]["name"], "weather");
}

#[test]
fn settings_change_the_prompt_and_clear_keeps_them() {
    let folder = scratch("chat-settings");
    let saved = folder.join("x.json");
    let save = format!("/save {}", arg(&saved));
    let lines =
        ["/system Be brief.", "Hello", "/clear", "/stats", "Hello", &save, "/system", "/stats", "/undo 3"];
    let (out, err) = chat(&PLAIN, &lines);
    let answers: Vec<&str> = out.lines().collect();
    assert_eq!((answers.len(), answers[0]), (2, answers[1]), "the same system message and question: {out}");
    assert!(
        err.contains("1 messages; ") && err.contains("2 messages; ") && err.contains("no system message"),
        "{err}"
    );
    assert!(err.contains("/undo takes nothing behind it"), "{err}");
    let saved: Value = serde_json::from_slice(&fs::read(&saved).expect("the file")).expect("JSON");
    assert_eq!(saved["messages"][0], json!({ "role": "system", "content": "Be brief." }));
    assert_eq!(saved["thinking"], false);
}

#[test]
fn a_context_that_is_full_is_said_and_the_message_taken_back() {
    let (_, err) = chat(
        &["--greedy", "--context", "40"],
        &["Hello", "This does not fit any more", "/stats", "/quit", "x"],
    );
    assert!(err.contains("error: the prompt has "), "{err}");
    assert!(err.contains("2 messages; "), "the message was taken back: {err}");
    let too_long = "/edit This is a message that does not fit into a context of forty tokens";
    let tight = [&PLAIN[..], &["--context", "60"]].concat();
    let (out, err) = chat(&tight, &["Hello", too_long, "/stats", "/retry"]);
    assert!(err.contains("error: the prompt has ") && err.contains("2 messages; "), "{err}");
    let once = chat(&tight, &["Hello"]).0;
    assert_eq!(out, once.repeat(2), "the old message is there to be answered again");
    refused(&["chat", arg(&fixture("tiny")), "--context", "9999"], 1, "made for at most 4096");
    refused(&["chat", arg(&fixture("tiny")), "--min-p", "7"], 2, "min_p must be from 0 to 1");
    refused(&["chat", arg(&fixture("shape4b"))], 1, "shape4b");
}

/// Reads lines until one holds `expected`.
#[cfg(unix)]
#[track_caller]
fn wait_for(errors: &mut impl std::io::BufRead, expected: &str) {
    let mut seen = String::new();
    loop {
        let mut line = Vec::new();
        let read = errors.read_until(b'\n', &mut line).expect("standard error can be read");
        let line = String::from_utf8_lossy(&line);
        if line.contains(expected) {
            return;
        }
        seen += &line;
        assert_ne!(read, 0, "the program ended without `{expected}`: {seen}");
    }
}

/// Ctrl-C while the model answers stops the answer; the program goes on.
#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_answer_and_not_the_program() {
    // Without its stop tokens the model would fill the whole context.
    let mut child = Command::new(env!("CARGO_BIN_EXE_tangelo"))
        .args([
            "chat",
            arg(&fixture("tiny")),
            "--seed",
            "3",
            "--logit-bias",
            "2=-inf",
            "--logit-bias",
            "11=-inf",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().expect("a pipe");
    let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
    for ask in ["Hello\n", "/retry\n"] {
        input.write_all(ask.as_bytes()).expect("it reads");
        // The beginning of the reasoning shows that the answer has begun.
        errors.read_exact(&mut [0]).expect("an answer");
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(kill.expect("kill is there").success());
        wait_for(&mut errors, ", stopped]");
        input.write_all(b"/stats\n").expect("it still reads");
        wait_for(&mut errors, "2 messages; ");
        wait_for(&mut errors, ", stopped]");
    }
    drop(input);
    assert!(child.wait().expect("it ends").success());
}

/// A persona that thinks not and always says the most probable, with a state.
fn persona(folder: &Path) -> std::path::PathBuf {
    let file = folder.join("keeper.toml");
    let text = r#"
        name = "keeper"
        system = "You keep a shop. Be brief."
        greeting = "Welcome! What do you need?"
        [sampling]
        temperature = 0
        max_tokens = 5
        [thinking]
        enabled = false
    "#;
    fs::write(&file, text).expect("a file");
    run(&["persona", "build", arg(&file), arg(&fixture("tiny"))]);
    file
}

#[test]
fn a_persona_greets_and_begins_with_its_state() {
    let folder = scratch("chat-persona");
    let file = persona(&folder);
    let (talk, state) = (folder.join("talk.json"), file.with_extension("state"));
    let save = format!("/save {}", arg(&talk));
    let lines = ["Rope", "/stats", &save, "/clear", "Rope", "/system Be rude."];
    let ask = |lines: &[&str]| chat(&["--persona", arg(&file)], lines);
    let (out, err) = ask(&lines);
    let answer = out.strip_prefix("Welcome! What do you need?\n").expect("a greeting").to_owned();
    let (first, rest) = answer.split_once('\n').expect("an answer");
    assert_eq!(rest, format!("Welcome! What do you need?\n{first}\n"), "after /clear the same");
    // Only the question and the beginning of the answer are new.
    let built = fs::read(&state).expect("the state was built");
    let saved: Value = serde_json::from_slice(&fs::read(&talk).expect("the file")).expect("JSON");
    assert_eq!(saved["messages"][0]["content"], "You keep a shop. Be brief.");
    assert_eq!(saved["messages"][1]["content"], "Welcome! What do you need?");
    let kept = reused(&err)[0];
    assert!(kept > 30, "{kept} tokens were kept: {err}");

    // Without its state, and with one that has been tampered with, the same answer later.
    fs::remove_file(&state).expect("it is there");
    let (without, err) = ask(&["Rope", "/stats"]);
    assert_eq!((&without, reused(&err)[0]), (&format!("Welcome! What do you need?\n{first}\n"), 0));
    let mut tampered = built;
    *tampered.last_mut().expect("bytes") ^= 1;
    fs::write(&state, tampered).expect("a file");
    let (again, err) = ask(&["Rope"]);
    assert_eq!(again, without);
    assert!(err.contains("the persona's state is not used, because "), "{err}");
    refused(&["chat", arg(&fixture("tiny")), "--persona", "nobody.toml"], 1, "nobody.toml");
    fs::write(&file, "name = 'keeper'\nsytem = 'x'").expect("a file");
    refused(&["chat", arg(&fixture("tiny")), "--persona", arg(&file)], 1, "unknown field `sytem`");
}
