//! The tokenizer against Hugging Face's: 60 texts for each of three vocabularies, the same from `tokenizer.json` and
//! from GGUF metadata, and what must hold for any text.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tangelo_formats::tokenizer::stream::{SpecialTokens, TokenDecoder};
use tangelo_formats::tokenizer::{EncodeOptions, GgufVocabulary, TokenId, Tokenizer, TokenizerError};

const NAMES: [(&str, &str); 3] =
    [("tokenizer512", "pixtral"), ("tokenizer2048", "llama-bpe"), ("tokenizer2048_tekken", "tekken")];

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(fixture(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn json_tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_json(&read(&format!("tokenizer/{name}/tokenizer.json"))).unwrap()
}

/// A vocabulary as a GGUF converter writes it.
struct Metadata {
    tokens: Vec<String>,
    token_types: Vec<i32>,
    merges: Vec<String>,
}

impl Metadata {
    /// Converts a `tokenizer.json`.
    fn convert(json: &[u8]) -> Self {
        let file: Value = serde_json::from_slice(json).unwrap();
        let vocabulary = file["model"]["vocab"].as_object().unwrap();
        let mut tokens = vec![String::new(); vocabulary.len()];
        for (text, id) in vocabulary {
            tokens[id.as_u64().unwrap() as usize] = text.clone();
        }
        let mut token_types = vec![1; tokens.len()];
        for added in file["added_tokens"].as_array().unwrap() {
            token_types[added["id"].as_u64().unwrap() as usize] =
                if added["special"] == true { 3 } else { 4 };
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let merges = file["model"]["merges"].as_array().unwrap();
        let merges = merges.iter().map(|pair| format!("{} {}", text(&pair[0]), text(&pair[1]))).collect();
        Self { tokens, token_types, merges }
    }

    fn vocabulary<'a>(&'a self, pre: &'a str) -> GgufVocabulary<'a> {
        GgufVocabulary {
            model: "gpt2",
            pre,
            tokens: &self.tokens,
            token_types: &self.token_types,
            merges: &self.merges,
            bos: Some(1),
            eos: Some(11),
            add_bos: None,
        }
    }
}

fn gguf_tokenizer(name: &str, pre: &str) -> Tokenizer {
    let metadata = Metadata::convert(&read(&format!("tokenizer/{name}/tokenizer.json")));
    Tokenizer::from_gguf_parts(&metadata.vocabulary(pre)).unwrap()
}

#[derive(Deserialize)]
struct Golden {
    text: String,
    ids: Vec<TokenId>,
    tokens: Vec<String>,
    decoded_skip_special: String,
}

fn goldens(name: &str) -> Vec<Golden> {
    serde_json::from_slice(&read(&format!("tokenizer/{name}/encode_goldens.json"))).unwrap()
}

#[track_caller]
fn check_golden(tokenizer: &Tokenizer, golden: &Golden) {
    let Golden { text, ids, tokens, decoded_skip_special } = golden;
    for options in [EncodeOptions::default(), EncodeOptions::PROMPT] {
        assert_eq!(tokenizer.encode(text, options).unwrap(), *ids, "{text:?}");
    }
    assert_eq!(tokenizer.decode(ids, false), *text);
    assert_eq!(tokenizer.decode(ids, true), *decoded_skip_special);
    let written: Vec<String> = ids.iter().map(|&id| tokenizer.token_of(id).unwrap()).collect();
    assert_eq!(written, *tokens);
    assert!(ids.iter().zip(tokens).all(|(&id, token)| tokenizer.id_of(token) == Some(id)));
}

#[test]
fn all_goldens_from_tokenizer_json() {
    for (name, _) in NAMES {
        let (tokenizer, goldens) = (json_tokenizer(name), goldens(name));
        assert_eq!(goldens.len(), 60);
        goldens.iter().for_each(|golden| check_golden(&tokenizer, golden));
    }
}

#[test]
fn all_goldens_from_gguf_metadata() {
    for (name, pre) in NAMES {
        let tokenizer = gguf_tokenizer(name, pre);
        goldens(name).iter().for_each(|golden| check_golden(&tokenizer, golden));
    }
}

#[test]
fn the_tokenizer_inside_gguf_files_is_the_one_beside_the_weights() {
    for name in ["tiny", "moe", "moe_latent"] {
        let beside = Tokenizer::from_json(&read(&format!("{name}/tokenizer.json"))).unwrap();
        let texts = goldens("tokenizer512");
        for file in ["f32", "bf16"] {
            let header = tangelo_formats::gguf::parse(&read(&format!("{name}/gguf/{file}.gguf"))).unwrap();
            let inside = Tokenizer::from_gguf(&header.metadata).unwrap();
            assert_eq!((inside.vocab_size(), inside.eos()), (beside.vocab_size(), Some(11)), "{name}/{file}");
            for golden in &texts {
                let ids = beside.encode(&golden.text, EncodeOptions::default()).unwrap();
                assert_eq!(
                    inside.encode(&golden.text, EncodeOptions::default()).unwrap(),
                    ids,
                    "{:?}",
                    golden.text
                );
                assert_eq!(inside.decode(&ids, true), golden.decoded_skip_special);
                if beside.vocab_size() == 512 {
                    check_golden(&inside, golden);
                }
            }
        }
    }
}

/// Texts that a splitter, a byte table or a special-token search can get wrong.
const HARD_TEXTS: &[&str] = &[
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽 tone, 🇩🇪🇯🇵",
    "e\u{301}a\u{308}\u{323} Z\u{351}\u{36b}\u{343} x\u{200d}y\u{200b}z\u{feff}",
    "line\r\nline\rline\n\r\n\r\n\t\tx\r\n   ",
    "a                                                                 b                  ",
    "\u{a0}\u{2003}\u{3000}wide\u{2028}spaces\u{85}\u{b}\u{c}\u{1c}\u{1f}",
    "1234567890 12,345.678 0x1F ½ ⅷ 四五 ١٢٣٤",
    "I'M we'LL 'tis DON'T o'clock it’s 'S'S",
    "<|im_end|><|im_start|>user\n<think></think><tool_call></s><s>[INST]",
    "<|im_end <|im_start| >|im_end|> <|IM_END|> <SPECIAL_1 </tool_call",
    "if(x!=y){return*p++;}//done/*...*/#$%^&&&&====>>>>",
    "ﷺ ﬁne ǅ ß İi ſ Ω K",
    "\0\u{1}\u{7f}\u{80}\u{ad}\u{fffd}\u{10ffff}",
];

#[test]
fn hard_texts_survive_and_both_sources_agree() {
    for (name, pre) in NAMES {
        let (from_json, from_gguf) = (json_tokenizer(name), gguf_tokenizer(name, pre));
        for text in HARD_TEXTS {
            for options in [EncodeOptions::PROMPT, EncodeOptions::PLAIN] {
                let ids = from_json.encode(text, options).unwrap();
                assert_eq!(from_gguf.encode(text, options).unwrap(), ids, "{text:?}");
                assert_eq!(from_json.decode(&ids, false), *text, "{options:?}");
            }
        }
    }
}

#[test]
fn plain_text_never_becomes_a_special_token() {
    let tokenizer = json_tokenizer("tokenizer2048");
    for text in HARD_TEXTS {
        let ids = tokenizer.encode(text, EncodeOptions::PLAIN).unwrap();
        assert!(!ids.iter().any(|&id| tokenizer.is_special(id)), "{text:?}");
        assert_eq!(tokenizer.decode(&ids, true), *text);
    }
    let marked = tokenizer.encode("a<|im_end|>", EncodeOptions::PROMPT).unwrap();
    assert_eq!(marked.last(), Some(&11));
    // Without special strings the two variants are one.
    for golden in goldens("tokenizer2048").iter().filter(|golden| !golden.text.contains(['<', '['])) {
        assert_eq!(tokenizer.encode(&golden.text, EncodeOptions::PLAIN).unwrap(), golden.ids);
    }
}

#[test]
fn long_runs_are_split_like_short_ones() {
    let tokenizer = json_tokenizer("tokenizer2048");
    for unit in [" ", "\n", " \n", "a", "é", "!", "7", "\u{3000}", "<"] {
        let text = format!("x{}y", unit.repeat(50_000));
        let ids = tokenizer.encode(&text, EncodeOptions::PLAIN).unwrap();
        assert_eq!(tokenizer.decode(&ids, false), text, "{unit:?}");
        // The long text costs the same tokens per unit as two shorter ones, but for the seams.
        let short = format!("x{}y", unit.repeat(5_000));
        let per_short = tokenizer.encode(&short, EncodeOptions::PLAIN).unwrap().len();
        assert!(ids.len() <= per_short * 10 && ids.len() + 200 >= (per_short - 4) * 10, "{unit:?}");
    }
}

#[test]
fn special_tokens_and_names() {
    let config = read("tokenizer/tokenizer2048/tokenizer_config.json");
    let tokenizer = json_tokenizer("tokenizer2048");
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, None));
    let tokenizer = tokenizer.with_config(&config).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(11)));
    assert_eq!(tokenizer.vocab_size(), 2048);
    assert_eq!(tokenizer.id_of("<think>"), Some(12));
    assert_eq!(tokenizer.token_of(13).as_deref(), Some("</think>"));
    assert_eq!(tokenizer.token_bytes(14), Some(b"<tool_call>".as_slice()));
    assert!(tokenizer.is_special(31) && !tokenizer.is_special(32));
    // The 256 bytes follow the control tokens in byte order.
    for byte in 0..=u8::MAX {
        assert_eq!(tokenizer.token_bytes(32 + TokenId::from(byte)), Some([byte].as_slice()));
    }
    assert_eq!(tokenizer.token_bytes(2048), None);
    assert_eq!(tokenizer.token_of(u32::MAX), None);
    assert_eq!(tokenizer.decode(&[5000, 72, u32::MAX], false), "(");

    let unknown = br#"{"bos_token": {"content": "<nope>"}}"#;
    let error = json_tokenizer("tokenizer512").with_config(unknown).unwrap_err();
    assert!(error.to_string().contains("`<nope>`"), "{error}");
}

