//! What a tool returned, as text for a model.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use tangelo_core::limits::TOOL_RESULT_BYTES_MAX;

/// Stands for what a later version of the protocol may have.
const UNKNOWN: &str = "[a part of a kind that this program does not know]";

/// What a tool returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutcome {
    /// The text for the model, at most [`TOOL_RESULT_BYTES_MAX`] bytes and a sentence about the rest.
    pub text: String,
    /// Whether the tool says that it failed. The text says so too, since a model sees nothing else.
    pub is_error: bool,
    /// Bytes that were cut off.
    pub cut_bytes: usize,
}

impl ToolOutcome {
    /// Turns the parts of a result into one text. What is no text is described, so that the model knows that it was there.
    pub(crate) fn new(result: &CallToolResult) -> ToolOutcome {
        let parts: Vec<String> = result.content.iter().map(part).collect();
        let mut text = parts.join("\n");
        if let (true, Some(value)) = (parts.is_empty(), &result.structured_content) {
            // Beside parts it says the same again, for programs.
            text = value.to_string();
        }
        let is_error = result.is_error == Some(true);
        let cut_bytes = cut(&mut text);
        if text.is_empty() {
            text = "(nothing was returned)".into();
        }
        if is_error {
            text.insert_str(0, "The tool failed: ");
        }
        if cut_bytes > 0 {
            text += &format!("\n[The result is too long: {cut_bytes} more bytes were cut off here.]");
        }
        ToolOutcome { text, is_error, cut_bytes }
    }
}

/// Cuts a text to the limit, between characters; returns how many bytes that took.
fn cut(text: &mut String) -> usize {
    let len = text.len();
    let end = (0..=TOOL_RESULT_BYTES_MAX.min(len)).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    len - text.len()
}

fn part(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(image) => unseen("an image", Some(&image.mime_type), &image.data),
        ContentBlock::Audio(audio) => unseen("a recording", Some(&audio.mime_type), &audio.data),
        ContentBlock::ResourceLink(link) => {
            let about = link.description.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
            format!("[a link to {} ({}){about}]", link.uri, link.name)
        }
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents { uri, text, .. } => format!("[{uri}]\n{text}"),
            ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                unseen(uri, mime_type.as_deref(), blob)
            }
            _ => UNKNOWN.into(),
        },
        _ => UNKNOWN.into(),
    }
}

/// Describes data in base64: four characters are three bytes.
fn unseen(what: &str, mime_type: Option<&str>, base64: &str) -> String {
    let bytes = base64.trim_end_matches('=').len() / 4 * 3
        + (base64.trim_end_matches('=').len() % 4).saturating_sub(1);
    let kind = mime_type.map(|kind| format!(" ({kind})")).unwrap_or_default();
    format!("[{what}{kind}, {bytes} bytes, which cannot be shown to this model]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn outcome(result: Value) -> ToolOutcome {
        ToolOutcome::new(&serde_json::from_value(result).expect("a result"))
    }

    #[test]
    fn parts_become_text() {
        let resource = |value: Value| json!({"type": "resource", "resource": value});
        let result = json!({"content": [
            {"type": "text", "text": "one"},
            {"type": "image", "data": "AAAAAAA=", "mimeType": "image/png"},
            {"type": "audio", "data": "", "mimeType": "audio/wav"},
            {"type": "resource_link", "uri": "file:///x", "name": "x", "description": "notes", "size": 7},
            resource(json!({"uri": "mem://a", "text": "inside"})),
            resource(json!({"uri": "mem://b", "blob": "QUJD"})),
        ]});
        let expected = "one\n[an image (image/png), 5 bytes, which cannot be shown to this model]\n\
            [a recording (audio/wav), 0 bytes, which cannot be shown to this model]\n[a link to file:///x (x): notes]\n\
            [mem://a]\ninside\n[mem://b, 3 bytes, which cannot be shown to this model]";
        assert_eq!(outcome(result), ToolOutcome { text: expected.into(), is_error: false, cut_bytes: 0 });
    }

    #[test]
    fn structured_content_stands_in_for_missing_text() {
        assert_eq!(outcome(json!({"structuredContent": {"c": 21.5}})).text, "{\"c\":21.5}");
        let both = json!({"content": [{"type": "text", "text": "21.5"}], "structuredContent": {"c": 21.5}});
        assert_eq!(outcome(both).text, "21.5");
        assert_eq!(outcome(json!({"content": []})).text, "(nothing was returned)");
    }

    #[test]
    fn failures_and_cuts_are_said() {
        let failed = outcome(json!({"content": [{"type": "text", "text": "no such file"}], "isError": true}));
        assert_eq!((failed.text.as_str(), failed.is_error), ("The tool failed: no such file", true));
        let long = "\u{20ac}".repeat(TOOL_RESULT_BYTES_MAX);
        let cut = outcome(json!({"content": [{"type": "text", "text": long}]}));
        // The euro sign has three bytes, and the limit is no multiple of three.
        assert_eq!(cut.cut_bytes, 2 * TOOL_RESULT_BYTES_MAX + 1);
        assert!(cut.text.ends_with("131073 more bytes were cut off here.]"), "{}", cut.text.len());
        assert!(cut.text.len() < TOOL_RESULT_BYTES_MAX + 100);
    }
}
