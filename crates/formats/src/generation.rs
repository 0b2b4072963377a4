//! `generation_config.json`: how the authors suggest to sample. Every key is optional.

use serde_json::Value;
use tangelo_core::SamplingOverrides;

use crate::config::Fields;
use crate::error::{Error, Result};
use crate::json;

/// Suggested sampling parameters; `None` where the file is silent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Whether to sample at all; `Some(false)` asks for greedy decoding.
    pub do_sample: Option<bool>,
    /// Divisor of the logits.
    pub temperature: Option<f32>,
    /// Smallest set of tokens with this total probability.
    pub top_p: Option<f32>,
    /// Number of most probable tokens.
    pub top_k: Option<usize>,
    /// Least probability relative to the best token.
    pub min_p: Option<f32>,
    /// Divisor (or factor) for logits of tokens already seen.
    pub repetition_penalty: Option<f32>,
    /// Most tokens to generate.
    pub max_new_tokens: Option<usize>,
    /// Beginning-of-sequence token.
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// Padding token.
    pub pad_token_id: Option<u32>,
}

impl GenerationConfig {
    /// Reads the text of a `generation_config.json`.
    ///
    /// # Errors
    /// [`Error::Json`] for broken text, [`Error::Config`] for a key of the wrong type.
    pub fn from_json(text: &str) -> Result<GenerationConfig> {
        GenerationConfig::from_value(&json::parse("generation_config.json", text)?)
    }

    /// What the authors suggest, as wishes that somebody else's come before.
    pub fn overrides(&self) -> SamplingOverrides {
        SamplingOverrides {
            temperature: if self.do_sample == Some(false) { Some(0.0) } else { self.temperature },
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            max_tokens: self.max_new_tokens,
            ..SamplingOverrides::default()
        }
    }

    pub(crate) fn from_value(value: &Value) -> Result<GenerationConfig> {
        let Value::Object(object) = value else {
            return Err(Error::config("generation_config.json", "should be an object of keys and values"));
        };
        let fields = Fields(object);
        Ok(GenerationConfig {
            do_sample: fields.bool("do_sample")?,
            temperature: fields.f32("temperature")?,
            top_p: fields.f32("top_p")?,
            top_k: fields.usize("top_k")?,
            min_p: fields.f32("min_p")?,
            repetition_penalty: fields.f32("repetition_penalty")?,
            max_new_tokens: fields.usize("max_new_tokens")?,
            bos_token_id: fields.token_ids("bos_token_id")?.first().copied(),
            eos_token_ids: fields.token_ids("eos_token_id")?,
            pad_token_id: fields.token_ids("pad_token_id")?.first().copied(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_optional() {
        assert_eq!(GenerationConfig::from_json("{}").unwrap(), GenerationConfig::default());
        let text = r#"{"do_sample": true, "eos_token_id": [2, 11], "temperature": 1.0, "top_p": 0.95, "pad_token_id": null}"#;
        let g = GenerationConfig::from_json(text).unwrap();
        assert_eq!((g.temperature, g.top_p, g.do_sample), (Some(1.0), Some(0.95), Some(true)));
        assert_eq!((g.eos_token_ids, g.pad_token_id, g.top_k), (vec![2, 11], None, None));
        let wrong = GenerationConfig::from_json(r#"{"temperature": "hot"}"#).unwrap_err();
        assert_eq!(wrong.to_string(), "configuration key `temperature` should be a number, found \"hot\"");
    }
}
