//! The thinking budget, token by token.

use std::path::Path;

use tangelo_chat::{Dialect, ThinkingBudget};
use tangelo_formats::tokenizer::{EncodeOptions, TokenId, Tokenizer};

fn tokenizer() -> Tokenizer {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer/tokenizer2048/tokenizer.json");
    Tokenizer::from_json(&std::fs::read(path).unwrap()).unwrap()
}

fn budget(tokens: usize, margin: usize) -> ThinkingBudget {
    ThinkingBudget::new(&tokenizer(), Dialect::named("nemotron3").unwrap(), tokens, margin).unwrap()
}

/// Feeds tokens, given as text, until some must follow: how many were fed, and the text of those that must follow.
fn run(budget: &mut ThinkingBudget, tokens: &[&str]) -> Option<(usize, String)> {
    let tokenizer = tokenizer();
    let text = |ids: &[TokenId]| tokenizer.decode(ids, false);
    if let Some(forced) = budget.before_first() {
        return Some((0, text(forced)));
    }
    for (index, token) in tokens.iter().enumerate() {
        if let Some(forced) = budget.observe(token.as_bytes()) {
            return Some((index + 1, text(forced)));
        }
    }
    None
}

#[test]
fn closes_at_the_next_end_of_a_line() {
    let tokens = ["a", "b\n", "c", "d", "e", ".\n", "f"];
    assert_eq!(run(&mut budget(3, 100), &tokens), Some((6, "</think>\n".to_owned())));
    // A line that ends exactly with the budget is an end.
    assert_eq!(run(&mut budget(2, 100), &tokens), Some((2, "</think>\n".to_owned())));
    assert_eq!(run(&mut budget(7, 100), &tokens), None);
}

#[test]
fn closes_anywhere_behind_the_margin() {
    let tokens = ["a", "b", "c", "d", "e", "f", "g"];
    assert_eq!(run(&mut budget(2, 3), &tokens), Some((5, "\n</think>\n".to_owned())));
    assert_eq!(run(&mut budget(2, 0), &tokens), Some((2, "\n</think>\n".to_owned())));
    assert_eq!(run(&mut budget(2, usize::MAX), &tokens), None);
}

#[test]
fn a_budget_of_nothing_closes_at_once() {
    assert_eq!(run(&mut budget(0, 500), &["a"]), Some((0, "</think>\n".to_owned())));
}

#[test]
fn only_a_newline_at_the_end_of_a_token_ends_a_line() {
    assert_eq!(run(&mut budget(1, 100), &["a", "b\nc", "d\n  ", "e"]), Some((3, "</think>\n".to_owned())));
}

#[test]
fn reasoning_that_ends_by_itself_is_left_alone() {
    for tokens in [
        vec!["a", "</think>", "x", "y\n", "z\n"],
        vec!["a", "<", "/th", "ink>", "y\n", "z\n"],
        vec!["a", "<tool", "_call>", "y\n", "z\n"],
    ] {
        let mut budget = budget(4, 1);
        assert_eq!(run(&mut budget, &tokens), None, "{tokens:?}");
        assert!(!budget.is_open());
        assert!(budget.used() <= 4);
    }
}

#[test]
fn closes_once() {
    let mut budget = budget(1, 0);
    assert!(budget.observe(b"a").is_some());
    assert!(!budget.is_open());
    assert_eq!(budget.observe(b"b\n"), None);
    assert_eq!(budget.before_first(), None);
    assert_eq!(budget.used(), 1);
}

/// Whatever the tokens, reasoning never goes on beyond budget plus margin, and closes with one `</think>`.
#[test]
fn never_exceeds_the_hard_limit() {
    let tokenizer = tokenizer();
    let dialect = Dialect::named("toolcall_json").unwrap();
    let text = "Let me see.\nFirst, 2 + 2 = 4.\n\nThen: nothing else to do here, really nothing at all, so I stop.\n";
    let ids = tokenizer.encode(text, EncodeOptions::PLAIN).unwrap();
    for tokens in 0..ids.len() {
        for margin in [0, 1, 7, 500] {
            let mut budget = ThinkingBudget::new(&tokenizer, dialect, tokens, margin).unwrap();
            let mut forced = budget.before_first().map(<[TokenId]>::to_vec);
            for &id in &ids {
                if forced.is_some() {
                    break;
                }
                forced = budget.observe(tokenizer.token_bytes(id).unwrap()).map(<[TokenId]>::to_vec);
            }
            let close = tokenizer.decode(&forced.unwrap(), false);
            assert_eq!(close.trim(), "</think>");
            assert!(
                budget.used() >= tokens && budget.used() <= tokens + margin,
                "{tokens} + {margin}: {}",
                budget.used()
            );
            let written = tokenizer.decode(&ids[..budget.used()], false) + &close;
            assert!(written.contains("\n</think>\n") || tokens == 0, "{written:?}");
        }
    }
}
