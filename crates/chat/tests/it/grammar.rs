//! Grammars of tool calls, as text. That what they allow is read is tested where they can be compiled.

use serde_json::json;
use tangelo_chat::dialect::CallGrammar;
use tangelo_chat::{Dialect, Tool};

fn tools() -> Vec<Tool> {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 9}, "days": {"type": "integer"}},
        "required": ["city"],
    });
    let definitions = json!([
        {"type": "function", "function": {"name": "weather", "parameters": parameters}},
        {"type": "function", "function": {"name": "now"}},
    ]);
    Tool::list(definitions).unwrap()
}

fn grammar(dialect: &str, only: Option<&str>, is_required: bool, is_parallel: bool) -> Option<String> {
    let calls = CallGrammar { only, is_required, is_parallel };
    Dialect::named(dialect).unwrap().call_grammar(&tools(), calls, &|text| text.contains("tool_call"))
}

#[test]
fn tagged_calls() {
    let expected = r#"start: call
call: <tool_call> "\n" (function_0) </tool_call>
VALUE_0_0_0: /(?s:.{0,9})/ & ~/(?s:.*)(<\/parameter>|<\/function>)(?s:.*)/
value_0_0_0[suffix="\n</parameter>\n"]: VALUE_0_0_0
argument_0_0: "<parameter=city>\n" (value_0_0_0)
argument_0_1: "<parameter=days>\n" (%json {"type":"integer"} "\n</parameter>\n")
function_0: "<function=weather>\n" argument_0_0 argument_0_1? "</function>\n"
"#;
    assert_eq!(grammar("nemotron3", Some("weather"), true, false).unwrap(), expected);
    let expected = r#"start: TEXT? (call ("\n" call)*)?
TEXT: /(?s:.+)/
call: <tool_call> "\n" (function_0) </tool_call>
function_0: "<function=now>\n" "</function>\n"
"#;
    assert_eq!(grammar("nemotron3", Some("now"), false, true).unwrap(), expected);
}

#[test]
fn calls_in_a_list() {
    let expected = r#"start: "<TOOLCALL>" "[" call (", " call)* "]" "</TOOLCALL>"
call: call_0
call_0: "{\"name\": \"now\", \"arguments\": " %json {"type":"object","additionalProperties":false} "}"
"#;
    assert_eq!(grammar("toolcall_json", Some("now"), true, true).unwrap(), expected);
    let auto = grammar("toolcall_json", Some("now"), false, false).unwrap();
    let text = auto.lines().find(|line| line.starts_with("TEXT: ")).unwrap();
    assert_eq!(text, r"TEXT: /(?s:.+)/ & ~/(?s:.*)<TOOLCALL>(?s:.*)/");
}

#[test]
fn all_tools_may_be_called_and_a_model_without_calls_has_no_grammar() {
    let all = grammar("nemotron3", None, true, false).unwrap();
    assert!(all.contains("(function_0 | function_1)"), "{all}");
    assert_eq!(grammar("plain", None, true, false), None);
}
