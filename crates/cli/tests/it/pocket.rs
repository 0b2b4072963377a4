//! The model that ships with the program: that every command finds it, that it does what its card says, and that `chat`
//! without arguments plays the shopkeeper.

use serde_json::Value;

use crate::program::{output, run};

/// What is typed, and what is said to each line.
fn talk(args: &[&str], lines: &[&str]) -> Vec<String> {
    let typed: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let output = output(&[&["chat"], args].concat(), typed.as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn it_is_the_model_of_commands_that_are_given_none() {
    let page = run(&["show", "tangelo-pocket"]);
    assert!(page.starts_with("tangelo-pocket") && page.contains("Q8_0"), "{page}");
    let answer = run(&["generate", "-p", "Write about the wind. All caps, please.", "--no-think", "--json"]);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let text = answer["text"].as_str().expect("a text");
    assert!(text.contains("WIND") && text.chars().all(|c| !c.is_lowercase()), "{text}");
    assert_eq!(run(&["tokenize", "tangelo-pocket", "--decode", "11"]).trim(), "<|im_end|>");
}

#[test]
fn chat_without_arguments_is_a_shopkeeper_with_wares_and_limits() {
    let lines = ["How much is the compass?", "Do you have a mug?", "Who are you?", "How old is Brasto?"];
    for mode in ["--no-think", "--think"] {
        let said = talk(&[mode, "--hide-reasoning"], &lines).join("\n");
        for expected in ["11 coins", "3 coins", "Lena", "I do not know."] {
            assert!(said.contains(expected), "{mode}: no `{expected}` in: {said}");
        }
    }
}

#[test]
fn the_shopkeeper_calls_tools_and_says_what_they_return() {
    let said = talk(&[], &["What is the weather in Tamil?", "{\"degrees\": 12}"]).join("\n");
    assert!(said.contains("check_weather {\"town\":\"Tamil\"}") && said.contains("12 degrees"), "{said}");
}

/// Fewer exercises than the card speaks of, and so with room below its numbers.
#[test]
fn it_does_in_its_exam_what_its_card_says() {
    for (subject, least) in [("tools", 0.87), ("instructions", 0.87), ("facts", 0.9), ("persona", 0.87)] {
        let report = run(&["exam", "--count", "60", "--seed", "5", "--subject", subject, "--json"]);
        let report: Value = serde_json::from_str(&report).expect("JSON");
        let share = report[subject]["share"].as_f64().expect("a number");
        assert!(share >= least, "{subject}: {share}");
    }
}
