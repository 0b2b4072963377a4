//! Rendering: the goldens of transformers through typed conversations, where prompts are cut, and the dialects.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tangelo_chat::{Conversation, Cut, CutKind, Dialect, RenderOptions, Rendered, Renderer};
use tangelo_formats::template::ChatTemplate;
use tangelo_formats::tokenizer::{TokenId, Tokenizer};

use crate::fixtures::{self, NANO_V2, agent_conversation, read};

fn renderer() -> Renderer {
    fixtures::renderer(&read("gen/chat_template.jinja"))
}

fn tokenizer() -> Tokenizer {
    fixtures::tokenizer("tokenizer/tokenizer2048")
}

#[derive(Deserialize)]
struct Golden {
    name: String,
    messages: Value,
    #[serde(default)]
    tools: Value,
    kwargs: Map<String, Value>,
    rendered: String,
    ids: Vec<TokenId>,
}

/// Takes the switches out of a golden's kwargs.
fn options(kwargs: &Map<String, Value>) -> RenderOptions {
    let switch = |name: &str| kwargs.get(name).map(|value| value.as_bool().unwrap());
    RenderOptions {
        add_generation_prompt: switch("add_generation_prompt").unwrap_or(false),
        enable_thinking: switch("enable_thinking"),
        truncate_history_thinking: switch("truncate_history_thinking"),
        ..RenderOptions::default()
    }
}

#[test]
fn typed_conversations_render_as_in_transformers() {
    let (renderer, tokenizer) = (renderer(), tokenizer());
    assert_eq!(renderer.dialect().name, "nemotron3");
    let goldens: Vec<Golden> = serde_json::from_str(&read("tokenizer/chat_goldens.json")).unwrap();
    assert_eq!(goldens.len(), 31);
    for golden in &goldens {
        let conversation = json!({"messages": golden.messages, "tools": golden.tools});
        let conversation: Conversation = serde_json::from_value(conversation).unwrap();
        let rendered = renderer.render(&conversation, &options(&golden.kwargs)).unwrap();
        assert_eq!(rendered.prompt, golden.rendered, "{}", golden.name);
        let tokens = rendered.tokens(&tokenizer).unwrap();
        assert_eq!(tokens.ids, golden.ids, "{}", golden.name);
        check_cuts(&rendered, &tokenizer);
        // What was read can be written and read again.
        let again: Conversation =
            serde_json::from_str(&serde_json::to_string(&conversation).unwrap()).unwrap();
        assert_eq!(again, conversation, "{}", golden.name);
    }
}

/// Cuts are ordered, inside the prompt, and each falls between two tokens.
fn check_cuts(rendered: &Rendered, tokenizer: &Tokenizer) {
    let tokens = rendered.tokens(tokenizer).unwrap();
    assert!(rendered.cuts.is_sorted_by(|left, right| left.offset < right.offset));
    assert_eq!(tokens.cuts.len(), rendered.cuts.len(), "{:?}", rendered.prompt);
    for (cut, token_cut) in rendered.cuts.iter().zip(&tokens.cuts) {
        assert_eq!(cut.kind, token_cut.kind);
        let before = tokenizer.decode(&tokens.ids[..token_cut.offset], false);
        assert_eq!(before, rendered.prompt[..cut.offset]);
    }
}

/// The prompt between the cuts, each piece with what lies before the cut at its end.
fn pieces(rendered: &Rendered) -> Vec<(&str, Option<CutKind>)> {
    let mut start = 0;
    let ends = rendered.cuts.iter().map(|&Cut { offset, kind }| (offset, Some(kind)));
    ends.chain([(rendered.prompt.len(), None)])
        .map(|(end, kind)| (&rendered.prompt[std::mem::replace(&mut start, end)..end], kind))
        .collect()
}

#[test]
fn prompts_are_cut_where_states_are_worth_keeping() {
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let rendered = renderer().render(&agent_conversation(), &options).unwrap();
    check_cuts(&rendered, &tokenizer());
    let expected = [
        ("<|im_start|>system\nBe brief.<|im_end|>\n", Some(CutKind::System)),
        ("<|im_start|>user\nHi<|im_end|>\n", Some(CutKind::User)),
        ("<|im_start|>assistant\n<think></think>", Some(CutKind::Reasoning)),
        ("Hello.<|im_end|>\n", Some(CutKind::Answer)),
        ("<|im_start|>user\nWeather?<|im_end|>\n", Some(CutKind::User)),
        ("<|im_start|>assistant\n<think>\nTwo places.\n</think>", Some(CutKind::Reasoning)),
        (
            "\n<tool_call>\n<function=w>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>\n\
             <tool_call>\n<function=w>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>\n<|im_end|>\n",
            Some(CutKind::Answer),
        ),
        ("<|im_start|>user\n<tool_response>\nsun\n</tool_response>\n", Some(CutKind::ToolResult)),
        ("<tool_response>\nsnow\n</tool_response>\n", Some(CutKind::ToolResult)),
        ("<|im_end|>\n", Some(CutKind::ToolResult)),
        ("<|im_start|>assistant\n", Some(CutKind::GenerationPrompt)),
        ("<think>\n", None),
    ];
    assert_eq!(pieces(&rendered), expected);
}

