//! The tokenizer that goes into a file: one that is given, or a small one made up on the spot for random weights.
//!
//! The made-up one has the 32 control tokens of Nemotron 3 and one token per byte, so that every text can be encoded,
//! with the numbers that the fixtures use. It has no merges: texts have as many tokens as bytes.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value as Json, json};
use tangelo_core::TokenId;
use tangelo_core::limits::TOKENIZER_BYTES_MAX;
use tangelo_formats::gguf::{Array, Metadata, Value};
use tangelo_formats::tokenizer::{CONTROL_TOKENS, EncodeOptions, GgufVocabulary, Tokenizer, control_tokens};

use crate::model;

const END_OF_TURN: &str = "<|im_end|>";

/// Numbers of `tokenizer.ggml.token_type` (`llama_token_type` in llama.cpp's `include/llama.h`).
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Names of split expressions, each with something that only its expression holds.
const PRES: [(&str, &str); 2] = [("tekken", r"\p{Lu}"), ("pixtral", r"\p{L}")];
/// A text with everything that those expressions treat apart.
const PROBE: &str =
    "HTTPServer camelCase 1234567 it's x/y/ \u{e9}t\u{e9}\u{301}  three   spaces\r\n\r\n\tend.\n";

/// Files of a tokenizer folder that belong to the model made with it.
const COMPANIONS: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

/// A vocabulary as GGUF files hold it, and the files that a folder holds.
#[derive(Debug)]
pub struct Vocabulary {
    pre: &'static str,
    /// One for every row of the model's embedding.
    tokens: Vec<String>,
    token_types: Vec<i32>,
    merges: Vec<String>,
    chat_template: Option<String>,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Vocabulary {
    /// The made-up vocabulary, padded with unused tokens to `vocab_size`.
    ///
    /// # Errors
    /// If `vocab_size` is too small for it.
    pub fn made_up(vocab_size: usize) -> Result<Vocabulary> {
        let controls = control_tokens();
        let tokens: Vec<String> = controls.chain((0..=u8::MAX).map(byte_token)).collect();
        let needed = tokens.len();
        ensure!(
            needed <= vocab_size,
            "a vocabulary of {vocab_size} is too small for the made-up tokenizer, which has {needed} tokens; give one with --tokenizer"
        );
        let json = tokenizer_json(&tokens);
        let config = json!({ "bos_token": "<s>", "eos_token": END_OF_TURN, "unk_token": "<unk>" });
        let token_types = (0..needed).map(|i| if i < CONTROL_TOKENS { CONTROL } else { NORMAL }).collect();
        let text = |value: &Json| format!("{value:#}\n").into_bytes();
        let files = vec![("tokenizer.json", text(&json)), ("tokenizer_config.json", text(&config))];
        let vocabulary = Vocabulary {
            pre: "pixtral",
            tokens,
            token_types,
            merges: Vec::new(),
            chat_template: None,
            files,
        };
        Ok(vocabulary.padded(vocab_size))
    }

    /// The tokenizer and template in a folder, for a model with `vocab_size` rows.
    ///
    /// # Errors
    /// If the folder has no `tokenizer.json`, it has more tokens than the model, or it splits text in a way that
    /// GGUF has no name for.
    pub fn from_folder(folder: &Path, vocab_size: usize) -> Result<Vocabulary> {
        let path = folder.join("tokenizer.json");
        let tokenizer = model::tokenizer_json(&path)?;
        tokenizer.check_vocabulary(vocab_size)?;
        let mut files = Vec::new();
        for name in COMPANIONS {
            let path = folder.join(name);
            if path.is_file() {
                files.push((name, model::read(&path, TOKENIZER_BYTES_MAX)?));
            }
        }
        let file = |name: &str| files.iter().find(|(n, _)| *n == name).map(|(_, bytes)| bytes.as_slice());
        let json: Json = serde_json::from_slice(file("tokenizer.json").unwrap_or_default())?;
        let (tokens, token_types) = read_tokens(&json, tokenizer.vocab_size()).context("tokenizer.json")?;
        let merges = read_merges(&json).context("tokenizer.json")?;
        let mut chat_template =
            file("chat_template.jinja").map(|text| String::from_utf8_lossy(text).into_owned());
        if chat_template.is_none()
            && let Some(config) = file("tokenizer_config.json")
        {
            let config: Json = serde_json::from_slice(config)?;
            chat_template = config["chat_template"].as_str().map(str::to_owned);
        }
        let mut vocabulary = Vocabulary { pre: "", tokens, token_types, merges, chat_template, files };
        vocabulary.pre = vocabulary.find_pre(&json, &tokenizer)?;
        Ok(vocabulary.padded(vocab_size))
    }

    /// The name of the split expression of a `tokenizer.json`, under which the vocabulary must encode as that does.
    fn find_pre(&self, json: &Json, tokenizer: &Tokenizer) -> Result<&'static str> {
        // Two expressions may agree on any one text, so the expression decides and the text confirms.
        let mut expressions = Vec::new();
        collect_strings(&json["pre_tokenizer"], &mut expressions);
        let holds = |mark: &str| expressions.iter().any(|expression| expression.contains(mark));
        if let Some((pre, _)) = PRES.into_iter().find(|(_, mark)| holds(mark)) {
            let parts = GgufVocabulary {
                model: "gpt2",
                pre,
                tokens: &self.tokens,
                token_types: &self.token_types,
                merges: &self.merges,
                bos: None,
                eos: None,
                add_bos: None,
            };
            let encode = |t: &Tokenizer| t.encode(PROBE, EncodeOptions::PLAIN);
            if encode(&Tokenizer::from_gguf_parts(&parts)?)? == encode(tokenizer)? {
                return Ok(pre);
            }
        }
        let known = PRES.map(|(pre, _)| pre).join(" and ");
        bail!("the tokenizer splits text in a way that GGUF has no name for; those of {known} are known")
    }

