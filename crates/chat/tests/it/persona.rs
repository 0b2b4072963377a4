//! Files of personas: what they say, what is refused, and the conversations that they begin.

use std::path::Path;

use serde_json::{Value, json};
use tangelo_chat::persona::Thinking;
use tangelo_chat::{Conversation, Persona, RenderOptions};
use tangelo_core::SamplingOverrides;

use crate::fixtures::{read, renderer, tool_definitions};

const WHOLE: &str = r#"
name = "librarian-2.1"
description = "Finds books."
system = """
You are a librarian.
Be brief."""
greeting = "What would you like to read?"

[[tools]]
type = "function"
[tools.function]
name = "find"
description = "Finds books"
[tools.function.parameters]
type = "object"
[tools.function.parameters.properties.title]
type = "string"
[tools.function.parameters.properties.author]
type = ["string", "null"]
[tools.function.parameters.properties.most]
type = "integer"
maximum = 10

[sampling]
temperature = 1
top_k = 40
top_p = 0.9
min_p = 0.05
repetition_penalty = 1.1
presence_penalty = -0.5
frequency_penalty = 0.25
penalty_window = 64
seed = 7
max_tokens = 200
stop = ["THE END", "\n\n\n"]

[thinking]
enabled = true
budget = 512

[template_kwargs]
style = "plain"
nested = { list = [1, 2.5, true] }
"#;

fn no_file(path: &Path) -> Result<Value, String> {
    panic!("{} was asked for", path.display())
}

#[track_caller]
fn refuse(text: &str, expected: &str) {
    let error = Persona::parse(text, no_file).expect_err(text).to_string();
    assert!(error.contains(expected), "{error}");
    assert!(error.starts_with("the persona ") && !error.contains('\n'), "{error}");
}

#[test]
fn a_file_says_everything_about_a_persona() {
    let persona = Persona::parse(WHOLE, no_file).unwrap();
    assert_eq!(persona.name, "librarian-2.1");
    assert_eq!(persona.description.as_deref(), Some("Finds books."));
    let expected = SamplingOverrides {
        temperature: Some(1.0),
        top_k: Some(40),
        top_p: Some(0.9),
        min_p: Some(0.05),
        repetition_penalty: Some(1.1),
        presence_penalty: Some(-0.5),
        frequency_penalty: Some(0.25),
        penalty_window: Some(64),
        seed: Some(7),
        max_tokens: Some(200),
        stop: vec!["THE END".to_owned(), "\n\n\n".to_owned()],
        ..SamplingOverrides::default()
    };
    assert_eq!(persona.sampling, expected);
    assert_eq!(persona.thinking, Thinking { enabled: Some(true), budget: Some(512) });
    let tool = json!({"type": "function", "function": {"name": "find", "description": "Finds books", "parameters":
        {"type": "object", "properties": {"title": {"type": "string"}, "author": {"type": ["string", "null"]},
         "most": {"type": "integer", "maximum": 10}}}}});
    // The order of keys is that of the file: it is what the model reads.
    assert_eq!(serde_json::to_string(&persona.tools).unwrap(), json!([tool]).to_string());
    let options = persona.render_options();
    assert_eq!(options.enable_thinking, Some(true));
    assert_eq!(json!(options.kwargs), json!({"style": "plain", "nested": {"list": [1, 2.5, true]}}));
    let conversation = json!({"tools": [tool], "messages": [
        {"role": "system", "content": "You are a librarian.\nBe brief."},
        {"role": "assistant", "content": "What would you like to read?"}]});
    assert_eq!(persona.conversation(), serde_json::from_value(conversation).unwrap());
}

#[test]
fn a_name_is_enough() {
    let persona = Persona::parse("name = 'n'", no_file).unwrap();
    assert_eq!(persona.conversation(), Conversation::default());
    assert_eq!((persona.sampling, persona.thinking), (SamplingOverrides::default(), Thinking::default()));
}

