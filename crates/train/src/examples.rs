//! What is learned from a conversation: its tokens, and how much each counts.

use tangelo_chat::{Conversation, Message, RenderOptions, Renderer, Role};
use tangelo_core::TokenId;
use tangelo_formats::tokenizer::{EncodeOptions, Tokenizer};
use tangelo_orchard::{Split, Subject, exercise};

use crate::error::{Error, Result};
use crate::files::Files;
use crate::recipe::{Data, shares};
use tangelo_core::random::Random;

/// The weight of what the assistant says.
const ANSWER: f32 = 1.0;

/// Tokens, and the weight of each as something to be learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The tokens.
    pub tokens: Vec<TokenId>,
    /// One for each.
    pub weights: Vec<f32>,
    /// Whether it means something in pieces, as a text does and a conversation does not.
    pub is_text: bool,
}

impl Example {
    /// Sequences of at most `context` tokens to predict from: all of a text, the end of a conversation. An answer that
    /// loses its beginning is not learned: nothing would say what it answers. A sequence that nothing is learned from is left
    /// out.
    pub fn cut(self, context: usize) -> Vec<Example> {
        let Example { mut tokens, mut weights, is_text } = self;
        let most = context + 1;
        if !is_text {
            let beyond = tokens.len().saturating_sub(most);
            // Where prompts weigh as much as answers, nothing tells them apart.
            let has_prompt = weights.iter().any(|weight| *weight != ANSWER);
            tokens.drain(..beyond);
            weights.drain(..beyond);
            if beyond > 0 && has_prompt {
                let rest = weights.iter_mut().take_while(|weight| **weight == ANSWER);
                rest.for_each(|weight| *weight = 0.0);
            }
            let example = Example { tokens, weights, is_text };
            return Some(example).filter(Example::teaches).into_iter().collect();
        }
        // The last token of a piece is the first of the next, where it is read and not learned again.
        let starts = (0..tokens.len().saturating_sub(1)).step_by(context);
        let piece = |start: usize| {
            let end = tokens.len().min(start + most);
            Example { tokens: tokens[start..end].to_vec(), weights: weights[start..end].to_vec(), is_text }
        };
        starts.map(piece).collect()
    }

    /// Whether any token of it is learned; the first is only read.
    fn teaches(&self) -> bool {
        self.weights.iter().skip(1).any(|weight| *weight != 0.0)
    }
}

/// A model's way of writing conversations.
#[derive(Debug)]
pub struct Writer {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template.
    pub renderer: Renderer,
}

impl Writer {
    /// An answer to a conversation as the model reads and writes it. The answer weighs 1, what comes before it
    /// `prompt_weight`. `thinks`: the answer begins with a line of thought.
    ///
    /// # Errors
    /// If the template refuses the conversation, or writes the answer otherwise than it asks for it.
    pub fn example(
        &self,
        conversation: &Conversation,
        answer: &Message,
        thinks: bool,
        prompt_weight: f32,
    ) -> Result<Example> {
        let [prompt, answer] = self.written(conversation, answer, thinks)?;
        let encode = |text: &str| self.tokenizer.encode(text, EncodeOptions::PROMPT);
        let (mut tokens, of_answer) = (encode(&prompt)?, encode(&answer)?);
        let mut weights = vec![prompt_weight; tokens.len()];
        weights.resize(tokens.len() + of_answer.len(), ANSWER);
        tokens.extend(of_answer);
        Ok(Example { tokens, weights, is_text: false })
    }

    /// A prompt, and the answer to it as the model writes it.
    fn written(&self, conversation: &Conversation, answer: &Message, thinks: bool) -> Result<[String; 2]> {
        let options = RenderOptions {
            add_generation_prompt: true,
            enable_thinking: Some(thinks),
            ..RenderOptions::default()
        };
        let prompt = self.renderer.render(conversation, &options)?.prompt;
        let mut whole = conversation.clone();
        whole.messages.push(answer.clone());
        let options = RenderOptions { add_generation_prompt: false, ..options };
        let whole = self.renderer.render(&whole, &options)?.prompt;
        let answer = whole.strip_prefix(&prompt).ok_or(Error::TemplateParts)?;
        // What the template writes after the end of the turn is not the model's.
        let answer = answer.trim_end_matches('\n').to_owned();
        Ok([prompt, answer])
    }

