//! Constraints, driven by a model that knows nothing: every token that is allowed is as likely as any other.

use serde_json::{Value, json};
use tangelo_engine::{Constraint, Grammar, Grammars};
use tangelo_formats::tokenizer::Tokenizer;

use crate::common::fixture;
use crate::validator::is_valid;

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(&std::fs::read(fixture("tiny/tokenizer.json")).unwrap()).unwrap()
}

fn grammars(tokenizer: &Tokenizer) -> Grammars {
    let vocabulary: Vec<Vec<u8>> =
        (0..512).map(|id| tokenizer.token_bytes(id).unwrap_or_default().to_vec()).collect();
    let special: Vec<u32> = (0..512).filter(|&id| tokenizer.is_special(id)).collect();
    let stop = tokenizer.id_of("<|im_end|>").unwrap();
    Grammars::new(&vocabulary, &special, &[stop]).unwrap()
}

/// What a random chooser writes within `budget` tokens; `None` if it does not come to an end.
fn write(tokenizer: &Tokenizer, mut constraint: Constraint, seed: u64, budget: usize) -> Option<String> {
    let stop = tokenizer.id_of("<|im_end|>").unwrap();
    let mut seed = seed;
    let mut random = move |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 33) % n as u64) as usize
    };
    let mut ids = Vec::new();
    for at in 0..budget {
        constraint.close_within(budget - at).unwrap();
        let allowed: Vec<u32> = constraint.allowed().unwrap().tokens().collect();
        let token = allowed[random(allowed.len())];
        if token == stop {
            return Some(tokenizer.decode(&ids, false));
        }
        constraint.accept(token).unwrap();
        ids.push(token);
        if constraint.is_complete() {
            return Some(tokenizer.decode(&ids, false));
        }
    }
    eprintln!("unfinished: {}", tokenizer.decode(&ids, false));
    None
}

/// A model that knows nothing, many times; every text must be whole and valid in the eyes of `check`.
fn try_out(grammars: &Grammars, tokenizer: &Tokenizer, schema: &Value, check: &mut dyn FnMut(&str, &Value)) {
    for seed in 0..4 {
        let constraint = grammars.compile(&Grammar::JsonSchema(schema.clone())).unwrap();
        let text =
            write(tokenizer, constraint, seed, 256).unwrap_or_else(|| panic!("{schema} is not finished"));
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{schema}: {error}: {text}"));
        check(&text, &value);
    }
}

/// Schemas put together at random from parts that exist in tools and extraction tasks.
fn random_schema(random: &mut dyn FnMut(usize) -> usize, depth: usize) -> Value {
    let kinds = if depth == 0 { 12 } else { 19 };
    match random(kinds) {
        0 => json!({"type": "string"}),
        1 => json!({"type": "string", "minLength": random(6), "maxLength": 6 + random(20)}),
        2 => json!({"type": "string", "enum": ["north", "süd", "a \"quoted\" one", "\u{1f34a}", ""]}),
        3 => json!({"type": "integer", "minimum": -(random(50) as i64), "maximum": random(1000)}),
        4 => json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1 + random(9)}),
        5 => json!({"type": ["string", "null"]}),
        6 => json!({"type": "boolean"}),
        7 => {
            let constants = [json!("x"), json!(1), json!(null), json!({"a": [true]})];
            json!({"const": constants[random(constants.len())]})
        }
        8 => json!({"type": "integer", "multipleOf": 1 + random(12)}),
        9 => {
            let patterns = [r"^\d{3}-[a-z]+$", "^[A-Z][a-z]{0,9}$", "end$", "x", r"^.{2}\.[ab]{1,3}$"];
            json!({"type": "string", "pattern": patterns[random(patterns.len())]})
        }
        10 => {
            let formats = ["date", "time", "date-time", "uuid", "ipv4", "email"];
            json!({"type": "string", "format": formats[random(formats.len())]})
        }
        11 => json!({"type": ["integer", "boolean", "null"], "exclusiveMaximum": 10 + random(5)}),
        12 => json!({
            "type": "object",
            "patternProperties": {"^n_[a-z]+$": random_schema(random, depth - 1)},
            "additionalProperties": random_schema(random, 0),
        }),
        13 => {
            let items = random_schema(random, depth - 1);
            let least = random(3);
            json!({"type": "array", "items": items, "minItems": least, "maxItems": least + random(3)})
        }
        14 => json!({
            "type": "array",
            "prefixItems": [random_schema(random, depth - 1), random_schema(random, depth - 1)],
            "items": false,
            "minItems": 2,
        }),
        15 => json!({"allOf": [{"type": "object"}, random_object(random, depth - 1)]}),
        16 => json!({"anyOf": [random_schema(random, depth - 1), {"type": "null"}]}),
        _ => random_object(random, depth - 1),
    }
}

