//! Argument values from text, by the tool's JSON schema.
//!
//! Models write argument values as bare text, so the schema must say what `5` is. The rules, in this order:
//!
//! 1. The allowed types are those of `type` (a name or a list), of the alternatives of `anyOf`, `oneOf` and `allOf`,
//!    of the values of `enum` and `const`, and `null` if `nullable` is true; `$ref` is followed inside the tool's
//!    parameters.
//! 2. If only `string` is allowed, the text is the value, untouched.
//! 3. If `enum` or `const` lists the text as a string, or lists the JSON value that the text spells, that is the
//!    value.
//! 4. If the text, without surrounding whitespace, spells a JSON value of an allowed type other than string, that is
//!    the value. `True`, `False` and `None` are accepted besides JSON's spelling, because templates print Python's.
//!    Where only integers are allowed, `3.0` is 3.
//! 5. If nothing is known about the argument (no schema, no type, unknown tool), any JSON value except a string is
//!    taken as such.
//! 6. Otherwise the text is the value, as a string: a wrong type reaches the tool, which can complain, and nothing is
//!    lost.

use serde_json::{Number, Value};

/// How deep alternatives and references may nest before they are ignored.
const SCHEMA_DEPTH_MAX: usize = 16;

/// The JSON types that a schema allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Types {
    null: bool,
    boolean: bool,
    integer: bool,
    number: bool,
    array: bool,
    object: bool,
    string: bool,
}

impl Types {
    fn insert(&mut self, name: &str) {
        match name {
            "null" => self.null = true,
            "boolean" => self.boolean = true,
            "integer" => self.integer = true,
            "number" => self.number = true,
            "array" => self.array = true,
            "object" => self.object = true,
            "string" => self.string = true,
            _ => {}
        }
    }

    fn insert_type_of(&mut self, value: &Value) {
        self.insert(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if is_integer(number) => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        });
    }

    fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn only_string(self) -> bool {
        self == Self { string: true, ..Self::default() }
    }
}

/// The schema of one argument, and the whole it may refer to.
#[derive(Debug, Clone, Copy, Default)]
pub struct ArgumentSchema<'a> {
    /// The argument's own schema; `None` if the tool or the argument is unknown.
    pub schema: Option<&'a Value>,
    /// The schema of all the tool's parameters, where `$ref` points.
    pub root: Option<&'a Value>,
}

impl<'a> ArgumentSchema<'a> {
    /// Whether the value is text whatever it looks like, so that it can be passed on before it is complete.
    pub fn is_text(&self) -> bool {
        self.types().only_string()
    }

    /// The types other than string that the value may have.
    pub(crate) fn other_types(&self) -> Vec<&'static str> {
        let types = self.types();
        let named = [
            ("null", types.null),
            ("boolean", types.boolean),
            ("integer", types.integer),
            ("number", types.number),
            ("array", types.array),
            ("object", types.object),
        ];
        named.into_iter().filter(|(_, is_allowed)| *is_allowed).map(|(name, _)| name).collect()
    }

    /// The value that a text stands for, by the rules of this module.
    pub fn value(&self, text: &str) -> Value {
        let types = self.types();
        if types.only_string() {
            return text.into();
        }
        let trimmed = text.trim();
        let spelled = spelled_value(trimmed);
        if let Some(member) = self.member(text, trimmed, spelled.as_ref()) {
            return member;
        }
        if types.is_empty() {
            return spelled.filter(|value| !value.is_string()).unwrap_or_else(|| text.into());
        }
        spelled.and_then(|value| admitted(value, types)).unwrap_or_else(|| text.into())
    }

    fn types(&self) -> Types {
        let mut types = Types::default();
        self.visit(&mut |schema| {
            match schema.get("type") {
                Some(Value::String(name)) => types.insert(name),
                Some(Value::Array(names)) => {
                    names.iter().filter_map(Value::as_str).for_each(|name| types.insert(name))
                }
                _ => listed(schema).for_each(|value| types.insert_type_of(value)),
            }
            if schema.get("nullable") == Some(&Value::Bool(true)) {
                types.null = true;
            }
        });
        types
    }

    /// The member of `enum` or `const` that the text names, strings first.
    fn member(&self, text: &str, trimmed: &str, spelled: Option<&Value>) -> Option<Value> {
        let mut members = Vec::new();
        self.visit(&mut |schema| members.extend(listed(schema)));
        let as_text = |wanted: &str| members.iter().find(|member| member.as_str() == Some(wanted));
        let found = as_text(text).or_else(|| as_text(trimmed));
        found
            .or_else(|| members.iter().find(|member| Some(**member) == spelled))
            .map(|member| (*member).clone())
    }

    /// Calls `visit` for the schema and for every alternative in it.
    fn visit(&self, visit: &mut dyn FnMut(&'a Value)) {
        if let Some(schema) = self.schema {
            self.visit_inner(schema, visit, 0);
        }
    }

    fn visit_inner(&self, schema: &'a Value, visit: &mut dyn FnMut(&'a Value), depth: usize) {
        if depth > SCHEMA_DEPTH_MAX {
            return;
        }
        visit(schema);
        let pointer = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        if let Some(target) = pointer.and_then(|pointer| self.root?.pointer(pointer)) {
            self.visit_inner(target, visit, depth.saturating_add(1));
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for inner in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.visit_inner(inner, visit, depth.saturating_add(1));
            }
        }
    }
}

