//! What lies beside the weights: tokenizer, chat template, licence, stop tokens.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tangelo_core::limits::{CONFIG_BYTES_MAX, TOKENIZER_BYTES_MAX};

use super::{Checkpoint, TokenizerSource};
use crate::error::{Error, Result};
use crate::generation::GenerationConfig;
use crate::gguf::Metadata;
use crate::json;

/// Control tokens that end a turn in this family whether or not a GGUF file names them as such.
const STOP_TOKENS: [&str; 2] = ["</s>", "<|im_end|>"];
/// `LLAMA_TOKEN_TYPE_CONTROL`.
const TOKEN_TYPE_CONTROL: i32 = 3;

impl Checkpoint {
    /// Where the tokenizer is: inside a GGUF file that has one, else `tokenizer.json` in the folder.
    pub fn tokenizer_source(&self) -> TokenizerSource<'_> {
        if let Some(metadata) = self.gguf_metadata()
            && metadata.get("tokenizer.ggml.tokens").is_some()
        {
            return TokenizerSource::Gguf(metadata);
        }
        let path = self.beside("tokenizer.json").filter(|path| path.is_file());
        path.map_or(TokenizerSource::Missing, TokenizerSource::Json)
    }

    /// The path of a file beside the weights.
    fn beside(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(name))
    }

    /// The text of a file beside the weights, if it is there.
    fn text_beside(&self, name: &str) -> Result<Option<String>> {
        self.beside(name).map_or(Ok(None), |path| json::read_text(&path, CONFIG_BYTES_MAX))
    }

    /// The chat template: the one inside a GGUF file, else `chat_template.jinja` in the folder, else the template
    /// in `tokenizer_config.json` (of several named ones, `default`).
    ///
    /// # Errors
    /// When a file that should hold it cannot be read or has another form.
    pub fn chat_template(&self) -> Result<Option<String>> {
        if let Some(metadata) = self.gguf_metadata()
            && let Some(text) = metadata.get_str("tokenizer.chat_template")?
        {
            return Ok(Some(text.to_string()));
        }
        if let Some(text) = self.text_beside("chat_template.jinja")? {
            return Ok(Some(text));
        }
        let Some(path) = self.beside("tokenizer_config.json") else { return Ok(None) };
        let Some(config) = json::read_file("tokenizer_config.json", &path)? else { return Ok(None) };
        match config.get("chat_template") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Array(named)) => {
                let default = named.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
                Ok(default.and_then(|t| t.get("template")).and_then(Value::as_str).map(str::to_string))
            }
            Some(_) => {
                let problem = "should be a string or a list of named templates";
                Err(Error::config("chat_template", problem).in_file(&path))
            }
        }
    }

    /// The licence as far as the files name it: GGUF metadata, the front matter of README.md, or the first line
    /// of LICENSE.
    pub fn license(&self) -> Option<String> {
        if let Some(metadata) = self.gguf_metadata() {
            let keys = ["general.license.name", "general.license"];
            let text = keys.into_iter().find_map(|key| metadata.get_str(key).ok().flatten());
            if let Some(text) = text {
                return Some(text.to_string());
            }
        }
        // These two are prose for people: a file that cannot be read is a file that says nothing.
        let read = |name: &str| self.text_beside(name).ok().flatten();
        read("README.md").as_deref().and_then(front_matter_license).or_else(|| {
            let text = read("LICENSE")?;
            text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_string)
        })
    }
}

/// `license_name:` or `license:` in the YAML block that opens a model card.
fn front_matter_license(readme: &str) -> Option<String> {
    let block = readme.strip_prefix("---")?.split("\n---").next()?;
    let value = |key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let value = line.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_string())
    };
    value("license_name").or_else(|| value("license"))
}

