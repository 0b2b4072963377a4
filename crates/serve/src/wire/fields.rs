//! The fields of a JSON object in a request, read strictly.
//!
//! A field that the server knows has one type and one range, and anything else is an error that names the field, as
//! `tools[2].function.name`. `null` means absent, since clients send it for options that were not set. Fields that
//! nobody asks for are not looked at, because clients send many that only their own service knows.

use serde_json::{Map, Value};

use crate::error::ApiError;

/// One object, and where in the request it is.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    place: Place<'a>,
}

/// A place in a request: a path that is only written out for an error message.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The request itself.
    Root,
    /// A field of an object.
    Field(&'a Place<'a>, &'a str),
    /// An element of a list.
    Element(&'a Place<'a>, usize),
}

impl Place<'_> {
    /// The path, as `messages[0].content`; empty for the request itself.
    pub fn path(&self) -> String {
        match self {
            Place::Root => String::new(),
            Place::Field(Place::Root, name) => (*name).to_owned(),
            Place::Field(parent, name) => format!("{}.{name}", parent.path()),
            Place::Element(parent, index) => format!("{}[{index}]", parent.path()),
        }
    }

    /// The error that something else was expected here.
    pub fn expected(&self, expected: &str, found: &Value) -> ApiError {
        let path = self.path();
        let subject = if path.is_empty() { "the request".to_owned() } else { format!("`{path}`") };
        let found = describe(found);
        ApiError::invalid(Some(path), format!("{subject} must be {expected}, but it is {found}"))
    }

    /// The error that this is well-formed but not what the server can do.
    pub fn refused(&self, why: &str) -> ApiError {
        let path = self.path();
        let message = format!("`{path}` {why}");
        ApiError::invalid(Some(path), message)
    }
}

