//! JSON as model repositories write it: Python's `json` module emits bare `Infinity`, `-Infinity` and `NaN`,
//! and transformers 5 spells the same values `{"__float__": "Infinity"}`. Both are accepted.

use std::path::Path;

use serde_json::Value;
use tangelo_core::limits::CONFIG_BYTES_MAX;

use crate::error::{Error, Result};

/// Parses `text`; `what` names it in the error.
///
/// # Errors
/// [`Error::TooLarge`] above [`CONFIG_BYTES_MAX`], [`Error::Json`] when it is not JSON (nesting deeper than
/// 128 levels included).
pub(crate) fn parse(what: &'static str, text: &str) -> Result<Value> {
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(Error::TooLarge {
            what: format!("the size of {what} in bytes"),
            found: text.len() as u64,
            limit: CONFIG_BYTES_MAX,
        });
    }
    serde_json::from_str(&quote_bare_floats(text)).map_err(|cause| Error::Json { what, cause })
}

/// Reads and parses a small JSON file; `None` if it does not exist.
pub(crate) fn read_file(what: &'static str, path: &Path) -> Result<Option<Value>> {
    let Some(text) = read_text(path, CONFIG_BYTES_MAX)? else { return Ok(None) };
    parse(what, &text).map(Some).map_err(|e| e.in_file(path))
}

/// Reads a text file of at most `limit` bytes; `None` if it does not exist.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<Option<String>> {
    let io = |cause| Error::Io { action: "read", path: path.to_path_buf(), cause };
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    if size > limit {
        let what = "the size in bytes".to_string();
        return Err(Error::TooLarge { what, found: size, limit }.in_file(path));
    }
    std::fs::read_to_string(path).map(Some).map_err(io)
}

/// The number behind a JSON value, in either spelling of the non-finite ones.
pub(crate) fn as_f64(value: &Value) -> Option<f64> {
    if let Some(number) = value.as_f64() {
        return Some(number);
    }
    match value.get("__float__")?.as_str()? {
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ => None,
    }
}

/// Rewrites `Infinity`, `-Infinity` and `NaN` outside of strings to transformers' object form.
fn quote_bare_floats(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', 'I', '-', 'N']) {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| tail.starts_with(w));
        let taken = if let Some(word) = word {
            out.push_str(&format!(r#"{{"__float__":"{word}"}}"#));
            word.len()
        } else {
            // A whole string literal, or the single character of something else.
            let n = if tail.starts_with('"') { string_literal_len(tail) } else { 1 };
            out.push_str(tail.get(..n).unwrap_or(tail));
            n
        };
        rest = tail.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Bytes of the string literal that `text` starts with, quotes included (all of it if it is not closed).
fn string_literal_len(text: &str) -> usize {
    let mut escaped = false;
    for (i, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return i.saturating_add(1),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_floats_are_accepted_outside_of_strings_only() {
        let text = r#"{"a": [0.0, Infinity], "b": -Infinity, "c": NaN, "d": "Infinity \" NaN", "e": -1.5, "f": null}"#;
        let v = parse("test", text).unwrap();
        assert_eq!(as_f64(&v["a"][1]), Some(f64::INFINITY));
        assert_eq!(as_f64(&v["b"]), Some(f64::NEG_INFINITY));
        assert!(as_f64(&v["c"]).unwrap().is_nan());
        assert_eq!(v["d"], "Infinity \" NaN");
        assert_eq!(as_f64(&v["e"]), Some(-1.5));
        assert_eq!(as_f64(&v["f"]), None);
    }

    #[test]
    fn damaged_text_is_an_error() {
        for text in ["", "{", "\"open", "\"a\\", "[Infinit]", "[-]", "N", "{\"a\": Na}", "I", "\u{feff}{}"] {
            let error = parse("config.json", text).unwrap_err().to_string();
            assert!(error.starts_with("config.json is not valid JSON: "), "{error}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse("config.json", &deep).is_err());
    }
}