/// The id of the `eos_token` that `tokenizer_config.json` names, looked up there or in `tokenizer.json`.
pub(super) fn tokenizer_eos(folder: &Path) -> Result<Vec<u32>> {
    let path = folder.join("tokenizer_config.json");
    let Some(config) = json::read_file("tokenizer_config.json", &path)? else { return Ok(Vec::new()) };
    let token = match config.get("eos_token") {
        Some(Value::String(text)) => text.as_str(),
        Some(object) => object.get("content").and_then(Value::as_str).unwrap_or_default(),
        None => return Ok(Vec::new()),
    };
    let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
    let declared = decoder.and_then(|tokens| {
        let (id, _) = tokens.iter().find(|(_, t)| t.get("content").and_then(Value::as_str) == Some(token))?;
        id.parse().ok()
    });
    match declared {
        Some(id) => Ok(vec![id]),
        None => added_token_id(&folder.join("tokenizer.json"), token).map(|id| id.into_iter().collect()),
    }
}

/// The id of an added token in a `tokenizer.json`, of which nothing else is kept.
fn added_token_id(path: &Path, token: &str) -> Result<Option<u32>> {
    #[derive(Deserialize)]
    struct AddedToken {
        id: u32,
        content: String,
    }
    #[derive(Deserialize)]
    struct AddedTokens {
        #[serde(default)]
        added_tokens: Vec<AddedToken>,
    }
    let Some(text) = json::read_text(path, TOKENIZER_BYTES_MAX)? else { return Ok(None) };
    let parsed: AddedTokens = serde_json::from_str(&text)
        .map_err(|cause| Error::Json { what: "tokenizer.json", cause }.in_file(path))?;
    Ok(parsed.added_tokens.into_iter().find(|t| t.content == token).map(|t| t.id))
}

/// The ids at which generation from a GGUF file ends.
pub(super) fn gguf_stop_ids(metadata: &Metadata) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for key in ["eos", "eot", "eom"] {
        ids.extend(metadata.get_u32(&format!("tokenizer.ggml.{key}_token_id"))?);
    }
    let tokens = metadata.get_str_array("tokenizer.ggml.tokens")?;
    let types = metadata.get_i32_array("tokenizer.ggml.token_type")?;
    if let (Some(tokens), Some(types)) = (tokens, types) {
        let control = tokens.iter().zip(&types).zip(0u32..).filter(|((_, t), _)| **t == TOKEN_TYPE_CONTROL);
        ids.extend(control.filter(|((text, _), _)| STOP_TOKENS.contains(text)).map(|(_, id)| id));
    }
    Ok(ids)
}

/// Sampling parameters that recent converters store under `general.sampling.*`.
pub(super) fn gguf_generation(metadata: &Metadata) -> Result<GenerationConfig> {
    let id = |key: &str| metadata.get_u32(&format!("tokenizer.ggml.{key}_token_id"));
    Ok(GenerationConfig {
        temperature: metadata.get_f32("general.sampling.temp")?,
        top_p: metadata.get_f32("general.sampling.top_p")?,
        top_k: metadata.get_u32("general.sampling.top_k")?.map(|k| k as usize),
        min_p: metadata.get_f32("general.sampling.min_p")?,
        repetition_penalty: metadata.get_f32("general.sampling.penalty_repeat")?,
        bos_token_id: id("bos")?,
        eos_token_ids: id("eos")?.into_iter().collect(),
        pad_token_id: id("padding")?,
        ..GenerationConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_found_in_model_cards() {
        let card =
            "---\nlicense: other\nlicense_name: 'nvidia-open-model-license'\n---\n# Model\nlicense: no\n";
        assert_eq!(front_matter_license(card).as_deref(), Some("nvidia-open-model-license"));
        assert_eq!(front_matter_license("---\nlicense: apache-2.0\n---\n").as_deref(), Some("apache-2.0"));
        assert_eq!(front_matter_license("# Model\nlicense: no\n"), None);
        assert_eq!(front_matter_license("---\ntags: [x]\n---\nlicense: no"), None);
    }
}
