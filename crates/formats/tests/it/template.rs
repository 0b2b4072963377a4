//! Chat templates against the renderings of jinja2 inside transformers, and Python's printing rules.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tangelo_formats::template::{ChatTemplate, TemplateContext, TemplateError};
use tangelo_formats::tokenizer::{EncodeOptions, TokenId, Tokenizer};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(fixture(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[derive(Deserialize)]
struct Golden {
    name: String,
    messages: Value,
    tools: Option<Value>,
    kwargs: Map<String, Value>,
    rendered: String,
    ids: Vec<TokenId>,
}

#[test]
fn all_conversations_render_as_in_transformers() {
    let template = ChatTemplate::new(read("gen/chat_template.jinja")).unwrap();
    let tokenizer = Tokenizer::from_json(read("tokenizer/tokenizer2048/tokenizer.json").as_bytes()).unwrap();
    let goldens: Vec<Golden> = serde_json::from_str(&read("tokenizer/chat_goldens.json")).unwrap();
    assert_eq!(goldens.len(), 31);
    for golden in &goldens {
        let context = TemplateContext {
            messages: &golden.messages,
            tools: golden.tools.as_ref(),
            add_generation_prompt: false,
            kwargs: &golden.kwargs,
            now_unix_s: None,
        };
        let rendered = template.render(&context).unwrap_or_else(|error| panic!("{}: {error}", golden.name));
        assert_eq!(rendered, golden.rendered, "{}", golden.name);
        assert_eq!(
            tokenizer.encode(&rendered, EncodeOptions::PROMPT).unwrap(),
            golden.ids,
            "{}",
            golden.name
        );
    }
}

fn try_render(source: &str, kwargs: Value) -> Result<String, TemplateError> {
    let Value::Object(kwargs) = kwargs else { panic!("kwargs must be an object") };
    ChatTemplate::new(source.to_owned())?.render(&TemplateContext {
        messages: &json!([{"role": "user", "content": "hi"}]),
        tools: None,
        add_generation_prompt: true,
        kwargs: &kwargs,
        now_unix_s: Some(1_735_689_599),
    })
}

#[track_caller]
fn check(source: &str, value: &str, expected: &str) {
    let value: Value = serde_json::from_str(value).unwrap();
    assert_eq!(try_render(source, json!({ "v": value })).unwrap(), expected, "{source}");
}

/// Expected texts are what CPython 3.12 prints.
#[test]
fn values_print_as_in_python() {
    check("{{ v }}", "[true, false, null, 3, 3.0, \"a\"]", "[True, False, None, 3, 3.0, 'a']");
    check(
        "{{ v }}",
        r#"["it's", "say \"hi\"", "both ' and \"", "a\nb\\"]"#,
        r#"["it's", 'say "hi"', 'both \' and "', 'a\nb\\']"#,
    );
    check("{{ v }}", r#"{"b": 1, "a": {"x": []}}"#, "{'b': 1, 'a': {'x': []}}");
    check("{{ v }}|{{ v | string }}|{{ 'x' ~ v }}", "1e-5", "1e-05|1e-05|x1e-05");
    check("{{ v }}", "[1e-5, 1e16, 1e999]", "[1e-05, 1e+16, inf]");
    check("{{ v }}{{ missing }}{{ none }}", "true", "TrueNone");
    check("{{ v + 1 }} {{ v * 2 }} {{ v / 2 }} {{ v // 2 }}", "7", "8 14 3.5 3");
    check("{{ v['type'] | string }}", r#"{"type": ["string", "null"]}"#, "['string', 'null']");
}

#[test]
fn tojson_is_json_dumps() {
    check(
        "{{ v | tojson }}",
        r#"{"z": [1, 2.50, -0.0, 1e-7, 100000000000000000000], "a": {"k": null, "t": true}, "e": [], "o": {}}"#,
        r#"{"z": [1, 2.5, -0.0, 1e-07, 100000000000000000000], "a": {"k": null, "t": true}, "e": [], "o": {}}"#,
    );
    check(
        "{{ v | tojson }}",
        r#""<b>&'\"\\\/\u0001\u0008\u000c\n\r\t\u007f é 🍊""#,
        "\"<b>&'\\\"\\\\/\\u0001\\b\\f\\n\\r\\t\u{7f} é 🍊\"",
    );
    check("{{ v | tojson(ensure_ascii=true) }}", r#""é 🍊\u007f""#, r#""\u00e9 \ud83c\udf4a\u007f""#);
    check(
        "{{ v | tojson(indent=2) }}",
        r#"{"a": [1, {"b": []}], "c": {}}"#,
        "{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ],\n  \"c\": {}\n}",
    );
    check("{{ v | tojson(indent=0) }}", "[1, 2]", "[\n1,\n2\n]");
    check(
        "{{ v | tojson(separators=(',', ':'), sort_keys=true) }}",
        r#"{"b": [1, 2], "a": 0}"#,
        r#"{"a":0,"b":[1,2]}"#,
    );
    check("{{ {'x': v, 2: none} | tojson }}", "1", r#"{"x": 1, "2": null}"#);
    for source in ["{{ missing | tojson }}", "{{ v | tojson(colour=1) }}", "{{ v | tojson(indent='x') }}"] {
        try_render(source, json!({"v": 1})).unwrap_err();
    }
}

#[test]
fn python_methods_and_jinja_settings() {
    check(
        "{{ v.strip() }}|{{ v.lstrip() }}|{{ v.rstrip('b ') }}|{{ v | trim }}",
        r#""  ab\u001f ""#,
        "ab|ab\u{1f} |  ab\u{1f}|ab",
    );
    check("{{ v.split('</t>')[-1] }}{{ v.split('</t>', 1)[1] }}", r#""a</t>b</t>c""#, "cb</t>c");
    check(
        "{{ v.startswith('ab') }}{{ v.endswith(('x', 'c')) }}{{ v.removeprefix('a') }}",
        r#""abc""#,
        "TrueTruebc",
    );
    check(
        "{% for k, x in v.items() %}{{ k }}={{ x }};{% endfor %}{{ v.get('z', 5) }}{{ v.get('z') }}",
        r#"{"b": 1, "a": 2}"#,
        "b=1;a=2;5None",
    );
    check("{% for k, x in v | items %}{{ k }}{{ x }}{% endfor %}", r#"{"b": 1, "a": 2}"#, "b1a2");
    check(
        "{% for x in v %}{% if x == 2 %}{% continue %}{% endif %}{% if x > 3 %}{% break %}{% endif %}{{ x }}{% endfor %}",
        "[1, 2, 3, 4]",
        "13",
    );
    check(
        "{% set n = namespace(x=0) %}{% for x in v %}{% set n.x = n.x + x %}{% endfor %}{{ n.x }}",
        "[1, 2]",
        "3",
    );
    check("{{ v[::-1] }}{{ v[1:] }}{{ v[-1] }}", "[1, 2, 3]", "[3, 2, 1][2, 3]3");
    check("{{ strftime_now('%d %B %Y') }}", "0", "31 December 2024");
    check(
        "{{ tools is none }}{{ tools is iterable }}{{ v is iterable }}{{ messages[0].role }}",
        "[]",
        "TrueFalseTrueuser",
    );
    // trim_blocks, lstrip_blocks, and one trailing newline of the template is dropped.
    check("a\n  {% if v %}\n  b\n  {% endif %}\nc\n\n", "true", "a\n  b\nc\n");
    check("{{ '<&>' }}{{ v }}", "\"<b>\"", "<&><b>");
}

#[test]
fn a_template_may_refuse() {
    let error = try_render("{{ raise_exception('roles must alternate') }}", json!({})).unwrap_err();
    assert!(
        matches!(&error, TemplateError::Refused { message } if message == "roles must alternate"),
        "{error:?}"
    );
    let inside =
        "{% macro m() %}{{ raise_exception('no') }}{% endmacro %}{% for x in [1] %}{{ m() }}{% endfor %}";
    assert!(matches!(try_render(inside, json!({})), Err(TemplateError::Refused { .. })));
}

#[test]
fn errors_say_where() {
    let error = try_render("ok\n{{ messages[0].content.nope.deeper }}", json!({})).unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
    let error = ChatTemplate::new("a\nb {% if %}".to_owned()).unwrap_err().to_string();
    assert!(error.contains("compiled") && error.contains("line 2"), "{error}");
    assert!(ChatTemplate::require(None).unwrap_err().to_string().contains("--raw"));
}

#[test]
fn hostile_templates_are_stopped() {
    let long = "x".repeat((1 << 20) + 1);
    assert!(matches!(ChatTemplate::new(long), Err(TemplateError::TooLong { .. })));
    for source in ["(".repeat(100_000), "{{ ".to_owned() + &"[".repeat(100_000), "{% if x %}".repeat(50_000)]
    {
        drop(try_render(&source, json!({})).map(drop));
    }
    for source in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}",
        "{% set n = namespace(s='x' * 1000) %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{{ 'x' * 100000000000 }}",
        "{{ [1] | tojson(indent=1000000000000) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set n = namespace(x=1) %}{% for a in range(2000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x | tojson }}",
        "{{ ('%1000000000d' | format(1)) }}",
    ] {
        assert!(try_render(source, json!({})).is_err(), "{source}");
    }
    let big = "y".repeat(40 << 20);
    let error = try_render("{{ v }}{{ v }}", json!({ "v": big })).unwrap_err();
    assert!(matches!(error, TemplateError::PromptTooLong { .. }), "{error}");
}

/// Pieces of a good template removed, doubled and swapped at random: an error or a prompt, never a panic.
#[test]
fn damaged_templates_never_panic() {
    let good: Vec<char> = read("gen/chat_template.jinja").chars().collect();
    let goldens: Vec<Golden> = serde_json::from_str(&read("tokenizer/chat_goldens.json")).unwrap();
    let mut state = 1u64;
    let mut below = |bound: usize| {
        // The multiplier of Knuth's MMIX generator; the low bits are weak, so the high ones are used.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % bound as u64) as usize
    };
    let mut rendered = 0;
    for round in 0..400 {
        let mut source = good.clone();
        for _ in 0..=below(3) {
            let place = below(source.len());
            let end = (place + below(30)).min(source.len());
            let piece: Vec<char> = source[place..end].to_vec();
            let target = below(source.len());
            match below(3) {
                0 => drop(source.drain(place..end)),
                1 => drop(source.splice(target..target, piece)),
                _ => source.swap(place, target),
            }
        }
        let Ok(template) = ChatTemplate::new(source.into_iter().collect()) else { continue };
        let golden = &goldens[round % goldens.len()];
        let context = TemplateContext {
            messages: &golden.messages,
            tools: golden.tools.as_ref(),
            add_generation_prompt: true,
            kwargs: &golden.kwargs,
            now_unix_s: Some(0),
        };
        rendered += usize::from(template.render(&context).is_ok());
    }
    assert!(rendered > 20, "only {rendered} damaged templates still rendered: the damage tests nothing");
}
