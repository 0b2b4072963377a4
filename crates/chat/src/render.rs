//! A conversation as a prompt, and where the prompt is worth cutting.
//!
//! The template writes the prompt. Where it can be cut is then read off the prompt itself: every turn begins with a
//! marker of the dialect, followed by the role. Text in a message can look like a marker; the prompt then has a cut too
//! many, which costs a little memory and changes no result.

use serde_json::{Map, Value};
use tangelo_formats::template::{ChatTemplate, TemplateContext};
use tangelo_formats::tokenizer::{EncodeOptions, TokenId, Tokenizer};

use crate::dialect::{Dialect, THINK_CLOSE, THINK_OPEN};
use crate::error::Result;
use crate::message::{Conversation, Message, Tool};

/// How to render.
#[derive(Debug, Clone, Default)]
pub struct RenderOptions {
    /// End the prompt where the assistant's next answer begins.
    pub add_generation_prompt: bool,
    /// Whether the answer begins with reasoning; `None` leaves it to the template.
    pub enable_thinking: Option<bool>,
    /// Whether reasoning of past answers is left out; `None` leaves it to the template.
    pub truncate_history_thinking: Option<bool>,
    /// Further variables for the template. They win over the three above.
    pub kwargs: Map<String, Value>,
    /// The moment that templates print as today, in seconds since 1970; `None` reads the clock.
    pub now_unix_s: Option<i64>,
}

/// What lies before a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutKind {
    /// The system message and the tools.
    System,
    /// A user's turn.
    User,
    /// The result of a tool.
    ToolResult,
    /// The reasoning of a past answer.
    Reasoning,
    /// A past answer.
    Answer,
    /// Everything but `<think>`: where answers with and without reasoning part.
    GenerationPrompt,
}

/// A place where the model's state is worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of the prompt before the cut ([`Rendered`]) or tokens before it ([`PromptTokens`]).
    pub offset: usize,
    /// What lies before it.
    pub kind: CutKind,
}

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The prompt.
    pub prompt: String,
    /// Whether the prompt ends inside an open `<think>`, so that the answer begins with reasoning.
    pub starts_in_reasoning: bool,
    /// Where to cut the prompt, in increasing order of byte offsets, all inside it.
    pub cuts: Vec<Cut>,
}

/// A prompt as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptTokens {
    /// The tokens of the prompt.
    pub ids: Vec<TokenId>,
    /// The cuts that fall between two tokens, as numbers of tokens.
    pub cuts: Vec<Cut>,
}

impl Rendered {
    /// Encodes the prompt. Special tokens in it are recognised, none are added.
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Result<PromptTokens> {
        let ids = tokenizer.encode(&self.prompt, EncodeOptions::PROMPT)?;
        let mut cuts = Vec::with_capacity(self.cuts.len());
        let mut wanted = self.cuts.iter().peekable();
        let mut bytes = 0usize;
        for (index, &id) in ids.iter().enumerate() {
            while wanted.next_if(|cut| cut.offset < bytes).is_some() {}
            if let Some(cut) = wanted.next_if(|cut| cut.offset == bytes) {
                cuts.push(Cut { offset: index, kind: cut.kind });
            }
            bytes = bytes.saturating_add(tokenizer.token_bytes(id).map_or(0, <[u8]>::len));
        }
        Ok(PromptTokens { ids, cuts })
    }
}

/// Renders conversations for one model.
#[derive(Debug)]
pub struct Renderer {
    template: ChatTemplate,
    dialect: &'static Dialect,
}