fn random_object(random: &mut dyn FnMut(usize) -> usize, depth: usize) -> Value {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for name in ["name", "größe", "is it?", "n\"2", "tags"].iter().take(1 + random(5)) {
        properties.insert((*name).to_owned(), random_schema(random, depth));
        if random(3) > 0 {
            required.push(*name);
        }
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

#[test]
fn a_model_that_knows_nothing_writes_valid_json_within_its_tokens() {
    let tokenizer = tokenizer();
    let grammars = grammars(&tokenizer);
    let mut schemas = vec![
        json!({}),
        json!(true),
        json!({"type": "object"}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        json!({"type": "array", "items": {"type": "number"}, "minItems": 3}),
        json!({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "integer"}]}),
        json!({"allOf": [{"type": "integer", "minimum": 5}, {"maximum": 9}]}),
        json!({
            "$defs": {"node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["value", "children"],
                "additionalProperties": false,
            }},
            "$ref": "#/$defs/node",
        }),
        // What opens and never needs to close, for whoever always takes the next best character.
        json!({"type": "object", "additionalProperties": {"$ref": "#"}}),
        json!({
            "$defs": {"tree": {"anyOf": [
                {"type": "array", "items": {"$ref": "#/$defs/tree"}, "minItems": 1},
                {
                    "type": "object",
                    "properties": {"leaf": {"type": "string", "minLength": 20}},
                    "required": ["leaf"],
                    "additionalProperties": false,
                },
            ]}},
            "$ref": "#/$defs/tree",
        }),
        json!({"type": "string", "minLength": 150}),
        json!({"type": "string", "pattern": "END$"}),
        json!({"type": "array", "items": {"type": "string", "format": "uuid"}, "minItems": 4, "maxItems": 4}),
    ];
    let mut seed = 7u64;
    let mut random = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 33) % n as u64) as usize
    };
    schemas.extend((0..300).map(|_| random_schema(&mut random, 2)));
    for schema in &schemas {
        try_out(&grammars, &tokenizer, schema, &mut |text, value| {
            assert!(is_valid(schema, schema, value), "{text} is not of {schema}");
        });
    }
}

#[test]
fn what_is_not_understood_is_refused_with_a_reason() {
    let grammars = grammars(&tokenizer());
    let schema = |schema: Value| Grammar::JsonSchema(schema);
    let many: serde_json::Map<String, Value> = (0..2000).map(|at| (at.to_string(), json!({}))).collect();
    for (grammar, reason) in [
        (schema(json!({"not": {"type": "string"}})), "not"),
        (schema(json!({"type": "strin"})), "strin"),
        (schema(json!({"$ref": "https://example.com/schema.json"})), "example.com"),
        (schema(json!(false)), "allows nothing"),
        (schema(json!({"type": "integer", "minimum": 5, "maximum": 4})), "minimum"),
        (schema(json!([1])), "object or a boolean"),
        (schema(json!({"properties": many})), "properties"),
        (Grammar::Regex("a(b".into()), "regex"),
        (Grammar::Lark("start: unknown_rule".into()), "unknown_rule"),
        (Grammar::Lark(String::new()), "start"),
        (Grammar::Regex("a".repeat(3 << 20)), "bytes"),
    ] {
        let error = grammars.compile(&grammar).expect_err(reason).to_string();
        assert!(error.contains(reason) && error.starts_with("the answer cannot be constrained: "), "{error}");
        assert!(!error.contains('\n') && error.len() < 500, "{error}");
    }
}

