//! Values as Python sees and prints them.
//!
//! `minijinja` already prints `True`, `None` and `['a', 'b']` as Python does. What is added here:
//!
//! - Numbers. The workspace keeps JSON numbers as text, so `3` stays an integer and `3.0` a float. Floats that Python
//!   prints with an exponent (`1e-05`, `1e+16`) and integers beyond 128 bits become a [`PrintedNumber`], which prints
//!   right but does not take part in arithmetic; a template has no reason to compute with them.
//! - `tojson`: Python's `json.dumps` with its separators, float format and keyword arguments, nothing escaped for
//!   HTML.
//! - Whitespace: `strip` and `trim` also remove U+001C to U+001F, which Python counts as whitespace.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use serde_json::Value as Json;

/// Deepest value that `tojson` writes; `json.dumps` gives up near 1000.
const JSON_DEPTH_MAX: usize = 256;

/// A number that is only ever printed.
#[derive(Debug)]
struct PrintedNumber {
    /// As `str()` prints it.
    python: String,
    /// As `json.dumps` prints it.
    json: String,
}

impl Object for PrintedNumber {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.python)
    }
}

/// A JSON value as a template value, keys in their order.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => self::number(&number.to_string()),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(value).collect(),
        Json::Object(entries) => {
            Value::from_pairs(entries.iter().map(|(key, entry)| (key.as_str(), value(entry))))
        }
    }
}

/// A number written in JSON, as Python's `json.loads` reads it: an integer unless it has a point or an exponent.
fn number(text: &str) -> Value {
    if text.contains(['.', 'e', 'E']) {
        let float: f64 = text.parse().unwrap_or(f64::NAN);
        let python = float_repr(float);
        // These two are printed by `minijinja` in the same way.
        if float.is_finite() && !python.contains('e') {
            return Value::from(float);
        }
        return Value::from_object(PrintedNumber { json: float_json(float), python });
    }
    if let Ok(integer) = text.parse::<i64>() {
        return Value::from(integer);
    }
    match text.parse::<i128>() {
        Ok(integer) => Value::from(integer),
        Err(_) => Value::from_object(PrintedNumber { python: text.to_owned(), json: text.to_owned() }),
    }
}

/// Python's `repr(float)`: the shortest text that reads back, with an exponent of at least two digits below 1e-4 and
/// from 1e16. Rust's `Debug` chooses the same digits and the same thresholds.
fn float_repr(float: f64) -> String {
    if float.is_nan() {
        return "nan".to_owned();
    }
    if float.is_infinite() {
        return if float > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = format!("{float:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text,
    }
}

/// Python's `json.dumps(float)`.
fn float_json(float: f64) -> String {
    if float.is_finite() {
        return float_repr(float);
    }
    if float.is_nan() {
        "NaN"
    } else if float > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
    .to_owned()
}

/// About how many bytes a JSON value has, without writing it.
pub(super) fn size_bytes(json: &Json) -> u64 {
    let inner = match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
        Json::String(text) => text.len() as u64,
        Json::Array(items) => items.iter().map(size_bytes).fold(0, u64::saturating_add),
        Json::Object(entries) => entries
            .iter()
            .map(|(key, entry)| size_bytes(entry).saturating_add(key.len() as u64))
            .fold(0, u64::saturating_add),
    };
    inner.saturating_add(8)
}

/// `str.isspace` for one character.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Which ends `strip` and its two halves cut.
#[derive(Clone, Copy)]
enum Ends {
    Both,
    Left,
    Right,
}

fn strip<'a>(text: &'a str, characters: Option<&str>, ends: Ends) -> &'a str {
    let cut = |character: char| match characters {
        Some(set) => set.contains(character),
        None => is_space(character),
    };
    match ends {
        Ends::Both => text.trim_matches(cut),
        Ends::Left => text.trim_start_matches(cut),
        Ends::Right => text.trim_end_matches(cut),
    }
}

/// The `trim` filter: `str(value).strip(characters)`.
pub(super) fn trim(value: &Value, characters: Option<String>) -> String {
    match value.as_str() {
        Some(text) => strip(text, characters.as_deref(), Ends::Both).to_owned(),
        None => strip(&value.to_string(), characters.as_deref(), Ends::Both).to_owned(),
    }
}

/// The `iterable` test. In Python `None` cannot be iterated and an undefined value can.
pub(super) fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Python's methods: those that differ from `minijinja-contrib`'s or are missing there, then the rest.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        let ends = match name {
            "strip" => Some(Ends::Both),
            "lstrip" => Some(Ends::Left),
            "rstrip" => Some(Ends::Right),
            _ => None,
        };
        if let Some(ends) = ends {
            let (characters,): (Option<&str>,) = from_args(args)?;
            return Ok(Value::from(strip(text, characters, ends)));
        }
        if name == "removeprefix" || name == "removesuffix" {
            let (affix,): (&str,) = from_args(args)?;
            let cut =
                if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            return Ok(Value::from(cut.unwrap_or(text)));
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// The `tojson` filter of Hugging Face: `json.dumps(value, ensure_ascii=False, indent=None, separators=None,
/// sort_keys=False)`.
pub(super) fn tojson(state: &State, value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let separators: Option<(String, String)> = match kwargs.get::<Option<Vec<String>>>("separators")? {
        None => None,
        Some(pair) => match <[String; 2]>::try_from(pair) {
            Ok([item, key]) => Some((item, key)),
            Err(_) => return Err(unserialisable("separators must be a pair of strings")),
        },
    };
    let item = if indent.is_some() { "," } else { ", " };
    let (item_separator, key_separator) = separators.unwrap_or_else(|| (item.to_owned(), ": ".to_owned()));
    let mut writer = JsonWriter {
        state,
        out: String::new(),
        indent,
        item_separator,
        key_separator,
        ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        depth: 0,
    };
    kwargs.assert_all_used()?;
    writer.write(value)?;
    Ok(writer.out)
}

fn unserialisable(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadSerialization, format!("tojson: {}", reason.into()))
}

