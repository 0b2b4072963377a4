//! The key-value pairs of a GGUF file, in file order, with typed access.
//!
//! Every getter returns `Ok(None)` for an absent key and an error for a present one of another type, so that
//! a damaged file is not mistaken for a sparse one.

use std::collections::HashMap;

use super::value::{Array, Strings, Value};
use crate::error::{Error, Result, shown};

/// Ordered metadata with unique keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    pairs: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Metadata {
    /// Adds a pair at the end, or replaces the value of an existing key.
    pub fn set(&mut self, key: impl Into<String>, value: Value) {
        let key = key.into();
        match self.index.get(&key).and_then(|&i| self.pairs.get_mut(i)) {
            Some(pair) => pair.1 = value,
            None => {
                self.index.insert(key.clone(), self.pairs.len());
                self.pairs.push((key, value));
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).and_then(|&i| self.pairs.get(i)).map(|(_, v)| v)
    }

    /// All pairs in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || Error::GgufType { key: shown(key), expected, found: value.describe() };
        read(value).map(Some).ok_or_else(wrong)
    }

    /// A string.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |v| match v {
            Value::String(s) => Some(s.as_str()),
            _ => None,
        })
    }

    /// A non-negative integer of any width that fits in 32 bits.
    pub fn get_u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a non-negative 32-bit integer", |v| v.as_u64().and_then(|x| x.try_into().ok()))
    }

    /// A float of either width.
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a float", |v| match v {
            Value::F32(x) => Some(*x),
            Value::F64(x) => Some(*x as f32),
            _ => None,
        })
    }

    /// A boolean.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |v| match v {
            Value::Bool(x) => Some(*x),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn get_str_array(&self, key: &str) -> Result<Option<&Strings>> {
        self.typed(key, "an array of strings", |v| match v {
            Value::Array(Array::String(s)) => Some(s),
            _ => None,
        })
    }

    /// An array of i32 (u32 is accepted where it fits).
    pub fn get_i32_array(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.typed(key, "an array of i32", |v| match v {
            Value::Array(Array::I32(x)) => Some(x.clone()),
            Value::Array(Array::U32(x)) => x.iter().map(|&x| x.try_into().ok()).collect(),
            _ => None,
        })
    }

    /// An array of f32.
    pub fn get_f32_array(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "an array of f32", |v| match v {
            Value::Array(Array::F32(x)) => Some(x.as_slice()),
            _ => None,
        })
    }

    /// A per-layer number: an array of integers of any width, or one integer that stands for all layers.
    pub fn get_per_layer(&self, key: &str, num_layers: usize) -> Result<Option<Vec<u64>>> {
        let list = self.typed(key, "an integer or an array of non-negative integers", |v| match v {
            Value::Array(array) => array.to_u64s(),
            single => single.as_u64().map(|x| vec![x; num_layers]),
        })?;
        match list {
            Some(list) if list.len() != num_layers => {
                let problem = format!("lists {} layers, but the model has {num_layers}", list.len());
                Err(Error::config(key, problem))
            }
            list => Ok(list),
        }
    }
}

impl<K: Into<String>> FromIterator<(K, Value)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(iter: I) -> Metadata {
        let mut metadata = Metadata::default();
        for (key, value) in iter {
            metadata.set(key, value);
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_none_and_mistyped_is_an_error() {
        let m: Metadata = [
            ("s", Value::String("x".into())),
            ("n", Value::I32(3)),
            ("l", Value::Array(Array::U32(vec![1, 2]))),
        ]
        .into_iter()
        .collect();
        assert_eq!(m.get_str("s").unwrap(), Some("x"));
        assert_eq!(m.get_str("absent").unwrap(), None);
        assert_eq!(m.get_u32("n").unwrap(), Some(3));
        assert_eq!(m.get_per_layer("n", 2).unwrap(), Some(vec![3, 3]));
        assert_eq!(m.get_per_layer("l", 2).unwrap(), Some(vec![1, 2]));
        let short = m.get_per_layer("l", 3).unwrap_err();
        assert_eq!(short.to_string(), "configuration key `l` lists 2 layers, but the model has 3");
        let wrong = m.get_bool("l").unwrap_err();
        assert_eq!(wrong.to_string(), "GGUF metadata `l` should be a bool, found an array of u32");
    }
}
