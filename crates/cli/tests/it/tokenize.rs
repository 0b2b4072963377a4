//! `tangelo tokenize`: the goldens of the tokenizer through the program, in every form of output.

use serde_json::{Value, json};

use crate::program::{arg, fixture, refused, run, run_with_input};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("one JSON document")
}

#[test]
fn texts_become_the_golden_ids_and_back() {
    let folder = fixture("tokenizer/tokenizer512");
    let goldens = std::fs::read_to_string(folder.join("encode_goldens.json")).expect("goldens");
    let goldens: Vec<Value> = serde_json::from_str(&goldens).expect("a list");
    for golden in goldens.iter().filter(|g| g["text"] != "").step_by(3) {
        let text = golden["text"].as_str().expect("a text");
        let found = parse(&run_with_input(&["tokenize", arg(&folder), "--json"], text.as_bytes()));
        assert_eq!(found["ids"], golden["ids"], "{text:?}");
        assert_eq!(found["tokens"], golden["tokens"], "{text:?}");
        assert_eq!(found["text"], golden["text"]);
        let ids = golden["ids"].as_array().expect("ids");
        let ids = ids.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
        let decoded = run(&["tokenize", arg(&folder), "--decode", &ids]);
        assert_eq!(decoded.strip_suffix('\n'), Some(text));
        let decoded = run(&["tokenize", arg(&folder), "--decode", &ids, "--no-special"]);
        assert_eq!(decoded.strip_suffix('\n'), golden["decoded_skip_special"].as_str());
    }
}

#[test]
fn a_line_shows_an_id_and_its_piece() {
    let folder = fixture("tiny");
    let text = run(&["tokenize", arg(&folder), "--text", "<think>a é\n"]);
    assert_eq!(
        text,
        "     12  \"<think>\"\n    129  \"a\"\n     64  \" \"\n    227  \\xc3\n    201  \\xa9\n     42  \"\\n\"\n"
    );
}

#[test]
fn special_tokens_can_be_taken_literally() {
    let gguf = fixture("tiny/gguf/f32.gguf");
    let ids = |extra: &[&str]| {
        parse(&run(&[&["tokenize", arg(&gguf), "--text", "</s>", "--json"], extra].concat()))["ids"].clone()
    };
    assert_eq!(ids(&[]), json!([2]));
    let literal = ids(&["--no-special"]);
    assert!(literal.as_array().is_some_and(|ids| ids.len() > 1), "{literal}");
}

#[test]
fn wrong_wishes_are_refused() {
    let tiny = fixture("tiny");
    refused(&["tokenize", arg(&tiny), "--decode", "1,a"], 2, "`a`");
    refused(&["tokenize", arg(&tiny), "--decode", "1", "--text", "x"], 2, "--text");
    refused(&["tokenize", arg(&tiny), "--decode", "99999"], 1, "token id 99999");
    refused(&["tokenize", arg(&fixture("quantised"))], 1, "quantised");
    let output = crate::program::output(&["tokenize", arg(&tiny)], b"\xff");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && errors.contains("not UTF-8"), "{errors}");
}