struct JsonWriter<'a, 't, 'e> {
    state: &'a State<'t, 'e>,
    out: String,
    /// Spaces per level; `None` writes one line.
    indent: Option<usize>,
    item_separator: String,
    key_separator: String,
    /// Escape everything beyond ASCII.
    ascii: bool,
    sort: bool,
    depth: usize,
}

impl JsonWriter<'_, '_, '_> {
    fn write(&mut self, value: &Value) -> Result<(), Error> {
        self.state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number_json(value)),
            ValueKind::String => self.write_string(value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
                self.write_container('[', ']', &items, |writer, item| writer.write(item))?;
            }
            ValueKind::Map => self.write_map(value)?,
            kind => match value.downcast_object_ref::<PrintedNumber>() {
                Some(number) => self.out.push_str(&number.json),
                None => return Err(unserialisable(format!("a value of type {kind} is not JSON"))),
            },
        }
        Ok(())
    }

    fn write_map(&mut self, map: &Value) -> Result<(), Error> {
        let keys = map.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
        let mut entries = keys
            .into_iter()
            .map(|key| Ok((key_text(&key)?, map.get_item(&key)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        if self.sort {
            entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        }
        self.write_container('{', '}', &entries, |writer, (key, entry)| {
            writer.write_string(key)?;
            writer.out.push_str(&writer.key_separator);
            writer.write(entry)
        })
    }

    fn write_container<T>(
        &mut self,
        open: char,
        close: char,
        items: &[T],
        write: impl Fn(&mut Self, &T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.depth = self.depth.saturating_add(1);
        if self.depth > JSON_DEPTH_MAX {
            return Err(unserialisable(format!("the value is nested deeper than {JSON_DEPTH_MAX} levels")));
        }
        self.out.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push_str(&self.item_separator);
            }
            self.break_line()?;
            write(self, item)?;
        }
        self.depth = self.depth.saturating_sub(1);
        if !items.is_empty() {
            self.break_line()?;
        }
        self.out.push(close);
        Ok(())
    }

    fn break_line(&mut self) -> Result<(), Error> {
        if let Some(indent) = self.indent {
            let spaces = indent.saturating_mul(self.depth);
            self.state.consume_fuel((spaces as u64) / 64)?;
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', spaces));
        }
        Ok(())
    }

    fn write_string(&mut self, text: &str) -> Result<(), Error> {
        // Sixteen bytes per unit, as the engine charges for its own serialiser.
        self.state.consume_fuel((text.len() as u64) / 16)?;
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..='\u{1f}' => self.write_escape(character),
                '\u{7f}'.. if self.ascii => self.write_escape(character),
                _ => self.out.push(character),
            }
        }
        self.out.push('"');
        Ok(())
    }

    /// `\uXXXX`, two of them for a character beyond the basic plane.
    fn write_escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            self.out.push_str(&format!("\\u{unit:04x}"));
        }
    }
}

fn number_json(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float_json)
}

/// A dictionary key as `json.dumps` writes it.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => Ok(number_json(key)),
        kind => Err(unserialisable(format!("a key of type {kind} is not JSON"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_in_python() {
        // Each right side is what CPython's `str(json.loads(text))` and `json.dumps(json.loads(text))` print.
        for (text, python, json) in [
            ("3", "3", "3"),
            ("-0", "0", "0"),
            ("-0.0", "-0.0", "-0.0"),
            ("3.0", "3.0", "3.0"),
            ("3.10", "3.1", "3.1"),
            ("1E2", "100.0", "100.0"),
            ("1e-5", "1e-05", "1e-05"),
            ("0.0001", "0.0001", "0.0001"),
            ("0.00012345", "0.00012345", "0.00012345"),
            ("1.5e-7", "1.5e-07", "1.5e-07"),
            ("1e15", "1000000000000000.0", "1000000000000000.0"),
            ("1e16", "1e+16", "1e+16"),
            ("1.25e300", "1.25e+300", "1.25e+300"),
            ("1e999", "inf", "Infinity"),
            ("-1e999", "-inf", "-Infinity"),
            ("0.1", "0.1", "0.1"),
            ("18446744073709551616", "18446744073709551616", "18446744073709551616"),
            (
                "123456789012345678901234567890123456789012345",
                "123456789012345678901234567890123456789012345",
                "123456789012345678901234567890123456789012345",
            ),
        ] {
            let value = number(text);
            assert_eq!(value.to_string(), python, "{text}");
            let printed = value.downcast_object_ref::<PrintedNumber>().map(|number| number.json.clone());
            assert_eq!(printed.unwrap_or_else(|| number_json(&value)), json, "{text}");
        }
    }
}