/// A value in a few words; long ones are not repeated to their sender.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => shorten(&value.to_string()),
        Value::String(text) => format!("the string {:?}", shorten(text)),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn shorten(text: &str) -> String {
    const SHOWN_CHARS: usize = 40;
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A whole number; `3.0` is one in JSON Schema's eyes.
pub fn whole(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    if let Some(whole) = number.as_i128() {
        return Some(whole);
    }
    let real = number.as_f64().filter(|real| real.fract() == 0.0 && real.abs() < 1e19)?;
    Some(real as i128)
}

impl<'a> Fields<'a> {
    /// The fields of a request's body.
    pub fn of_body(map: &'a Map<String, Value>) -> Self {
        Self { map, place: Place::Root }
    }

    /// The fields of a value that must be an object.
    ///
    /// # Errors
    /// It is none.
    pub fn new(value: &'a Value, place: Place<'a>) -> Result<Self, ApiError> {
        let map = value.as_object().ok_or_else(|| place.expected("an object", value))?;
        Ok(Self { map, place })
    }

    /// The object itself.
    pub fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// A field of any type; `None` if it is absent or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The error that something else was expected in a field.
    pub fn expected(&self, name: &str, expected: &str) -> ApiError {
        let place = Place::Field(&self.place, name);
        match self.get(name) {
            Some(found) => place.expected(expected, found),
            None => {
                let path = place.path();
                let message = format!("`{path}` is missing; it must be {expected}");
                ApiError::invalid(Some(path), message)
            }
        }
    }

    /// The error that a field is well-formed but not what the server can do.
    pub fn refused(&self, name: &str, why: &str) -> ApiError {
        Place::Field(&self.place, name).refused(why)
    }

    /// A field as `read` sees it.
    ///
    /// # Errors
    /// It is present and `read` makes nothing of it.
    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.expected(name, expected)),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.read(name, "a string", Value::as_str)
    }

    /// A string that must be there.
    ///
    /// # Errors
    /// It is missing or something else.
    pub fn required_text(&self, name: &str) -> Result<&'a str, ApiError> {
        self.text(name)?.ok_or_else(|| self.expected(name, "a string"))
    }

    /// A boolean.
    ///
    /// # Errors
    /// It is something else.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// A number from `low` to `high`.
    ///
    /// # Errors
    /// It is something else.
    pub fn number(&self, name: &str, low: f64, high: f64) -> Result<Option<f32>, ApiError> {
        let expected = format!("a number from {low} to {high}");
        self.read(name, &expected, |value| {
            let number = value.as_f64().filter(|number| (low..=high).contains(number))?;
            Some(number as f32)
        })
    }

    /// A whole number from `low` to `high`.
    ///
    /// # Errors
    /// It is something else.
    pub fn integer(&self, name: &str, low: i64, high: i64) -> Result<Option<i64>, ApiError> {
        let expected = format!("a whole number from {low} to {high}");
        self.read(name, &expected, |value| {
            i64::try_from(whole(value)?).ok().filter(|number| (low..=high).contains(number))
        })
    }

    /// A whole number from `low` to `high`, where a number of things is meant.
    ///
    /// # Errors
    /// It is something else.
    pub fn count(&self, name: &str, low: usize, high: usize) -> Result<Option<usize>, ApiError> {
        let expected = format!("a whole number from {low} to {high}");
        self.read(name, &expected, |value| {
            usize::try_from(whole(value)?).ok().filter(|number| (low..=high).contains(number))
        })
    }

    /// One of a few words.
    ///
    /// # Errors
    /// It is something else.
    pub fn choice<T: Clone>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let names: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let expected = format!("one of {}", names.join(", "));
        self.read(name, &expected, |value| {
            let text = value.as_str()?;
            choices.iter().find(|(word, _)| *word == text).map(|(_, meaning)| meaning.clone())
        })
    }

    /// A list.
    ///
    /// # Errors
    /// It is something else.
    pub fn list(&self, name: &str) -> Result<Option<&'a [Value]>, ApiError> {
        self.read(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// An object, as it is.
    ///
    /// # Errors
    /// It is something else.
    pub fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, ApiError> {
        self.read(name, "an object", Value::as_object)
    }

    /// The fields of an object, given to `read`.
    ///
    /// # Errors
    /// It is something else, or `read` fails.
    pub fn within<T>(
        &self,
        name: &str,
        read: impl FnOnce(Fields<'_>) -> Result<T, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(Fields::new(value, Place::Field(&self.place, name))?).map(Some),
        }
    }

    /// The elements of a list, each given to `read` with its place. Empty if the list is absent.
    ///
    /// # Errors
    /// It is no list, or `read` fails.
    pub fn each<T>(
        &self,
        name: &str,
        mut read: impl FnMut(&Value, &Place<'_>) -> Result<T, ApiError>,
    ) -> Result<Vec<T>, ApiError> {
        let place = Place::Field(&self.place, name);
        let items = self.list(name)?.unwrap_or_default();
        items.iter().enumerate().map(|(index, value)| read(value, &Place::Element(&place, index))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn null_is_absent_and_the_unknown_is_ignored() {
        let map = body(json!({"a": null, "b": 1, "unknown": [{}]}));
        let fields = Fields::of_body(&map);
        assert_eq!(fields.text("a").expect("absent"), None);
        assert_eq!(fields.count("b", 1, 9).expect("one"), Some(1));
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_point_but_not_with_a_fraction() {
        let map = body(json!({"a": 3.0, "b": 3.5, "c": -1, "d": true, "e": "3", "f": 1e300}));
        let fields = Fields::of_body(&map);
        assert_eq!(fields.count("a", 0, 9).expect("three"), Some(3));
        for name in ["b", "c", "d", "e", "f"] {
            assert!(fields.count(name, 0, 9).is_err(), "{name}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        let map = body(json!({"tools": [{"function": {}}, {"function": {"name": 5}}]}));
        let fields = Fields::of_body(&map);
        let error = fields
            .each("tools", |value, place| {
                Fields::new(value, *place)?.within("function", |f| f.text("name").map(drop))
            })
            .expect_err("5 is no name");
        assert_eq!(error.param.as_deref(), Some("tools[1].function.name"));
        assert_eq!(error.message, "`tools[1].function.name` must be a string, but it is 5");
    }

    #[test]
    fn numbers_have_ranges() {
        let map = body(json!({"t": 2.1, "u": 2, "v": "1"}));
        let fields = Fields::of_body(&map);
        assert!(fields.number("t", 0.0, 2.0).is_err());
        assert_eq!(fields.number("u", 0.0, 2.0).expect("two"), Some(2.0));
        assert!(fields.number("v", 0.0, 2.0).is_err());
    }
}
