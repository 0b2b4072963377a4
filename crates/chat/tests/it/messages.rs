//! Messages and tools in OpenAI's JSON, forgiving in what is read and strict in what is written.

use serde_json::{Map, Value, json};
use tangelo_chat::event::assistant_message;
use tangelo_chat::{Conversation, Event, Message, Role, Tool, ToolCall};

fn message(value: Value) -> Message {
    serde_json::from_value(value).unwrap()
}

#[test]
fn content_may_come_in_several_shapes() {
    let text = |content: Value| message(json!({"role": "user", "content": content})).content;
    assert_eq!(text(json!("hi")).as_deref(), Some("hi"));
    assert_eq!(text(json!(null)), None);
    assert_eq!(
        text(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])).as_deref(),
        Some("ab")
    );
    assert_eq!(message(json!({"role": "assistant"})).content, None);
    for (content, expected) in
        [(json!([{"type": "image_url", "image_url": {}}]), "`image_url`"), (json!(5), "content must be")]
    {
        let error =
            serde_json::from_value::<Message>(json!({"role": "user", "content": content})).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn arguments_may_be_text_or_an_object() {
    let call = |arguments: Value| {
        serde_json::from_value::<ToolCall>(
            json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}),
        )
    };
    let expected = Map::from_iter([("b".to_owned(), json!(1)), ("a".to_owned(), json!([2.50]))]);
    for arguments in [json!({"b": 1, "a": [2.50]}), json!("{\"b\": 1, \"a\": [2.5]}")] {
        let call = call(arguments).unwrap();
        assert_eq!((call.name.as_str(), &call.arguments), ("f", &expected));
        assert_eq!(call.arguments.keys().collect::<Vec<_>>(), ["b", "a"]);
    }
    for nothing in [json!(""), json!(" "), json!(null), json!({})] {
        assert!(call(nothing).unwrap().arguments.is_empty());
    }
    for wrong in [json!("{"), json!("[1]"), json!(7), json!([])] {
        assert!(call(wrong).unwrap_err().to_string().contains("`f`"));
    }
    let bare: ToolCall = serde_json::from_value(json!({"name": "g", "arguments": {"x": 1}})).unwrap();
    assert_eq!((bare.id, bare.name.as_str()), (None, "g"));
    assert!(serde_json::from_value::<ToolCall>(json!({"id": "1"})).is_err());
}

#[test]
fn written_messages_are_openais() {
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}});
    let value =
        json!({"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [call]});
    let read = message(value.clone());
    assert_eq!(serde_json::to_value(&read).unwrap(), value);
    let for_template = read.template_value();
    assert_eq!(for_template["tool_calls"][0]["function"]["arguments"], json!({"a": 1}));
    assert_eq!(for_template["content"], Value::Null);
    assert_eq!(
        serde_json::to_value(Message::new(Role::User, "hi")).unwrap(),
        json!({"role": "user", "content": "hi"})
    );
    // Only an assistant may say nothing; elsewhere templates would print `None`.
    assert_eq!(message(json!({"role": "user", "content": null})).template_value()["content"], "");
    assert_eq!(message(json!({"role": "system", "content": "x"})).role, Role::System);
    assert_eq!(message(json!({"role": "narrator", "content": "x"})).role, Role::Other("narrator".to_owned()));
}

#[test]
fn tools_are_kept_as_given() {
    let schema = json!({"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]});
    let wrapped =
        json!({"type": "function", "function": {"name": "s", "strict": true, "parameters": schema}});
    for definition in [wrapped.clone(), wrapped["function"].clone()] {
        let tool = Tool::new(definition.clone(), 0).unwrap();
        assert_eq!((tool.name(), tool.definition()), ("s", &definition));
        assert_eq!(tool.parameter("q"), Some(&json!({"type": "string"})));
        assert_eq!(tool.parameter("r"), None);
    }
    for (definitions, expected) in [
        (json!([wrapped, {"type": "function"}]), "definition 1 has no function name"),
        (json!([{"name": "x", "parameters": []}]), "parameters that are not"),
        (json!({"name": "x"}), "not in a list"),
    ] {
        let error = Tool::list(definitions).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn conversations_read_and_write() {
    let text = r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", "tool_calls": null}],
                   "tools": [{"type": "function", "function": {"name": "s"}}]}"#;
    let conversation: Conversation = serde_json::from_str(text).unwrap();
    assert!(conversation.tool("s").is_some() && conversation.tool("t").is_none());
    let again: Conversation = serde_json::from_str(&serde_json::to_string(&conversation).unwrap()).unwrap();
    assert_eq!(again, conversation);
}

#[test]
fn a_finished_stream_becomes_history() {
    let start = |index, name: &str| Event::ToolCallStart {
        index,
        id: format!("call_{index}"),
        name: name.to_owned(),
    };
    let end = |index, complete| Event::ToolCallEnd {
        index,
        arguments: Map::from_iter([("n".to_owned(), json!(index))]),
        complete,
    };
    let events = vec![
        Event::Reasoning("I ".into()),
        Event::Reasoning("think".into()),
        start(0, "f"),
        Event::ToolCallArguments { index: 0, json_delta: "{\"n\":0}".into() },
        end(0, true),
        start(1, "g"),
        end(1, false),
    ];
    let message = assistant_message(events);
    assert_eq!((message.content, message.reasoning_content.as_deref()), (None, Some("I think")));
    assert_eq!(message.tool_calls.len(), 1, "a call that was cut off is not history");
    assert_eq!(
        (message.tool_calls[0].name.as_str(), &message.tool_calls[0].arguments["n"]),
        ("f", &json!(0))
    );
    let plain = assistant_message([Event::Content("a".into()), Event::Content("b".into())]);
    assert_eq!(plain, Message::new(Role::Assistant, "ab"));
}