    /// Appends unused tokens, named as llama.cpp's converter names them.
    fn padded(mut self, vocab_size: usize) -> Vocabulary {
        for i in self.tokens.len()..vocab_size {
            self.tokens.push(format!("[PAD{i}]"));
            self.token_types.push(UNUSED);
        }
        self
    }

    /// Adds the `tokenizer.*` keys.
    pub fn put(&self, metadata: &mut Metadata) {
        let mut set = |key: &str, value: Value| metadata.set(format!("tokenizer.{key}"), value);
        let strings = |list: &[String]| Value::Array(Array::String(list.iter().collect()));
        set("ggml.model", Value::String("gpt2".into()));
        set("ggml.pre", Value::String(self.pre.into()));
        set("ggml.tokens", strings(&self.tokens));
        set("ggml.token_type", Value::Array(Array::I32(self.token_types.clone())));
        set("ggml.merges", strings(&self.merges));
        if let Some(id) = self.end_of_turn() {
            // What ends a turn is the one token that this format calls the end; readers know `</s>` by its name.
            set("ggml.eos_token_id", Value::U32(id));
        }
        if let Some(id) = self.id_of("<unk>") {
            set("ggml.unknown_token_id", Value::U32(id));
        }
        // Readers that find no such key add one for this split expression; the models were trained without.
        set("ggml.add_bos_token", Value::Bool(false));
        if let Some(template) = &self.chat_template {
            set("chat_template", Value::String(template.clone()));
        }
    }

    /// Names and contents of the files that a folder needs.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (*name, bytes.as_slice()))
    }

    /// The id of the token that ends a turn, if there is one.
    pub fn end_of_turn(&self) -> Option<TokenId> {
        self.id_of(END_OF_TURN)
    }

    fn id_of(&self, token: &str) -> Option<TokenId> {
        self.tokens.iter().position(|t| t == token).and_then(|id| id.try_into().ok())
    }
}

/// A byte in the alphabet of byte-level BPE: printable Latin-1 characters are themselves, the others follow U+0100
/// in order (`bytes_to_unicode` in openai/gpt-2 `src/encoder.py`).
fn byte_token(byte: u8) -> String {
    let is_itself = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    if is_itself(byte) {
        return char::from(byte).to_string();
    }
    let earlier = (0..byte).filter(|&b| !is_itself(b)).count() as u32;
    char::from_u32(0x100 + earlier).unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
}

/// A `tokenizer.json` with these tokens, the first [`CONTROL_TOKENS`] of which are special.
fn tokenizer_json(tokens: &[String]) -> Json {
    let added: Vec<Json> = tokens
        .iter()
        .take(CONTROL_TOKENS)
        .enumerate()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let vocabulary: serde_json::Map<String, Json> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocabulary, "merges": [],
        },
    })
}