#[test]
fn a_vocabulary_larger_than_the_models_is_refused() {
    let tokenizer = json_tokenizer("tokenizer2048");
    tokenizer.check_vocabulary(2048).unwrap();
    tokenizer.check_vocabulary(2560).unwrap();
    let message = tokenizer.check_vocabulary(2047).unwrap_err().to_string();
    assert!(message.contains("2048") && message.contains("2047"), "{message}");
}

#[test]
fn gguf_adds_bos_only_when_asked() {
    let metadata = Metadata::convert(&read("tokenizer/tokenizer512/tokenizer.json"));
    let ids = |add_bos, options| {
        let vocabulary = GgufVocabulary { add_bos, ..metadata.vocabulary("pixtral") };
        Tokenizer::from_gguf_parts(&vocabulary).unwrap().encode("hi", options).unwrap()
    };
    let bare = ids(None, EncodeOptions::default());
    assert_ne!(bare[0], 1);
    assert_eq!(ids(Some(false), EncodeOptions::default()), bare);
    assert_eq!(ids(Some(true), EncodeOptions::default()), [vec![1], bare.clone()].concat());
    assert_eq!(ids(Some(true), EncodeOptions::PROMPT), bare);
}

#[test]
fn the_post_processor_decides_what_surrounds_a_text() {
    let mut file: Value = serde_json::from_slice(&read("tokenizer/tokenizer512/tokenizer.json")).unwrap();
    file["post_processor"] = serde_json::json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "</s>", "type_id": 0}}],
         "pair": [],
         "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                            "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}]});
    let tokenizer = Tokenizer::from_json(file.to_string().as_bytes()).unwrap();
    let bare = tokenizer.encode("hi", EncodeOptions::PROMPT).unwrap();
    assert_eq!(tokenizer.encode("hi", EncodeOptions::default()).unwrap(), [vec![1], bare, vec![2]].concat());
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

