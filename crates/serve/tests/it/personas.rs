//! Personas: what they begin with is there before anybody asks.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tangelo_chat::{Persona, beginning};
use tangelo_engine::{Sequence, state_file};
use tangelo_serve::Personas;
use tangelo_serve::personas::Source;

use crate::server::{Opened, Plan, Scratch, Server};

fn duck() -> Persona {
    let system = "You are a duck and answer everything with a splash. ".repeat(20);
    let text = format!(
        r#"
        name = "duck"
        description = "Splashes."
        greeting = "Quack."
        system = "{system}"
        sampling = {{ temperature = 0.0, max_tokens = 7 }}
        thinking = {{ enabled = false }}
        "#
    );
    Persona::parse(&text, |_| Err("no file".to_owned())).expect("a persona")
}

/// Writes the state that a persona begins with; the number of its tokens.
fn build(persona: &Persona, path: &Path) -> usize {
    let Opened { cx, model, text, .. } = Opened::new();
    let renderer = text.renderer.as_ref().expect("a template");
    let begun = beginning(renderer, &text.tokenizer, &persona.conversation(), &persona.render_options());
    let tokens = begun.expect("it can be rendered").ids;
    let mut sequence = Sequence::new(&model);
    sequence.prefill(&model, &cx, &tokens, 128).expect("tokens of the model");
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    state_file::save(&sequence, &model, None, path).expect("written");
    tokens.len()
}

#[test]
fn a_persona_answers_at_once_under_each_of_its_names() {
    let scratch = Scratch::new("persona");
    let state = scratch.0.join("duck.state");
    let begun = build(&duck(), &state) as u64;
    let source = Source { persona: duck(), state: Some(state) };
    let server = Server::start(Plan { personas: vec![source], ..Plan::default() });
    let list = server.get("/v1/personas").json(200);
    assert_eq!(list["data"][0]["name"], "duck");
    assert_eq!(list["data"][0]["greeting"], "Quack.");
    let models = server.get("/v1/models").json(200);
    let names: Vec<&Value> =
        models["data"].as_array().expect("a list").iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["tiny", "tiny:duck"]);
    let question = json!([{"role": "user", "content": "Who are you?"}]);
    let mut answers = Vec::new();
    for names in [json!({"persona": "duck"}), json!({"model": "tiny:duck"}), json!({"model": "duck"})] {
        let mut body = json!({"messages": question, "ignore_eos": true});
        for (name, value) in names.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let answer = server.post("/v1/chat/completions", &body).json(200);
        assert_eq!(answer["model"], "tiny:duck");
        assert_eq!(answer["usage"]["completion_tokens"], 7);
        assert_eq!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 0);
        let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
        assert!(cached >= Some(begun), "{cached:?} of {begun} that the persona begins with");
        answers.push(answer["choices"].clone());
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    assert_eq!(server.metric("tangelo_prompts_reading"), 0);
    let wrong = json!({"persona": "goose", "messages": question});
    assert_eq!(server.post("/v1/chat/completions", &wrong).json(404)["error"]["param"], "persona");
    let plain = json!({"persona": "duck", "prompt": "x"});
    assert_eq!(server.post("/v1/completions", &plain).json(400)["error"]["param"], "persona");
}

#[test]
fn a_state_of_something_else_is_not_taken_for_a_personas() {
    let scratch = Scratch::new("persona-old");
    let state = scratch.0.join("duck.state");
    build(&duck(), &state);
    let Opened { model, text, .. } = Opened::new();
    let changed = Persona { system: Some("You are a goose.".to_owned()), ..duck() };
    let refuse =
        |sources: Vec<Source>| Personas::new(sources, &text, &model).expect_err("refused").to_string();
    let source = Source { persona: changed, state: Some(state.clone()) };
    assert!(refuse(vec![source]).contains("tangelo persona build"));
    let twice = Source { persona: duck(), state: None };
    assert!(refuse(vec![twice.clone(), twice]).contains("twice"));
    fs::write(&state, b"nothing").expect("written");
    assert!(refuse(vec![Source { persona: duck(), state: Some(state) }]).contains("cannot be used"));
}