impl Renderer {
    /// Takes a model's template and finds out its dialect.
    pub fn new(template: ChatTemplate) -> Self {
        let dialect = Dialect::detect(template.source());
        Self { template, dialect }
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The dialect of the template.
    pub fn dialect(&self) -> &'static Dialect {
        self.dialect
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// The template refuses it or fails ([`tangelo_formats::template::TemplateError`]).
    pub fn render(&self, conversation: &Conversation, options: &RenderOptions) -> Result<Rendered> {
        let messages: Value = conversation.messages.iter().map(Message::template_value).collect();
        let tools: Option<Value> = (!conversation.tools.is_empty())
            .then(|| conversation.tools.iter().map(Tool::definition).cloned().collect());
        let mut kwargs = Map::new();
        let switches = [
            ("enable_thinking", options.enable_thinking),
            ("truncate_history_thinking", options.truncate_history_thinking),
        ];
        for (name, switch) in switches {
            if let Some(switch) = switch {
                kwargs.insert(name.to_owned(), switch.into());
            }
        }
        kwargs.extend(options.kwargs.clone());
        let prompt = self.template.render(&TemplateContext {
            messages: &messages,
            tools: tools.as_ref(),
            add_generation_prompt: options.add_generation_prompt,
            kwargs: &kwargs,
            now_unix_s: options.now_unix_s,
        })?;
        let turns = find_turns(&prompt, self.dialect);
        let cuts = find_cuts(&prompt, &turns, self.dialect);
        let last = turns.last().filter(|turn| turn.is_assistant()).map(|turn| turn.body);
        let starts_in_reasoning = last.is_some_and(|body| body.rfind(THINK_OPEN) > body.rfind(THINK_CLOSE));
        Ok(Rendered { prompt, starts_in_reasoning, cuts })
    }
}

/// A turn of a prompt.
struct Turn<'a> {
    /// Where its marker begins, in bytes.
    start: usize,
    /// The role, in lower case.
    role: String,
    /// Where the text behind the role begins.
    body_start: usize,
    body: &'a str,
}

impl Turn<'_> {
    fn is_assistant(&self) -> bool {
        self.role == "assistant"
    }
}

fn find_turns<'a>(prompt: &'a str, dialect: &Dialect) -> Vec<Turn<'a>> {
    let mut starts: Vec<(usize, usize)> = dialect
        .turn_starts
        .iter()
        .flat_map(|marker| {
            prompt.match_indices(marker).map(|(place, found)| (place, place.saturating_add(found.len())))
        })
        .collect();
    starts.sort_unstable();
    let ends = starts.iter().skip(1).map(|(place, _)| *place).chain([prompt.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&(start, role_start), end)| {
            let text = prompt.get(role_start..end).unwrap_or_default();
            let (role, body) = text.split_once('\n').unwrap_or((text, ""));
            Turn { start, role: role.trim().to_lowercase(), body_start: end.saturating_sub(body.len()), body }
        })
        .collect()
}

fn find_cuts(prompt: &str, turns: &[Turn<'_>], dialect: &Dialect) -> Vec<Cut> {
    let mut cuts = Vec::new();
    for (index, turn) in turns.iter().enumerate() {
        let place = |offset: usize| turn.body_start.saturating_add(offset);
        let last = index.saturating_add(1) == turns.len();
        let mut kind = match turn.role.as_str() {
            "system" => CutKind::System,
            "assistant" => CutKind::Answer,
            "tool" => CutKind::ToolResult,
            _ => CutKind::User,
        };
        if turn.is_assistant() {
            match turn.body.find(THINK_CLOSE) {
                _ if last && is_generation_prompt(turn.body) => {
                    cuts.push(Cut { offset: turn.body_start, kind: CutKind::GenerationPrompt });
                }
                Some(end) => {
                    cuts.push(Cut {
                        offset: place(end.saturating_add(THINK_CLOSE.len())),
                        kind: CutKind::Reasoning,
                    });
                }
                None => {}
            }
        } else if let Some(close) = dialect.tool_result_close {
            for (end, tag) in turn.body.match_indices(close) {
                kind = CutKind::ToolResult;
                cuts.push(Cut { offset: place(end.saturating_add(tag.len())), kind });
            }
        }
        if let Some(next) = turns.get(index.saturating_add(1)) {
            cuts.push(Cut { offset: next.start, kind });
        }
    }
    cuts.retain(|cut| cut.offset > 0 && cut.offset < prompt.len());
    cuts.sort_by_key(|cut| cut.offset);
    cuts.dedup_by_key(|cut| cut.offset);
    cuts
}

/// Whether an assistant's turn holds nothing but what a template writes before an answer.
fn is_generation_prompt(body: &str) -> bool {
    let rest = body.trim_start();
    let rest = rest.strip_prefix(THINK_OPEN).unwrap_or(rest).trim_start();
    rest.strip_prefix(THINK_CLOSE).unwrap_or(rest).trim().is_empty()
}