    /// Whether every answer of a conversation can be written.
    ///
    /// # Errors
    /// As [`Writer::example`].
    pub fn check(&self, conversation: &Conversation) -> Result<()> {
        answers(conversation).try_for_each(|(before, answer)| {
            self.written(&before, answer, thinks(answer))?;
            Ok(())
        })
    }

    /// Every answer of a conversation; answers whose beginning is another one with its prompt are one sequence with it.
    ///
    /// # Errors
    /// As [`Writer::example`].
    pub fn examples(&self, conversation: &Conversation, prompt_weight: f32) -> Result<Vec<Example>> {
        let mut found: Vec<Example> = Vec::new();
        for (before, answer) in answers(conversation) {
            let mut example = self.example(&before, answer, thinks(answer), prompt_weight)?;
            match found.last_mut().filter(|last| example.tokens.starts_with(&last.tokens)) {
                Some(last) => {
                    example.weights[..last.weights.len()].copy_from_slice(&last.weights);
                    *last = example;
                }
                None => found.push(example),
            }
        }
        Ok(found)
    }
}

/// Answers to learn, each with what comes before it. What the assistant says first of all, to nobody, is none.
fn answers(conversation: &Conversation) -> impl Iterator<Item = (Conversation, &Message)> {
    let Conversation { messages, tools } = conversation;
    let is_answer = |(at, message): &(usize, &Message)| *at > 0 && message.role == Role::Assistant;
    messages.iter().enumerate().filter(is_answer).map(|(at, answer)| {
        (Conversation { messages: messages[..at].to_vec(), tools: tools.clone() }, answer)
    })
}

fn thinks(answer: &Message) -> bool {
    answer.reasoning_content.as_ref().is_some_and(|thought| !thought.trim().is_empty())
}

/// A conversation as one text.
///
/// # Errors
/// If the template refuses it.
pub(crate) fn whole(renderer: &Renderer, conversation: &Conversation) -> Result<String> {
    let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::default() };
    Ok(renderer.render(conversation, &options)?.prompt)
}

/// Where examples come from, each by its number.
#[derive(Debug)]
pub enum Source {
    /// Exercises.
    Orchard(Orchard),
    /// Rows of files.
    Files(Files),
}

impl Source {
    /// What is learned.
    ///
    /// # Errors
    /// If files cannot be read, or no subject of the orchard is named.
    pub fn learned(data: &Data) -> Result<Source> {
        match data.files.is_empty() {
            true => Ok(Source::Orchard(Orchard::new(data, Split::Train)?)),
            false => Ok(Source::Files(Files::open(&data.files, data.seed, data.drop_thoughts)?)),
        }
    }

    /// What is examined, if something is.
    ///
    /// # Errors
    /// As [`Source::learned`].
    pub fn examined(data: &Data) -> Result<Option<Source>> {
        Ok(match (data.eval_files.is_empty(), data.files.is_empty()) {
            (false, _) => Some(Source::Files(Files::open(&data.eval_files, data.seed, 0.0)?)),
            (true, true) => Some(Source::Orchard(Orchard::new(data, Split::Test)?)),
            (true, false) => None,
        })
    }

    /// How many there are before they come again; `None` if that is never.
    pub fn num_rows(&self) -> Option<u64> {
        match self {
            Source::Orchard(_) => None,
            Source::Files(files) => Some(files.num_rows()),
        }
    }

    /// Whether all there is can be learned, as far as that can be seen beforehand.
    ///
    /// # Errors
    /// If something cannot.
    pub fn check(&self, writer: &Writer) -> Result<()> {
        match self {
            Source::Orchard(_) => Ok(()),
            Source::Files(files) => files.check(writer),
        }
    }