#[test]
fn streamed_pieces_are_the_one_shot_decoding() {
    let tokenizer = json_tokenizer("tokenizer512");
    for seed in 0..3000 {
        let mut random = Random(seed);
        // Mostly single bytes of the upper half, so that broken and whole characters both occur; some ids are unknown.
        let ids: Vec<TokenId> = (0..random.below(40))
            .map(|_| match random.below(8) {
                0 => random.below(600) as TokenId,
                1 => 32 + [0xF0, 0x9F, 0x8D, 0x8A, 0xE2, 0x82, 0xAC, 0xC3][random.below(8)],
                _ => 32 + 0x80 + random.below(0x80) as TokenId,
            })
            .collect();
        for special in [SpecialTokens::Render, SpecialTokens::Skip] {
            let mut decoder = TokenDecoder::new(&tokenizer, special);
            let pieces: Vec<String> = ids.iter().map(|&id| decoder.push(id)).collect();
            let streamed = pieces.concat() + &decoder.finish();
            assert_eq!(
                streamed,
                tokenizer.decode(&ids, special == SpecialTokens::Skip),
                "seed {seed}: {ids:?}"
            );
        }
    }
}

#[test]
fn streaming_whole_characters_never_shows_a_replacement() {
    let tokenizer = json_tokenizer("tokenizer512");
    for text in HARD_TEXTS.iter().filter(|text| !text.contains('\u{fffd}')) {
        let mut decoder = TokenDecoder::new(&tokenizer, SpecialTokens::Render);
        let mut streamed = String::new();
        for id in tokenizer.encode(text, EncodeOptions::PROMPT).unwrap() {
            streamed += &decoder.push(id);
            assert!(text.starts_with(&streamed), "{text:?}: {streamed:?}");
        }
        assert_eq!(streamed + &decoder.finish(), *text);
    }
}

