//! What happens to a JSON schema before the library sees it: where the two would read it differently, it is rewritten or
//! refused.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Properties of one object, at most: the library's time grows with their square.
const PROPERTIES_MAX: usize = 1_000;
/// Deepest nesting of a schema.
const DEPTH_MAX: usize = 128;

/// The schema with the whitespace that is allowed, and with expressions as JSON Schema means them.
///
/// # Errors
/// [`Error::Grammar`] if it is no schema, allows nothing, or has names that references would have to be resolved against.
pub(super) fn prepared(schema: &Value) -> Result<Value> {
    let refused = |reason: &str| Err(Error::Grammar { reason: reason.to_string() });
    let mut map = match schema {
        Value::Object(map) => rewritten(map, 0)?,
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => return refused("the schema `false` allows nothing"),
        _ => return refused("a JSON schema is an object or a boolean"),
    };
    // One space behind separators and no other whitespace, as models write JSON. What the library's options are called
    // must not come from outside, so they are put in last.
    let options = json!({
        "item_separator": ", ",
        "key_separator": ": ",
        "whitespace_flexible": false,
        "lenient": false,
        "coerce_one_of": true,
    });
    map.insert("x-guidance".to_string(), options);
    Ok(Value::Object(map))
}

/// A grammar in Lark with all JSON schemas in it prepared.
///
/// # Errors
/// As [`prepared`].
pub(super) fn prepared_lark(grammar: &str) -> Result<String> {
    const KEYWORD: &str = "%json";
    let mut new = String::with_capacity(grammar.len());
    let mut rest = grammar;
    while let Some(c) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix(KEYWORD) {
            let mut values = serde_json::Deserializer::from_str(behind).into_iter::<Value>();
            let schema = match values.next() {
                Some(Ok(schema)) => schema,
                _ => {
                    let reason = "`%json` in the grammar is not followed by JSON".to_string();
                    return Err(Error::Grammar { reason });
                }
            };
            new.push_str(&format!("{KEYWORD} {}", prepared(&schema)?));
            rest = behind.get(values.byte_offset()..).unwrap_or_default();
            continue;
        }
        // Strings, expressions and comments are passed over, because they are text to be matched or to be read.
        let len = match c {
            '"' | '/' if !rest.starts_with("//") => quoted(rest, c),
            '#' | '/' => rest.find('\n').unwrap_or(rest.len()),
            _ => c.len_utf8(),
        };
        let (passed, behind) = rest.split_at(len);
        new.push_str(passed);
        rest = behind;
    }
    Ok(new)
}

/// Bytes of what begins with a quotation mark and goes on to the next one, or to the end.
fn quoted(text: &str, mark: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == mark => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn rewritten(map: &Map<String, Value>, depth: usize) -> Result<Map<String, Value>> {
    let refused = |reason: String| Err(Error::Grammar { reason });
    if depth > DEPTH_MAX {
        return refused(format!("it is nested more than {DEPTH_MAX} levels deep"));
    }
    // The library resolves references against the whole document only.
    if depth > 0 && map.get("$id").is_some_and(Value::is_string) {
        return refused("a `$id` below the top of the schema is not supported".to_string());
    }
    let properties = map.get("properties").and_then(Value::as_object).map_or(0, Map::len);
    if properties > PROPERTIES_MAX {
        return refused(format!(
            "an object in it has {properties} properties, but at most {PROPERTIES_MAX} are accepted"
        ));
    }
    let mut new = Map::new();
    for (key, value) in map {
        let value = match (key.as_str(), value) {
            ("const" | "enum" | "default" | "examples", literal) => literal.clone(),
            ("pattern", Value::String(expression)) => ecma(expression).into(),
            ("patternProperties", Value::Object(properties)) => {
                let rewrite = |(name, schema): (&String, &Value)| Ok((ecma(name), below(schema, depth)?));
                Value::Object(properties.iter().map(rewrite).collect::<Result<_>>()?)
            }
            (_, other) => below(other, depth)?,
        };
        new.insert(key.clone(), value);
    }
    Ok(new)
}

fn below(value: &Value, depth: usize) -> Result<Value> {
    match value {
        Value::Object(map) => rewritten(map, depth + 1).map(Value::Object),
        Value::Array(list) => list.iter().map(|value| below(value, depth + 1)).collect(),
        other => Ok(other.clone()),
    }
}

/// An expression of ECMA 262 for an engine in which `\d` and `\w` know all of Unicode: there they are ASCII.
fn ecma(expression: &str) -> String {
    let mut new = String::with_capacity(expression.len());
    let (mut chars, mut is_in_class) = (expression.chars(), false);
    while let Some(c) = chars.next() {
        if c != '\\' {
            is_in_class = match c {
                '[' => true,
                ']' => false,
                _ => is_in_class,
            };
            new.push(c);
            continue;
        }
        let escaped = chars.next();
        let ascii = match (escaped, is_in_class) {
            (Some('d'), true) => "0-9",
            (Some('d'), false) => "[0-9]",
            (Some('D'), false) => "[^0-9]",
            (Some('w'), true) => "A-Za-z0-9_",
            (Some('w'), false) => "[A-Za-z0-9_]",
            (Some('W'), false) => "[^A-Za-z0-9_]",
            _ => {
                new.push(c);
                new.extend(escaped);
                continue;
            }
        };
        new.push_str(ascii);
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_ascii_and_the_rest_stays() {
        for (given, rewritten) in [
            (r"^\d{3}-\w+$", "^[0-9]{3}-[A-Za-z0-9_]+$"),
            (r"[\d.\w]\D\W", "[0-9.A-Za-z0-9_][^0-9][^A-Za-z0-9_]"),
            (r"\\d\[\d]\p{L}\", r"\\d\[[0-9]]\p{L}\"),
        ] {
            assert_eq!(ecma(given), rewritten);
        }
    }

    #[test]
    fn schemas_in_grammars_are_prepared_where_they_are_schemas() {
        let grammar =
            "start: \"%json {\\\"\" /%json \\/{}/ // %json {}\nx: %json {\"pattern\": \"\\\\d}\"} \"é\"";
        let new = prepared_lark(grammar).expect("it is a grammar");
        let (before, behind) = new.split_once("x: %json {").expect("the rule is there");
        assert_eq!(before, "start: \"%json {\\\"\" /%json \\/{}/ // %json {}\n");
        assert!(behind.contains("\"pattern\":\"[0-9]}\"") && behind.ends_with("} \"é\""), "{behind}");
        assert!(behind.contains("x-guidance"));
        assert!(prepared_lark("start: %json nothing").is_err());
        assert!(prepared_lark("start: %json {\"items\": {\"$id\": \"urn:x\"}}").is_err());
    }

    #[test]
    fn names_and_literals_are_not_schemas() {
        let schema = json!({
            "$id": "urn:top",
            "properties": {"pattern": {"pattern": r"\d"}, "x": {"const": {"$id": "y", "pattern": r"\d"}}},
        });
        let new = prepared(&schema).expect("it is a schema");
        assert_eq!(new["properties"]["pattern"]["pattern"], "[0-9]");
        assert_eq!(new["properties"]["x"], schema["properties"]["x"]);
        assert!(prepared(&json!({"properties": {"a": {"$id": "urn:below"}}})).is_err());
        let mut deep = json!({});
        for _ in 0..200 {
            deep = json!({"items": deep});
        }
        assert!(prepared(&deep).is_err());
    }
}
