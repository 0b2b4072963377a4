//! Calls of tools under their grammar, by a model that knows nothing: what it writes is read as complete calls whose
//! arguments are of their schemas.

use serde_json::{Value, json};
use tangelo_chat::dialect::CallGrammar;
use tangelo_chat::{Dialect, Event, StreamParser, Tool};
use tangelo_engine::{Grammar, Grammars};
use tangelo_formats::tokenizer::Tokenizer;

use crate::validator::is_valid;

const TOKENS: usize = 320;

fn tools() -> Vec<Tool> {
    let tool = |name: &str, properties: Value, required: Value| {
        let parameters = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
            "$defs": {"size": {"type": "integer", "minimum": 1, "maximum": 9}},
        });
        json!({"type": "function", "function": {"name": name, "parameters": parameters}})
    };
    let definitions = json!([
        tool("now", json!({}), json!([])),
        tool(
            "weather",
            json!({
                "city": {"type": "string"},
                "unit": {"enum": ["celsius", "fahrenheit", "a </parameter> b"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
            }),
            json!(["city", "unit"])
        ),
        tool(
            "note",
            json!({
                "title": {"type": ["string", "null"]},
                "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
                "id": {"anyOf": [{"type": "integer", "minimum": 100}, {"type": "string", "maxLength": 4}]},
                "size": {"$ref": "#/$defs/size"},
                "is_done": {"type": "boolean"},
            }),
            json!(["title", "tags", "id", "size", "is_done"])
        ),
        tool(
            "set",
            json!({
                "key": {"type": "string", "pattern": "^[a-z]{2}/\\d+$", "maxLength": 9},
                "value": {},
                "more": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
            }),
            json!(["key", "value"])
        ),
    ]);
    Tool::list(definitions).unwrap()
}

/// What a random chooser writes; it ends in time.
fn write(tokenizer: &Tokenizer, grammars: &Grammars, grammar: &str, seed: u64) -> String {
    let mut constraint = grammars.compile(&Grammar::Lark(grammar.to_owned())).unwrap();
    let stop = tokenizer.id_of("<|im_end|>").unwrap();
    let (mut state, mut ids) = (seed, Vec::new());
    for at in 0..TOKENS {
        constraint.close_within(TOKENS - at).unwrap();
        let allowed: Vec<u32> = constraint.allowed().unwrap().tokens().collect();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let token = allowed[((state >> 33) % allowed.len() as u64) as usize];
        if token == stop {
            return tokenizer.decode(&ids, false);
        }
        constraint.accept(token).unwrap();
        ids.push(token);
        if constraint.is_complete() {
            return tokenizer.decode(&ids, false);
        }
    }
    panic!("unfinished, seed {seed}: {}", tokenizer.decode(&ids, false));
}

/// The calls in a text, and the text around them.
fn read(dialect: &'static Dialect, tools: &[Tool], text: &str) -> (Vec<(String, Value)>, String) {
    let mut parser = StreamParser::new(dialect, tools, false);
    let mut events = parser.push(text);
    events.extend(parser.finish());
    let (mut names, mut calls, mut prose) = (Vec::new(), Vec::new(), String::new());
    for event in events {
        match event {
            Event::ToolCallStart { name, .. } => names.push(name),
            Event::ToolCallEnd { index, arguments, complete } => {
                assert!(complete, "the call is cut short: {text}");
                calls.push((names[index].clone(), Value::Object(arguments)));
            }
            Event::Content(piece) => prose.push_str(&piece),
            _ => {}
        }
    }
    (calls, prose)
}

#[test]
fn calls_of_a_model_that_knows_nothing_are_read_and_of_their_schemas() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny/tokenizer.json");
    let tokenizer = Tokenizer::from_json(&std::fs::read(file).unwrap()).unwrap();
    let words: Vec<Vec<u8>> =
        (0..512).map(|id| tokenizer.token_bytes(id).unwrap_or_default().to_vec()).collect();
    let special: Vec<u32> = (0..512).filter(|&id| tokenizer.is_special(id)).collect();
    let grammars = Grammars::new(&words, &special, &[tokenizer.id_of("<|im_end|>").unwrap()]).unwrap();
    let is_token = |text: &str| tokenizer.id_of(text).is_some_and(|id| tokenizer.is_special(id));
    let tools = tools();
    let mut several = 0;
    for dialect in ["nemotron3", "toolcall_json"].map(|name| Dialect::named(name).unwrap()) {
        for (only, is_required, is_parallel) in [
            (None, true, false),
            (None, true, true),
            (None, false, true),
            (Some("now"), true, true),
            (Some("weather"), true, false),
            (Some("note"), true, false),
            (Some("set"), true, true),
        ] {
            let calls = CallGrammar { only, is_required, is_parallel };
            let grammar = dialect.call_grammar(&tools, calls, &is_token).unwrap();
            for seed in 0..5 {
                let text = write(&tokenizer, &grammars, &grammar, seed);
                let (calls, prose) = read(dialect, &tools, &text);
                assert!(!is_required || !calls.is_empty(), "{dialect:?} {only:?}: no call in {text}");
                assert!(
                    !is_required || prose.trim().is_empty(),
                    "{dialect:?} {only:?}: {prose:?} around {text}"
                );
                assert!(is_parallel || calls.len() <= 1, "{text}");
                several += usize::from(calls.len() > 1);
                for (name, arguments) in calls {
                    assert!(only.is_none_or(|only| name == only), "{text}");
                    let tool = tools.iter().find(|tool| tool.name() == name).unwrap();
                    let schema = tool.parameters().unwrap();
                    assert!(
                        is_valid(schema, schema, &arguments),
                        "{dialect:?} {name}: {arguments} from {text}"
                    );
                }
            }
        }
    }
    assert!(several > 0, "no answer had several calls");
}