/// All strings inside a JSON value.
fn collect_strings<'a>(json: &'a Json, out: &mut Vec<&'a str>) {
    match json {
        Json::String(text) => out.push(text),
        Json::Array(list) => list.iter().for_each(|item| collect_strings(item, out)),
        Json::Object(map) => map.values().for_each(|item| collect_strings(item, out)),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// Tokens and their types in order of id; ids that no token has become unused tokens.
fn read_tokens(json: &Json, num_tokens: usize) -> Result<(Vec<String>, Vec<i32>)> {
    let mut tokens: Vec<String> = (0..num_tokens).map(|i| format!("[PAD{i}]")).collect();
    let mut types = vec![UNUSED; num_tokens];
    let mut put = |id: &Json, text: &str, token_type: i32| -> Result<()> {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < num_tokens);
        let id = id.with_context(|| format!("token `{text}` has no usable id"))?;
        text.clone_into(&mut tokens[id]);
        types[id] = token_type;
        Ok(())
    };
    let vocabulary = json["model"]["vocab"].as_object().context("`model.vocab` is not an object")?;
    for (text, id) in vocabulary {
        put(id, text, NORMAL)?;
    }
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let text = token["content"].as_str().context("an added token has no `content`")?;
        put(&token["id"], text, if token["special"] == true { CONTROL } else { USER_DEFINED })?;
    }
    Ok((tokens, types))
}

/// Merges as `left right`, whichever of its two forms the file has.
fn read_merges(json: &Json) -> Result<Vec<String>> {
    let merge = |merge: &Json| match merge {
        Json::String(text) => Some(text.clone()),
        Json::Array(pair) => match pair.as_slice() {
            [left, right] => Some(format!("{} {}", left.as_str()?, right.as_str()?)),
            _ => None,
        },
        _ => None,
    };
    let merges = json["model"]["merges"].as_array().context("`model.merges` is not an array")?;
    merges.iter().map(|m| merge(m).with_context(|| format!("{m} is not a merge"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer").join(name)
    }

    fn from_metadata(vocabulary: &Vocabulary) -> Tokenizer {
        let mut metadata = Metadata::default();
        vocabulary.put(&mut metadata);
        Tokenizer::from_gguf(&metadata).expect("a tokenizer")
    }

    #[test]
    fn the_made_up_vocabulary_is_the_same_in_both_formats() {
        let vocabulary = Vocabulary::made_up(1000).expect("a vocabulary");
        assert_eq!((vocabulary.tokens.len(), vocabulary.end_of_turn()), (1000, Some(11)));
        let (_, json) = vocabulary.files().next().expect("tokenizer.json");
        let (json, gguf) = (Tokenizer::from_json(json).expect("a tokenizer"), from_metadata(&vocabulary));
        let text = "<|im_start|>user\n\u{1F34A} café\t\0</think>";
        let ids = json.encode(text, EncodeOptions::default()).expect("ids");
        assert_eq!(ids, gguf.encode(text, EncodeOptions::default()).expect("ids"));
        assert_eq!((ids[0], ids[1], ids.last()), (10, 32 + u32::from(b'u'), Some(&13)));
        assert_eq!(json.decode(&ids, false), text);
        assert_eq!(gguf.decode(&ids, false), text);
        assert!(Vocabulary::made_up(200).expect_err("too small").to_string().contains("--tokenizer"));
    }

    #[test]
    fn given_tokenizers_keep_their_split() {
        for (name, pre) in
            [("tokenizer512", "pixtral"), ("tokenizer2048", "pixtral"), ("tokenizer2048_tekken", "tekken")]
        {
            let vocabulary = Vocabulary::from_folder(&fixture(name), 3000).expect(name);
            assert_eq!((vocabulary.pre, vocabulary.tokens.len()), (pre, 3000), "{name}");
            assert!(vocabulary.chat_template.is_some());
            let tokenizer = from_metadata(&vocabulary);
            let goldens = std::fs::read(fixture(name).join("encode_goldens.json")).expect("goldens");
            let goldens: Vec<Json> = serde_json::from_slice(&goldens).expect("JSON");
            for golden in &goldens {
                let ids =
                    tokenizer.encode(golden["text"].as_str().expect("a text"), EncodeOptions::default());
                assert_eq!(json!(ids.expect("ids")), golden["ids"], "{name}");
            }
        }
    }

    #[test]
    fn a_tokenizer_larger_than_the_model_is_refused() {
        let error =
            Vocabulary::from_folder(&fixture("tokenizer2048"), 512).expect_err("too large").to_string();
        assert!(error.contains("2048") && error.contains("512"), "{error}");
    }
}
