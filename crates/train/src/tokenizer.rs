//! A tokenizer of one's own: byte-level pairs (Sennrich et al. 2016, arXiv 1508.07909) learned from texts, with the special
//! tokens of Nemotron 3 under their numbers, and every digit a token.

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

/// How texts are split for learning: nothing but a space before a word in small letters becomes one with it. So a name has the
/// same tokens wherever it stands, at the beginning of an answer, behind a space or in quotation marks, and can be copied from
/// one place to the other; a small model cannot learn the spelling of every piece.
const SPLIT_TO_LEARN: &str =
    r" ?\p{Ll}+|\p{L}\p{Ll}*|\p{N}|[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Learns `vocabulary` tokens, the special ones and the 256 bytes included. Returns the contents of `tokenizer.json` and of
/// `tokenizer_config.json`.
///
/// # Errors
/// If the tokenizer cannot be learned.
pub fn learn(texts: impl Iterator<Item = String> + Send, vocabulary: usize) -> Result<[String; 2]> {
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
        .vocab_size(vocabulary)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special.collect())
        .build();
    let mut trainer: TrainerWrapper = trainer.into();
    tokenizer.train(&mut trainer, texts).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer(SPLIT)?));
    let tokenizer = tokenizer.to_string(true).map_err(failed)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use tangelo_formats::tokenizer::{EncodeOptions, Tokenizer};

    #[test]
    fn a_learned_tokenizer_has_the_special_tokens_and_gives_every_text_back() {
        let texts =
            (0..300).map(|i| format!("The lamp of Tala costs {i} coins, and the rope costs {} more.", i * 7));
        let [tokenizer, config] = learn(texts, 310).expect("it can be learned");
        let tokenizer = Tokenizer::from_json(tokenizer.as_bytes()).expect("a tokenizer");
        let tokenizer = tokenizer.with_config(config.as_bytes()).expect("its companion");
        assert_eq!(tokenizer.vocab_size(), 310);
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
            let (before, name) = (encode(before), encode("Tala"));
            let both = [&before[..], &name].concat();
            assert_eq!(encode(&tokenizer.decode(&both, false)), both, "a name has its own tokens");
        }
    }
}