#[test]
fn long_chains_of_references_are_followed_or_refused_and_never_too_much_for_the_stack() {
    let grammars = grammars(&tokenizer());
    let chain = |len: usize| {
        let link =
            |at: usize| json!({"properties": {"next": {"$ref": format!("#/$defs/{}", (at + 1) % len)}}});
        let links: serde_json::Map<String, Value> = (0..len).map(|at| (at.to_string(), link(at))).collect();
        Grammar::JsonSchema(json!({"$defs": links, "$ref": "#/$defs/0"}))
    };
    let rules = |len: usize| {
        let rules: String = (0..len).map(|at| format!("r{at}: \"a\" r{}\n", at + 1)).collect();
        Grammar::Lark(format!("start: r0\n{rules}r{len}: \"b\"\n"))
    };
    assert!(grammars.compile(&chain(1000)).is_ok());
    assert!(grammars.compile(&rules(5000)).is_ok());
    assert!(grammars.compile(&chain(20_000)).is_err());
    assert!(grammars.compile(&rules(40_000)).is_err());
}

#[test]
fn expressions_and_grammars_end_where_they_end() {
    let tokenizer = tokenizer();
    let grammars = grammars(&tokenizer);
    for seed in 0..20 {
        let phone = Grammar::Regex("[0-9]{3}-[0-9]{4}".into());
        let text = write(&tokenizer, grammars.compile(&phone).unwrap(), seed, 64).unwrap();
        let (area, rest) = text.split_once('-').unwrap();
        assert!(area.len() == 3 && rest.len() == 4 && text.bytes().all(|b| b == b'-' || b.is_ascii_digit()));
        let sum = Grammar::Lark("start: NUMBER (\" + \" NUMBER)*\nNUMBER: /[1-9][0-9]?/\n".into());
        let text = write(&tokenizer, grammars.compile(&sum).unwrap(), seed, 64).unwrap();
        assert!(text.split(" + ").all(|n| n.parse::<u8>().is_ok_and(|n| n > 0)), "{text}");
    }
}

#[test]
fn a_token_that_is_not_allowed_is_an_error() {
    let tokenizer = tokenizer();
    let mut constraint = grammars(&tokenizer).compile(&Grammar::JsonObject).unwrap();
    let wrong = tokenizer.id_of("x").unwrap();
    assert!(!constraint.allowed().unwrap().allows(wrong));
    assert!(constraint.accept(wrong).is_err());
}

/// Schemas from elsewhere, for a validator from elsewhere: reads a JSON list of objects with a `schema` from the file
/// that `TANGELO_SCHEMAS` names, and writes what a model that knows nothing makes of them beside it.
#[test]
fn schemas_from_elsewhere() {
    let Ok(path) = std::env::var("TANGELO_SCHEMAS") else {
        println!("skipped: TANGELO_SCHEMAS names no file");
        return;
    };
    let tokenizer = tokenizer();
    let grammars = grammars(&tokenizer);
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let written: Vec<Value> = cases
        .into_iter()
        .map(|mut case| {
            match grammars.compile(&Grammar::JsonSchema(case["schema"].clone())) {
                Err(error) => case["refused"] = error.to_string().into(),
                Ok(_) => {
                    let texts = (0..5).map(|seed| {
                        let grammar = Grammar::JsonSchema(case["schema"].clone());
                        write(&tokenizer, grammars.compile(&grammar).unwrap(), seed, 256).into()
                    });
                    case["texts"] = texts.collect::<Vec<Value>>().into();
                }
            }
            case
        })
        .collect();
    std::fs::write(format!("{path}.out"), serde_json::to_vec(&written).unwrap()).unwrap();
}