#[test]
fn thinking_on_and_off_part_at_the_last_cut() {
    let mut conversation = agent_conversation();
    conversation.messages.truncate(2);
    let render = |enable_thinking, add_generation_prompt| {
        let options = RenderOptions { add_generation_prompt, enable_thinking, ..RenderOptions::default() };
        renderer().render(&conversation, &options).unwrap()
    };
    let (on, off, default, none) =
        (render(Some(true), true), render(Some(false), true), render(None, true), render(None, false));
    assert_eq!(on, default);
    assert!(on.starts_in_reasoning && !off.starts_in_reasoning && !none.starts_in_reasoning);
    assert_eq!(on.cuts, off.cuts);
    let last = on.cuts.last().unwrap();
    assert_eq!(last.kind, CutKind::GenerationPrompt);
    assert_eq!(on.prompt[..last.offset], off.prompt[..last.offset]);
    assert_eq!((&on.prompt[last.offset..], &off.prompt[last.offset..]), ("<think>\n", "<think></think>"));
}

#[test]
fn text_that_looks_like_tags_does_not_start_reasoning() {
    let mut conversation = agent_conversation();
    conversation.messages.truncate(2);
    conversation.messages[1].content = Some("What does <think> mean? <|im_start|>user".to_owned());
    let rendered = renderer().render(&conversation, &RenderOptions::default()).unwrap();
    assert!(!rendered.starts_in_reasoning);
    check_cuts(&rendered, &tokenizer());
    let options =
        RenderOptions { add_generation_prompt: true, enable_thinking: Some(false), ..Default::default() };
    assert!(!renderer().render(&conversation, &options).unwrap().starts_in_reasoning);
}

#[test]
fn the_dialect_and_the_cuts_follow_the_template() {
    let renderer = fixtures::renderer(NANO_V2);
    assert_eq!(renderer.dialect().name, "toolcall_json");
    let mut conversation = agent_conversation();
    conversation.messages.drain(1..3);
    conversation.messages.pop();
    conversation.messages[2].tool_calls.pop();
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let rendered = renderer.render(&conversation, &options).unwrap();
    assert!(rendered.starts_in_reasoning);
    let expected = [
        ("<SPECIAL_10>System\nBe brief.\n", Some(CutKind::System)),
        ("<SPECIAL_11>User\nWeather?\n", Some(CutKind::User)),
        (
            "<SPECIAL_11>Assistant\n<TOOLCALL>[{\"name\": \"w\", \"arguments\": {\"city\": \"Rome\"}}]</TOOLCALL>\n<SPECIAL_12>\n",
            Some(CutKind::Answer),
        ),
        ("<SPECIAL_11>User\n<TOOL_RESPONSE>[sun]</TOOL_RESPONSE>", Some(CutKind::ToolResult)),
        ("\n", Some(CutKind::ToolResult)),
        ("<SPECIAL_11>Assistant\n", Some(CutKind::GenerationPrompt)),
        ("<think>\n", None),
    ];
    assert_eq!(pieces(&rendered), expected);
}

#[test]
fn unknown_templates_speak_the_plain_dialect() {
    let chatml = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
    assert_eq!(Dialect::detect(chatml).name, "plain");
    assert_eq!(Dialect::detect("").name, "plain");
    assert!(Dialect::named("nemotron3").is_some() && Dialect::named("nope").is_none());
    let rendered = Renderer::new(ChatTemplate::new("{{ messages[0].content }}".to_owned()).unwrap())
        .render(&agent_conversation(), &RenderOptions::default())
        .unwrap();
    assert_eq!(
        rendered,
        Rendered { prompt: "Be brief.".to_owned(), starts_in_reasoning: false, cuts: Vec::new() }
    );
}

#[test]
fn further_variables_reach_the_template() {
    let template =
        ChatTemplate::new("{{ persona }} {{ enable_thinking }} {{ strftime_now('%Y') }}".to_owned()).unwrap();
    let options = RenderOptions {
        enable_thinking: Some(true),
        kwargs: Map::from_iter([
            ("persona".into(), json!("pirate")),
            ("enable_thinking".into(), json!(false)),
        ]),
        now_unix_s: Some(0),
        ..RenderOptions::default()
    };
    let rendered = Renderer::new(template).render(&agent_conversation(), &options).unwrap();
    assert_eq!(rendered.prompt, "pirate False 1970");
}