#[test]
fn tools_may_be_in_a_file_that_others_read() {
    let text = "name = 'n'\ntools = '../tools.json'";
    let tools = |path: &Path| {
        assert_eq!(path, Path::new("../tools.json"));
        Ok(tool_definitions())
    };
    let persona = Persona::parse(text, tools).unwrap();
    assert_eq!(
        Value::from_iter(persona.tools.iter().map(|tool| tool.definition().clone())),
        tool_definitions()
    );
    let error = Persona::parse(text, |_| Err("it is not there".to_owned())).unwrap_err().to_string();
    assert_eq!(error, "the persona has no tools: it is not there");
    let error = Persona::parse(text, |_| Ok(json!([{"nameless": 1}]))).unwrap_err().to_string();
    assert!(error.contains("tool definition 0 has no function name"), "{error}");
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    refuse("name = 'n'\nsytem = 'typo'", "unknown field `sytem`");
    refuse("name = 'n'\nsytem = 'typo'", "(line 2)");
    refuse("name = 'n'\n[sampling]\ntemprature = 1.0", "unknown field `temprature`");
    refuse("name = 'n'\n[sampling]\ntemprature = 1.0", "(line 3)");
    refuse("name = 'n'\n[thinking]\neffort = 'high'", "unknown field `effort`");
    refuse("system = 'x'", "missing field `name`");
    refuse("name = 'n'\nname = 'm'", "duplicate key");
    refuse("name = 5", "expected a string");
    refuse("name = 'n'\n[sampling]\ntop_k = -1", "(line 3)");
    refuse("name = 'n'\n[sampling]\ntemperature = 'hot'", "(line 3)");
    refuse("name = 'n'\nthinking = true", "(line 2)");
    refuse("name = 'n'\n= 3", "(line 2)");
    refuse("", "missing field `name`");
}

#[test]
fn what_cannot_be_is_refused() {
    for name in ["", "a b", "a/b", "..", ".hidden", "é", &"n".repeat(65)] {
        refuse(&format!("name = '{name}'"), "letters, digits");
    }
    refuse("name = 'n'\n[thinking]\nenabled = false\nbudget = 5", "`budget`");
    refuse("name = 'n'\n[sampling]\nstop = ['']", "`stop`");
    let stops = ["'a'"; 17].join(",");
    refuse(&format!("name = 'n'\n[sampling]\nstop = [{stops}]"), "`stop`");
    refuse("name = 'n'\n[template_kwargs]\nday = 2026-11-24", "2026-11-24 in `template_kwargs`");
    refuse("name = 'n'\n[template_kwargs]\nx = [nan]", "`template_kwargs`");
    refuse(&format!("name = 'n' # {}", "-".repeat(1 << 20)), "at most 1048576");
    let deep = format!("name = 'n'\n[template_kwargs]\nx = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    refuse(&deep, "cannot be read");
    for tools in ["5", "[5]", "{ function = { name = 'x' } }"] {
        let error = Persona::parse(&format!("name = 'n'\ntools = {tools}"), no_file).unwrap_err().to_string();
        assert!(error.contains("tool definition 0"), "{error}");
    }
}

fn begin(persona: &Persona, client: Value) -> Value {
    serde_json::to_value(persona.begin(serde_json::from_value(client).unwrap())).unwrap()
}

#[test]
fn a_clients_conversation_goes_on_where_the_persona_ends() {
    let text =
        "name = 'n'\nsystem = 'Be brief.'\ngreeting = 'Ahoy!'\n[[tools]]\nname = 'now'\ndescription = 'ours'";
    let persona = Persona::parse(text, no_file).unwrap();
    let (system, greeting) =
        (json!({"role": "system", "content": "Be brief."}), json!({"role": "assistant", "content": "Ahoy!"}));
    let user = json!({"role": "user", "content": "Hi"});
    let ours = json!([{"name": "now", "description": "ours"}]);
    let whole = json!({"messages": [system, greeting, user], "tools": ours});
    assert_eq!(begin(&persona, json!({"messages": [user]})), whole);
    // What the client has got from the persona and sends back is not repeated.
    assert_eq!(begin(&persona, json!({"messages": [greeting, user]})), whole);
    assert_eq!(begin(&persona, json!({"messages": [system, greeting, user]})), whole);
    // What it adds is added.
    let theirs = json!({"role": "system", "content": "Speak French."});
    let both = json!({"role": "system", "content": "Be brief.\n\nSpeak French."});
    let tools = json!([{"name": "now", "description": "theirs"}, {"name": "later"}]);
    assert_eq!(
        begin(&persona, json!({"messages": [theirs, user], "tools": tools})),
        json!({"messages": [both, greeting, user], "tools": [ours[0], {"name": "later"}]})
    );
    let other = json!({"role": "assistant", "content": "Something else."});
    assert_eq!(begin(&persona, json!({"messages": [other]}))["messages"], json!([system, greeting, other]));
    let bare = Persona::parse("name = 'n'", no_file).unwrap();
    assert_eq!(begin(&bare, json!({"messages": [theirs, user]})), json!({"messages": [theirs, user]}));
}

#[test]
fn a_greeting_can_be_rendered() {
    let persona = Persona::parse(WHOLE, no_file).unwrap();
    let options = RenderOptions { add_generation_prompt: false, ..persona.render_options() };
    let renderer = renderer(&read("tiny/chat_template.jinja"));
    let prompt = renderer.render(&persona.conversation(), &options).unwrap().prompt;
    assert!(
        prompt.ends_with("<|im_start|>assistant\n<think></think>What would you like to read?<|im_end|>\n"),
        "{prompt}"
    );
}
