//! Templates and tokenizers that the tests share.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tangelo_chat::{Conversation, Renderer};
use tangelo_formats::template::ChatTemplate;
use tangelo_formats::tokenizer::Tokenizer;

/// The folders of the fixtures with a tokenizer and a template.
pub const FOLDERS: [&str; 4] =
    ["tiny", "tokenizer/tokenizer512", "tokenizer/tokenizer2048", "tokenizer/tokenizer2048_tekken"];

/// A file of the fixtures.
pub fn read(path: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The tokenizer in a folder.
pub fn tokenizer(folder: &str) -> Tokenizer {
    Tokenizer::from_json(read(&format!("{folder}/tokenizer.json")).as_bytes()).unwrap()
}

/// A template given as its source.
pub fn renderer(source: &str) -> Renderer {
    Renderer::new(ChatTemplate::new(source.to_owned()).unwrap())
}

/// The shape of Nano v2's template: its markers, a JSON tool section, calls and results.
pub const NANO_V2: &str = "<SPECIAL_10>System
{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}
{%- if tools %}

<AVAILABLE_TOOLS>{{ tools | tojson }}</AVAILABLE_TOOLS> Use <TOOLCALL>[{\"name\": ...}]</TOOLCALL>.{% endif %}

{%- for m in messages %}
{% if m.role == 'user' %}
{{ '\n<SPECIAL_11>User\n' + m.content }}
{%- elif m.role == 'tool' %}
{{ '\n<SPECIAL_11>User\n<TOOL_RESPONSE>[' + m.content + ']</TOOL_RESPONSE>' }}
{%- else %}
{{ '\n<SPECIAL_11>Assistant\n' + (m.content or '') }}
{%- if m.tool_calls %}<TOOLCALL>[{% for c in m.tool_calls %}{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}{% endfor %}]</TOOLCALL>{% endif %}
{{ '\n<SPECIAL_12>' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '\n<SPECIAL_11>Assistant\n' + ('<think></think>' if enable_thinking is defined and not enable_thinking else '<think>\n') }}
{%- endif %}";

/// A template without any marker that a vocabulary could have as a token.
pub const BARE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content or '' }}\n{% endfor %}\
                        {% if add_generation_prompt %}assistant:{% endif %}";

/// An agent at work: instructions, an old answer, calls of tools and their results.
pub fn agent_conversation() -> Conversation {
    serde_json::from_value(json!({"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "reasoning_content": "Two places.", "content": null, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "w", "arguments": "{\"city\": \"Rome\"}"}},
            {"id": "b", "type": "function", "function": {"name": "w", "arguments": {"city": "Oslo"}}}]},
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
        {"role": "tool", "tool_call_id": "b", "content": "snow"}]}))
    .unwrap()
}

/// Definitions of tools, as in a request.
pub fn tool_definitions() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