    /// Text number `index`, for learning a tokenizer.
    ///
    /// # Errors
    /// If the template refuses it.
    pub fn text(&self, renderer: &Renderer, index: u64) -> Result<String> {
        match self {
            Source::Orchard(orchard) => orchard.text(renderer, index),
            Source::Files(files) => files.text(renderer, index),
        }
    }

    /// The examples of number `index`.
    ///
    /// # Errors
    /// If the template or the tokenizer refuses them.
    pub fn examples(&self, writer: &Writer, index: u64, prompt_weight: f32) -> Result<Vec<Example>> {
        match self {
            Source::Orchard(orchard) => orchard.examples(writer, index, prompt_weight),
            Source::Files(files) => files.examples(writer, index, prompt_weight),
        }
    }
}

/// An endless stream of exercises. Example `index` follows from the seed and its number, so that a stream can be taken up
/// anywhere.
#[derive(Debug, Clone)]
pub struct Orchard {
    /// What it is for.
    pub split: Split,
    /// Seed of the exercises.
    pub seed: u64,
    /// How often each subject comes up, relative to the others.
    pub shares: Vec<(Subject, f64)>,
}

impl Orchard {
    fn new(data: &Data, split: Split) -> Result<Orchard> {
        // `exam` counts its seeds from zero, and should ask nothing that a run has been watched by.
        let seed = if split == Split::Test { !data.seed } else { data.seed };
        Ok(Orchard { split, seed, shares: shares(&data.orchard)? })
    }

    /// The subject of an example.
    fn subject(&self, index: u64) -> Subject {
        let total: f64 = self.shares.iter().map(|(_, share)| share).sum();
        let mut left = Random::new(self.seed).named("subject").named(&index.to_string()).uniform() * total;
        for (subject, share) in &self.shares {
            left -= share;
            if left < 0.0 {
                return *subject;
            }
        }
        self.shares.last().map_or(Subject::Facts, |(subject, _)| *subject)
    }

    /// What is learned from exercise number `index`: its answer, and the right ones to what was asked before.
    ///
    /// # Errors
    /// If the template cannot write it.
    pub fn examples(&self, writer: &Writer, index: u64, prompt_weight: f32) -> Result<Vec<Example>> {
        writer.examples(&self.conversation(index), prompt_weight)
    }

    /// Exercise number `index` with its answer.
    fn conversation(&self, index: u64) -> Conversation {
        let exercise = exercise(self.subject(index), self.split, self.seed, index);
        let mut conversation = exercise.conversation;
        conversation.messages.push(exercise.answer);
        conversation
    }

    /// The text of example number `index`, for learning a tokenizer.
    ///
    /// # Errors
    /// If the template cannot write it.
    pub fn text(&self, renderer: &Renderer, index: u64) -> Result<String> {
        whole(renderer, &self.conversation(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_divided_and_conversations_lose_their_beginning() {
        let example = |is_text| Example { tokens: (0..10).collect(), weights: vec![1.0; 10], is_text };
        let tokens = |pieces: Vec<Example>| pieces.into_iter().map(|piece| piece.tokens).collect::<Vec<_>>();
        assert_eq!(tokens(example(false).cut(4)), [vec![5, 6, 7, 8, 9]]);
        let answers = Example { weights: vec![0., 1., 1., 0., 0., 1., 1., 0., 1., 1.], ..example(false) };
        assert_eq!(answers.clone().cut(4)[0].weights, [0., 0., 0., 1., 1.], "half an answer is none");
        assert_eq!(answers.cut(9)[0].weights[1], 1.0);
        let answer = Example { weights: vec![0., 0., 1., 1., 1., 1., 1., 1., 1., 1.], ..example(false) };
        assert_eq!(answer.clone().cut(4), [], "nothing is left to learn");
        assert_eq!(answer.cut(9)[0].weights[2], 1.0);
        assert_eq!(example(false).cut(4)[0].weights, [1.0; 5], "all is learned, the prompt too");
        assert_eq!(tokens(example(true).cut(4)), [vec![0, 1, 2, 3, 4], vec![4, 5, 6, 7, 8], vec![8, 9]]);
        assert_eq!(tokens(example(true).cut(9)), [(0..10).collect::<Vec<u32>>()]);
    }
}
