//! Objects put together.

use serde_json::Value;

/// An object and the fields of another one, which win and come last.
pub fn with(mut object: Value, fields: Value) -> Value {
    if let (Value::Object(map), Value::Object(fields)) = (&mut object, fields) {
        map.extend(fields);
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn later_fields_win_and_what_is_no_object_stays() {
        assert_eq!(with(json!({"a": 1, "b": 2}), json!({"b": 3, "c": 4})), json!({"a": 1, "b": 3, "c": 4}));
        assert_eq!(with(json!({"a": 1}), json!(5)), json!({"a": 1}));
        assert_eq!(with(json!(5), json!({"a": 1})), json!(5));
    }
}
