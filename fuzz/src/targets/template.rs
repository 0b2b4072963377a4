//! Chat templates: compiled and given conversations, because a template is a program.

use serde_json::json;
use tangelo_formats::template::{ChatTemplate, TemplateContext};

use super::{Target, fixtures};

pub(super) const TARGET: Target = Target {
    name: "template",
    what: "chat templates and rendering with them",
    run: target,
    seeds: || {
        let mut seeds = fixtures(&["tiny/chat_template.jinja"]);
        let small = [
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}",
            "{%- macro f(x, n=2) %}{{ x ~ n }}{% endmacro %}{{ f(messages[0]['content'].split('\\n')[-1]) }}",
            "{% set ns = namespace(i=0) %}{% for x in range(9) %}{% set ns.i = ns.i + x %}{% endfor %}{{ ns.i }}",
            "{{ messages | tojson }}{{ strftime_now('%Y') }}{{ tools | length }}",
        ];
        seeds.extend(small.map(|s| s.as_bytes().to_vec()));
        seeds
    },
    dictionary: &[
        "{% for x in range(1000000) %}",
        "{% endfor %}",
        "{% if messages %}",
        "{% endif %}",
        "{% set x = x * 2 %}",
        "{{ 'a' * 100000000 }}",
        "{{ raise_exception('no') }}",
        "{%- macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        " | tojson(indent=4) ",
        ".split('')",
        ".replace('', 'aaaaaaaa')",
        ".strip()",
        "[::-1]",
        "[1:2]",
        " | join(',') ",
        " ** 1000000 ",
        " % 0 ",
        " // 0 ",
    ],
};

/// Compiles a template and renders a conversation with a tool call in it.
pub fn target(data: &[u8]) -> bool {
    let Ok(text) = String::from_utf8(data.to_vec()) else { return false };
    let Ok(template) = ChatTemplate::new(text) else { return false };
    let call =
        json!({ "type": "function", "function": { "name": "f", "arguments": { "a": 1, "b": ["x", null] } } });
    let messages = json!([
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "Hello\nthere" },
        { "role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [call] },
        { "role": "tool", "content": "{\"y\": 2}" },
        { "role": "user", "content": "So?" },
    ]);
    let tools = json!([{ "type": "function", "function": {
        "name": "f", "description": "d", "parameters": { "type": "object", "properties": { "a": { "type": "integer" } } },
    } }]);
    let kwargs = serde_json::Map::from_iter([("enable_thinking".to_string(), json!(true))]);
    let context = TemplateContext {
        messages: &messages,
        tools: Some(&tools),
        add_generation_prompt: true,
        kwargs: &kwargs,
        now_unix_s: Some(1_700_000_000),
    };
    template.render(&context).is_ok()
}