/// Changes one thing in a good `tokenizer.json` and returns what the reader says.
fn refusal(change: impl FnOnce(&mut Value)) -> String {
    let mut file: Value = serde_json::from_slice(&read("tokenizer/tokenizer512/tokenizer.json")).unwrap();
    change(&mut file);
    Tokenizer::from_json(file.to_string().as_bytes()).unwrap_err().to_string()
}

#[test]
fn hostile_tokenizer_files_are_refused() {
    for bytes in [b"".as_slice(), b"{", b"[]", b"null", b"{\"model\": {}}", b"\xff\xfe", &[b'['; 10_000]] {
        Tokenizer::from_json(bytes).unwrap_err();
    }
    let cases: Vec<(&str, String)> = vec![
        ("`Unigram`", refusal(|file| file["model"]["type"] = "Unigram".into())),
        ("byte_fallback", refusal(|file| file["model"]["byte_fallback"] = true.into())),
        ("dropout", refusal(|file| file["model"]["dropout"] = serde_json::json!(0.5))),
        ("prefix", refusal(|file| file["model"]["continuing_subword_prefix"] = "##########".into())),
        ("decoder", refusal(|file| file["decoder"] = serde_json::json!({"type": "Metaspace"}))),
        ("decoder", refusal(|file| file["decoder"] = Value::Null)),
        (
            "post-processor",
            refusal(|file| file["post_processor"] = serde_json::json!({"type": "BertProcessing"})),
        ),
        ("is not a token", refusal(|file| file["model"]["merges"][0] = serde_json::json!(["nonesuch", "e"]))),
        // Both halves are tokens, but joined they are longer than any token: the library would panic.
        (
            "is not a token",
            refusal(|file| {
                let longest = "<|im_start|>";
                file["model"]["merges"][0] = serde_json::json!([longest, longest]);
            }),
        ),
        ("merge `abc`", refusal(|file| file["model"]["merges"][0] = "abc".into())),
        ("both have id 7", refusal(|file| file["model"]["vocab"]["zzzz"] = 7.into())),
        ("below", refusal(|file| file["model"]["vocab"]["zzzz"] = 4_294_967_295u32.into())),
        ("valid", refusal(|file| file["model"]["vocab"]["zzzz"] = serde_json::json!(-1))),
        ("unknown token", refusal(|file| file["model"]["unk_token"] = "nonesuch".into())),
        (
            "added token",
            refusal(|file| {
                let token = serde_json::json!({"id": 900, "content": "<extra>", "special": true});
                file["added_tokens"].as_array_mut().unwrap().push(token);
            }),
        ),
        (
            "valid",
            refusal(|file| {
                file["pre_tokenizer"]["pretokenizers"][0]["pattern"] = serde_json::json!({"Regex": "(((("});
            }),
        ),
        (
            "which no token has",
            refusal(|file| {
                file["post_processor"] = serde_json::json!({"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
                "special_tokens": {"x": {"id": "x", "ids": [99999], "tokens": ["x"]}}});
            }),
        ),
    ];
    for (expected, message) in cases {
        assert!(message.contains(expected), "expected `{expected}` in: {message}");
    }
}

