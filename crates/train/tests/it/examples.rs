//! What is learned of a conversation: the answer, from where the model is asked for it to the end of its turn.

use std::fs;

use tangelo_chat::Renderer;
use tangelo_formats::template::ChatTemplate;
use tangelo_formats::tokenizer::Tokenizer;
use tangelo_orchard::{Split, Subject, exercise};
use tangelo_train::examples::Writer;

use crate::fixtures::path;

#[test]
fn answers_are_learned_from_the_generation_prompt_to_the_end_of_the_turn() {
    let file = |name: &str| fs::read(path("tiny").join(name)).expect("a file of the fixture");
    let template = String::from_utf8(file("chat_template.jinja")).expect("a text");
    let writer = Writer {
        tokenizer: Tokenizer::from_json(&file("tokenizer.json")).expect("a tokenizer"),
        renderer: Renderer::new(ChatTemplate::new(template).expect("a template")),
    };
    for subject in Subject::ALL {
        for index in 0..60 {
            let exercise = exercise(subject, Split::Train, 1, index);
            let example = writer
                .example(&exercise.conversation, &exercise.answer, exercise.thinks, 0.25)
                .expect("the template writes it as it asks for it");
            let learned: Vec<bool> = example.weights.iter().map(|weight| *weight == 1.0).collect();
            let start = learned.iter().position(|is_learned| *is_learned).expect("an answer");
            assert!(learned[start..].iter().all(|is_learned| *is_learned));
            let (before, answer) = example.tokens.split_at(start);
            let (before, answer) =
                (writer.tokenizer.decode(before, false), writer.tokenizer.decode(answer, false));
            let opening = if exercise.thinks {
                "<|im_start|>assistant\n<think>\n"
            } else {
                "<|im_start|>assistant\n<think></think>"
            };
            assert!(before.ends_with(opening), "{before}");
            assert!(answer.ends_with("<|im_end|>") && !answer.contains("<|im_start|>"), "{answer}");
            assert_eq!(answer.contains("</think>"), exercise.thinks);
        }
    }
}