/// The values of `enum` and `const`.
fn listed(schema: &Value) -> impl Iterator<Item = &Value> {
    schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const"))
}

fn is_integer(number: &Number) -> bool {
    !number.to_string().contains(['.', 'e', 'E'])
}

/// The value that a text spells in JSON, or as Python prints it.
fn spelled_value(text: &str) -> Option<Value> {
    match text {
        "True" | "TRUE" => Some(Value::Bool(true)),
        "False" | "FALSE" => Some(Value::Bool(false)),
        "None" | "Null" | "NULL" => Some(Value::Null),
        _ => serde_json::from_str(text).ok(),
    }
}

/// The value, if its type is allowed; a whole number written with a point becomes an integer where only integers are.
fn admitted(value: Value, types: Types) -> Option<Value> {
    let allowed = match &value {
        Value::Null => types.null,
        Value::Bool(_) => types.boolean,
        Value::Number(number) if is_integer(number) => types.integer || types.number,
        Value::Number(number) => {
            if !types.number && types.integer {
                return whole(number);
            }
            types.number
        }
        Value::Array(_) => types.array,
        Value::Object(_) => types.object,
        Value::String(_) => false,
    };
    allowed.then_some(value)
}

/// `3.0` as `3`, while a double can tell neighbours apart.
fn whole(number: &Number) -> Option<Value> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT_MAX)?;
    Some(Value::from(float as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(schema: Value, text: &str, expected: Value) {
        let root = json!({"$defs": {"size": {"type": "integer"}, "loop": {"$ref": "#/$defs/loop"}}});
        let argument = ArgumentSchema { schema: Some(&schema), root: Some(&root) };
        assert_eq!(argument.value(text), expected, "{schema}: {text:?}");
    }

    #[test]
    fn the_schema_decides() {
        check(json!({"type": "string"}), "5", json!("5"));
        check(json!({"type": "string"}), " null\n", json!(" null\n"));
        check(json!({"type": "integer"}), "5", json!(5));
        check(json!({"type": "integer"}), " -17\n", json!(-17));
        check(json!({"type": "integer"}), "3.0", json!(3));
        check(json!({"type": "integer"}), "3.5", json!("3.5"));
        check(json!({"type": "integer"}), "five", json!("five"));
        check(json!({"type": "number"}), "5", json!(5));
        check(json!({"type": "number"}), "2.50", serde_json::from_str("2.50").unwrap());
        check(json!({"type": "boolean"}), "True", json!(true));
        check(json!({"type": "boolean"}), "false", json!(false));
        check(json!({"type": "boolean"}), "yes", json!("yes"));
        check(json!({"type": "null"}), "None", json!(null));
        check(json!({"type": "array"}), "[1, {\"a\": []}]", json!([1, {"a": []}]));
        check(json!({"type": "array"}), "{}", json!("{}"));
        check(json!({"type": "object"}), "\n{\"k\": \"v\"}\n", json!({"k": "v"}));
        check(json!({"type": "object"}), "{broken", json!("{broken"));
    }

    #[test]
    fn unions_prefer_the_narrower_type() {
        let nullable = json!({"type": ["string", "null"]});
        check(nullable.clone(), "null", json!(null));
        check(nullable.clone(), "nullable", json!("nullable"));
        check(nullable, "5", json!("5"));
        check(json!({"type": ["string", "integer"]}), "5", json!(5));
        check(
            json!({"anyOf": [{"type": "number"}, {"type": "string"}]}),
            "1e3",
            serde_json::from_str("1e3").unwrap(),
        );
        check(json!({"anyOf": [{"type": "number"}, {"type": "string"}]}), "x", json!("x"));
        check(json!({"type": "integer", "nullable": true}), "null", json!(null));
        check(json!({"$ref": "#/$defs/size"}), "7", json!(7));
        check(json!({"$ref": "#/$defs/loop"}), "7", json!(7));
        check(json!({"$ref": "https://elsewhere"}), "a b", json!("a b"));
    }

    #[test]
    fn enumerations_decide_by_their_members() {
        let mixed = json!({"enum": ["1", 2, null, "none"]});
        check(mixed.clone(), "1", json!("1"));
        check(mixed.clone(), "2", json!(2));
        check(mixed.clone(), "null", json!(null));
        check(mixed.clone(), "none", json!("none"));
        check(mixed, "three", json!("three"));
        check(json!({"const": 5}), "5", json!(5));
        check(json!({"enum": ["celsius", "kelvin"]}), "celsius", json!("celsius"));
    }

    #[test]
    fn without_a_schema_json_is_json_and_text_is_text() {
        let unknown = ArgumentSchema::default();
        for (text, expected) in [
            ("5", json!(5)),
            ("[1]", json!([1])),
            ("true", json!(true)),
            ("\"quoted\"", json!("\"quoted\"")),
            ("hello world", json!("hello world")),
            ("", json!("")),
        ] {
            assert_eq!(unknown.value(text), expected, "{text:?}");
        }
        check(json!({"description": "no type"}), "{\"a\": 1}", json!({"a": 1}));
    }
}