#[test]
fn hostile_gguf_vocabularies_are_refused() {
    let metadata = Metadata::convert(&read("tokenizer/tokenizer512/tokenizer.json"));
    let good = metadata.vocabulary("pixtral");
    let refusal = |vocabulary: GgufVocabulary<'_>| Tokenizer::from_gguf_parts(&vocabulary).unwrap_err();

    let message = refusal(GgufVocabulary { pre: "gpt-4o", ..good.clone() }).to_string();
    assert!(
        message.contains("`gpt-4o`") && message.contains("`pixtral`") && message.contains("`tekken`"),
        "{message}"
    );
    assert!(matches!(
        refusal(GgufVocabulary { model: "llama", ..good.clone() }),
        TokenizerError::Unsupported { .. }
    ));
    assert!(
        refusal(GgufVocabulary { token_types: &[1], ..good.clone() })
            .to_string()
            .contains("1 entries for 512")
    );
    let types = vec![7; 512];
    assert!(
        refusal(GgufVocabulary { token_types: &types, ..good.clone() }).to_string().contains("token 0 is 7")
    );
    for merge in ["", " ", "ab", "a ", "é", "<unk> <unk>"] {
        let merges = [merge.to_owned()];
        refusal(GgufVocabulary { merges: &merges, ..good.clone() });
    }
    let tokens = vec!["same".to_owned(); 512];
    assert!(refusal(GgufVocabulary { tokens: &tokens, ..good.clone() }).to_string().contains("both `same`"));
    refusal(GgufVocabulary { bos: Some(512), ..good.clone() });
    refusal(GgufVocabulary { bos: None, add_bos: Some(true), ..good });
}

/// Some bytes of a file changed, removed or doubled.
fn damage_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    let place = random.below(bytes.len());
    let end = (place + random.below(40)).min(bytes.len());
    match random.below(4) {
        0 => bytes[place] = b"\"{}[],:0-eE\\ntruz\xff"[random.below(18)],
        1 => drop(bytes.drain(place..end)),
        2 => {
            let copy = bytes[place..end].to_vec();
            let target = random.below(bytes.len());
            bytes.splice(target..target, copy);
        }
        _ => bytes[place] = bytes[place].wrapping_add(1),
    }
}

/// Goes down a JSON document at random and replaces or removes what is there.
fn damage_value(value: &mut Value, random: &mut Random) {
    let deeper = random.below(6) > 0;
    match value {
        Value::Object(entries) if deeper && !entries.is_empty() => {
            let key = entries.keys().nth(random.below(entries.len())).unwrap().clone();
            if random.below(8) == 0 {
                entries.remove(&key);
            } else {
                damage_value(&mut entries[&key], random);
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let place = random.below(items.len());
            match random.below(8) {
                0 => drop(items.remove(place)),
                1 => items.swap(0, place),
                _ => damage_value(&mut items[place], random),
            }
        }
        _ => {
            let id = random.below(600);
            let texts = ["", "a", "Ġ", "<s>", "ByteLevel", "Sequence", "[^", "(a+)+$", "é"];
            *value = match random.below(6) {
                0 => Value::Null,
                1 => Value::from(id),
                2 => Value::from(random.below(2) == 0),
                3 => serde_json::json!([]),
                4 => serde_json::json!({}),
                _ => Value::from(texts[random.below(texts.len())]),
            };
        }
    }
}

/// Damaged files give an error or a tokenizer that works, never a panic.
#[test]
fn damaged_tokenizer_files_never_panic() {
    let good = read("tokenizer/tokenizer512/tokenizer.json");
    let good_value: Value = serde_json::from_slice(&good).unwrap();
    let mut accepted = 0;
    for seed in 0..1200 {
        let mut random = Random(seed);
        let bytes = if seed % 3 == 0 {
            let mut bytes = good.clone();
            (0..=random.below(4)).for_each(|_| damage_bytes(&mut bytes, &mut random));
            bytes
        } else {
            let mut value = good_value.clone();
            (0..=random.below(2)).for_each(|_| damage_value(&mut value, &mut random));
            value.to_string().into_bytes()
        };
        let Ok(tokenizer) = Tokenizer::from_json(&bytes) else { continue };
        accepted += 1;
        for text in HARD_TEXTS {
            for options in [EncodeOptions::default(), EncodeOptions::PLAIN] {
                if let Ok(ids) = tokenizer.encode(text, options) {
                    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()), "seed {seed}");
                    tokenizer.decode(&ids, true);
                }
            }
        }
    }
    assert!(
        accepted > 100,
        "only {accepted} damaged files were still tokenizers: the damage tests too little"
    );
}
