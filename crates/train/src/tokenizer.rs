//! A tokenizer of one's own: byte-level pairs (Sennrich et al. 2016, arXiv 1508.07909) learned from texts, with the special
//! tokens of Nemotron 3 under their numbers, and every digit a token.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Value, json};
use tangelo_formats::tokenizer::control_tokens;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::error::{Error, Result};

/// Splits texts before pairs are formed: words with what stands before them, digits one by one, signs, white space.
const SPLIT: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How texts are split for learning: words without what stands before them. So a word has the same tokens wherever it stands, at
/// the beginning of an answer, behind a space or in quotation marks, and can be copied from one place to the other; a small
/// model cannot learn which tokens are spelled alike.
const SPLIT_TO_LEARN: &str = r"\p{L}\p{Ll}*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How byte-level pairs write a space.
const SPACE: char = '\u{120}';

/// One token in so many is a word together with the space before it.
const SPACED_SHARE: usize = 8;

/// A word becomes one with its space if it stands behind one at least so often: words that are only read and written in
/// sentences do, and those that are copied into other places do not.
const SPACED_MIN: f64 = 0.98;

/// Learns `vocabulary` tokens, the special ones and the 256 bytes included. Returns the contents of `tokenizer.json` and of
/// `tokenizer_config.json`.
///
/// # Errors
/// If the tokenizer cannot be learned.
pub fn learn(texts: &[String], vocabulary: usize) -> Result<[String; 2]> {
    let failed = |cause: tokenizers::Error| Error::Tokenizer { cause: cause.to_string() };
    let pre_tokenizer = |split: &str| {
        let split = SplitPattern::Regex(split.to_owned());
        let split = Split::new(split, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
        Ok::<_, Error>(Sequence::new(vec![split.into(), ByteLevel::new(false, true, false).into()]))
    };
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer(SPLIT_TO_LEARN)?));
    tokenizer.with_decoder(Some(ByteLevel::new(true, true, true)));
    let special = control_tokens().map(|token| AddedToken::from(token, true).normalized(false));
    let trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocabulary - vocabulary / SPACED_SHARE)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special.collect())
        .build();
    let mut trainer: TrainerWrapper = trainer.into();
    tokenizer.train(&mut trainer, between_control_tokens(texts).into_iter()).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer(SPLIT)?));
    let wrong = |cause: serde_json::Error| Error::Tokenizer { cause: cause.to_string() };
    let mut tokenizer = serde_json::to_value(&tokenizer).map_err(wrong)?;
    add_spaced(&mut tokenizer["model"], texts, vocabulary);
    let tokenizer = format!("{tokenizer:#}\n");
    let config: Value = json!({
        "backend": "tokenizers",
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": false,
        "eos_token": "<|im_end|>",
        "model_max_length": 4096,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    });
    Ok([tokenizer, format!("{config:#}\n")])
}

/// The texts in pieces, without the control tokens, which are nothing to learn.
fn between_control_tokens(texts: &[String]) -> Vec<&str> {
    let mut pieces: Vec<&str> = texts.iter().map(String::as_str).collect();
    for token in control_tokens() {
        pieces = pieces.into_iter().flat_map(|piece| piece.split(token.as_str())).collect();
    }
    pieces
}

/// Adds the commonest words with the space before them, up to the size of the vocabulary. Their pairs come last, so that no word
/// begins otherwise behind a space than elsewhere.
fn add_spaced(model: &mut Value, texts: &[String], vocabulary: usize) {
    let mut counts: HashMap<&str, [usize; 2]> = HashMap::new();
    for text in texts {
        let mut before = None;
        for word in text.split_inclusive(|c: char| !c.is_alphabetic()) {
            let letters = word.trim_end_matches(|c: char| !c.is_alphabetic());
            if letters.chars().all(char::is_lowercase) && !letters.is_empty() {
                counts.entry(letters).or_default()[usize::from(before == Some(' '))] += 1;
            }
            before = word.chars().next_back();
        }
    }
    let Value::Object(model) = model else { return };
    let is_token = |word: &str| model["vocab"].get(word).is_some();
    let often = |[elsewhere, spaced]: [usize; 2]| spaced as f64 >= SPACED_MIN * (elsewhere + spaced) as f64;
    let mut spaced: Vec<(usize, &str)> = counts
        .into_iter()
        .filter(|&(word, counts)| often(counts) && is_token(word))
        .map(|(word, [_, spaced])| (spaced, word))
        .collect();
    spaced.sort_by_key(|&(count, word)| (Reverse(count), word));
    let size = model["vocab"].as_object().map_or(0, serde_json::Map::len);
    for (id, (_, word)) in (size..vocabulary).zip(spaced) {
        model["vocab"][format!("{SPACE}{word}")] = json!(id);
        if let Some(merges) = model["merges"].as_array_mut() {
            merges.push(json!([SPACE.to_string(), word]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tangelo_formats::tokenizer::{EncodeOptions, Tokenizer};

    #[test]
    fn a_learned_tokenizer_has_the_special_tokens_and_gives_every_text_back() {
        let text = |i| format!("The lamp of Tala costs {i} coins, and \"rope\" costs {} more.", i * 7);
        let texts: Vec<String> = (0..300).map(text).collect();
        let [tokenizer, config] = learn(&texts, 360).expect("it can be learned");
        let tokenizer = Tokenizer::from_json(tokenizer.as_bytes()).expect("a tokenizer");
        let tokenizer = tokenizer.with_config(config.as_bytes()).expect("its companion");
        assert!((310..360).contains(&tokenizer.vocab_size()), "{}", tokenizer.vocab_size());
        for (name, id) in
            [("<|im_start|>", 10), ("<|im_end|>", 11), ("<think>", 12), ("</tool_response>", 17)]
        {
            assert_eq!(tokenizer.id_of(name), Some(id));
            assert!(tokenizer.is_special(id));
        }
        for text in [
            "The lamp costs 1234 coins.",
            "\n\n  tabs\tand déjà vu \u{1f600}",
            "<|im_start|>user\nHi<|im_end|>\n",
        ] {
            let ids = tokenizer.encode(text, EncodeOptions::PROMPT).expect("any text");
            assert_eq!(tokenizer.decode(&ids, false), text);
        }
        let ids = tokenizer.encode("1234", EncodeOptions::PROMPT).expect("digits");
        assert_eq!(ids.len(), 4, "every digit is a token");
        assert_eq!(tokenizer.encode(" costs", EncodeOptions::PROMPT).expect("a word").len(), 1);
        let encode = |text: &str| tokenizer.encode(text, EncodeOptions::PROMPT).expect("any text");
        for before in [" ", "\"", "\n", "("] {
            for word in ["Tala", "rope"] {
                let (before, word) = (encode(before), encode(word));
                let both = [&before[..], &word].concat();
                assert_eq!(encode(&tokenizer.decode(&both, false)), both, "a word has its own tokens");
            }
        }
    }
}
