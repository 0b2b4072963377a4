//! A validator of JSON schemas that owes nothing to what it checks: for the keywords that the tests use, in the plainest
//! way.

use serde_json::Value;

/// Whether a value is of a schema, for the keywords that are tried out here; an independent reading of the standard.
pub fn is_valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(map) = schema else { return schema.as_bool().unwrap() };
    map.iter().all(|(keyword, wanted)| match keyword.as_str() {
        "type" => match wanted {
            Value::Array(types) => types.iter().any(|t| is_of_type(t.as_str().unwrap(), value)),
            single => is_of_type(single.as_str().unwrap(), value),
        },
        "enum" => wanted.as_array().unwrap().contains(value),
        "const" => wanted == value,
        "anyOf" => wanted.as_array().unwrap().iter().any(|s| is_valid(root, s, value)),
        "oneOf" => wanted.as_array().unwrap().iter().filter(|s| is_valid(root, s, value)).count() == 1,
        "allOf" => wanted.as_array().unwrap().iter().all(|s| is_valid(root, s, value)),
        "$ref" => {
            let pointer = wanted.as_str().unwrap().trim_start_matches('#');
            is_valid(root, root.pointer(pointer).unwrap(), value)
        }
        "minimum" => value.as_f64().is_none_or(|x| x >= wanted.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|x| x <= wanted.as_f64().unwrap()),
        "exclusiveMinimum" => value.as_f64().is_none_or(|x| x > wanted.as_f64().unwrap()),
        "exclusiveMaximum" => value.as_f64().is_none_or(|x| x < wanted.as_f64().unwrap()),
        // Beyond 2^53 a double does not tell a multiple from its neighbours.
        "multipleOf" => value
            .as_f64()
            .is_none_or(|x| x.abs() > 9e15 || (x / wanted.as_f64().unwrap()).fract().abs() < 1e-9),
        "minLength" => value.as_str().is_none_or(|t| t.chars().count() >= wanted.as_u64().unwrap() as usize),
        "maxLength" => value.as_str().is_none_or(|t| t.chars().count() <= wanted.as_u64().unwrap() as usize),
        "minItems" => value.as_array().is_none_or(|list| list.len() >= wanted.as_u64().unwrap() as usize),
        "maxItems" => value.as_array().is_none_or(|list| list.len() <= wanted.as_u64().unwrap() as usize),
        "required" => value.as_object().is_none_or(|object| {
            wanted.as_array().unwrap().iter().all(|name| object.contains_key(name.as_str().unwrap()))
        }),
        "properties" => value.as_object().is_none_or(|object| {
            object.iter().all(|(name, value)| wanted.get(name).is_none_or(|s| is_valid(root, s, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let known = |name: &String| map.get("properties").is_some_and(|known| known.get(name).is_some());
            let like = |name: &String| {
                let patterns = map.get("patternProperties").and_then(Value::as_object);
                patterns.is_some_and(|patterns| patterns.keys().any(|pattern| matches(pattern, name)))
            };
            object.iter().all(|(name, value)| known(name) || like(name) || is_valid(root, wanted, value))
        }),
        "patternProperties" => value.as_object().is_none_or(|object| {
            object.iter().all(|(name, value)| {
                let patterns = wanted.as_object().unwrap().iter();
                patterns.filter(|(pattern, _)| matches(pattern, name)).all(|(_, s)| is_valid(root, s, value))
            })
        }),
        "prefixItems" => value.as_array().is_none_or(|list| {
            wanted.as_array().unwrap().iter().zip(list).all(|(schema, item)| is_valid(root, schema, item))
        }),
        "items" => value.as_array().is_none_or(|list| {
            let before = map.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
            list.iter().skip(before).all(|item| is_valid(root, wanted, item))
        }),
        "pattern" => value.as_str().is_none_or(|text| matches(wanted.as_str().unwrap(), text)),
        "format" => value.as_str().is_none_or(|text| is_of_format(wanted.as_str().unwrap(), text)),
        "$defs" | "definitions" | "title" | "description" | "$schema" | "default" => true,
        other => panic!("the validator of this test lacks {other}"),
    })
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        // What is too large for a double has hundreds of digits and no point among them.
        "integer" => value.is_number() && value.as_f64().is_none_or(|x| x.is_infinite() || x.fract() == 0.0),
        other => panic!("no type is called {other}"),
    }
}

/// Whether a text is of a pattern made of `^`, `$`, single characters, classes and `\\d`, each with `?`, `*`, `+` or `{n,m}`
/// behind it, in the eyes of the plainest matcher there is.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    match pattern.strip_prefix(&['^']) {
        Some(anchored) => matches_here(anchored, &text),
        None => (0..=text.len()).any(|at| matches_here(&pattern, &text[at..])),
    }
}

fn matches_here(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => return true,
        ['$'] => return text.is_empty(),
        _ => {}
    }
    let len = match pattern[0] {
        '[' => pattern.iter().position(|&c| c == ']').unwrap() + 1,
        '\\' => 2,
        _ => 1,
    };
    let (one, rest) = pattern.split_at(len);
    let is_one = |c: char| match one {
        ['\\', 'd'] => c.is_ascii_digit(),
        ['\\', other] => c == *other,
        ['.'] => true,
        ['[', class @ .., ']'] => is_in_class(class, c),
        single => single == [c],
    };
    let (least, most, rest) = match rest {
        ['?', rest @ ..] => (0, 1, rest),
        ['*', rest @ ..] => (0, usize::MAX, rest),
        ['+', rest @ ..] => (1, usize::MAX, rest),
        ['{', ..] => {
            let end = rest.iter().position(|&c| c == '}').unwrap();
            let inside: String = rest[1..end].iter().collect();
            let (least, most) = inside.split_once(',').unwrap_or((&inside, &inside));
            (least.parse().unwrap(), most.parse().unwrap_or(usize::MAX), &rest[end + 1..])
        }
        rest => (1, 1, rest),
    };
    let many = text.iter().take_while(|&&c| is_one(c)).count().min(most);
    (least..=many).any(|count| matches_here(rest, &text[count..]))
}

fn is_in_class(class: &[char], c: char) -> bool {
    match class {
        [] => false,
        [low, '-', high, rest @ ..] => (*low..=*high).contains(&c) || is_in_class(rest, c),
        [single, rest @ ..] => *single == c || is_in_class(rest, c),
    }
}

fn is_of_format(name: &str, text: &str) -> bool {
    match name {
        "date" => matches(r"^\d{4}-\d{2}-\d{2}$", text),
        "time" => matches(r"^\d{2}:\d{2}:\d{2}.*$", text),
        "date-time" => matches(r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}.*$", text),
        "uuid" => {
            matches("^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$", text)
        }
        "ipv4" => text.split('.').map(str::parse::<u8>).filter(Result::is_ok).count() == 4,
        "email" => text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty()),
        other => panic!("the validator of this test lacks the format {other}"),
    }
}

#[test]
fn the_matcher_itself() {
    for (pattern, text, is_match) in [
        ("^a+$", "aaa", true),
        ("^a+$", "aab", false),
        ("b", "abc", true),
        (r"^[a-c_]{2,3}\d?$", "a_c7", true),
        (r"^[a-c_]{2,3}\d?$", "a", false),
        (r"^\.x$", ".x", true),
    ] {
        assert_eq!(matches(pattern, text), is_match, "{pattern} {text}");
    }
}
