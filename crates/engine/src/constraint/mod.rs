//! Constraints: which tokens may come next so that the answer is one of a grammar.
//!
//! Grammars are compiled and followed by the `llguidance` crate, for the vocabulary of one model. What is added here:
//!
//! - **Refusal.** What is not supported, too large or contradictory is an error before the first token; a state in which no
//!   token may follow is an error after. Nothing is ever let through unconstrained.
//! - **No idle space.** JSON has one space after `:` and `,` and no other whitespace between its parts, as models write
//!   it: otherwise a model that knows nothing, or has lost its way, writes spaces until its tokens are used up.
//! - **An end.** When few tokens are left, of the tokens allowed those stay that are on a short way to the end
//!   ([`closing`]), so that the answer of any model is complete where its grammar has such a way.

mod closing;
mod schema;
mod search;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{ParserFactory, TokenParser, panic_utils};
use serde_json::{Value, json};
use tangelo_core::TokenId;
use tangelo_core::limits::GRAMMAR_BYTES_MAX;

use crate::error::{Error, Result};
use crate::mask::TokenMask;
use closing::Closing;
use schema::{prepared, prepared_lark};
use search::{Nesting, way_to_end};

/// What the library may use. Its defaults, which are made for schemas of some megabytes, but for the states of the lexer:
/// one has one to two kilobytes, and every answer has its own.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2_000,
    initial_lexer_fuel: 1_000_000,
    step_lexer_fuel: 200_000,
    step_max_items: 50_000,
    max_lexer_states: 50_000,
    max_grammar_size: 500_000,
    precompute_large_lexemes: true,
    verbose_errors: false,
};
/// Longest regular expression; what takes the library long to read is shorter than other grammars.
const REGEX_BYTES_MAX: usize = 16 << 10;
/// Objects of a schema and lines of a grammar, at most.
const PARTS_MAX: usize = 1 << 15;
/// Stack for a compilation; it is only reserved, not filled.
const STACK_BYTES: usize = 4 << 20;
/// The same for each part. Two to five kilobytes were measured.
const STACK_BYTES_PER_PART: usize = 16 << 10;

/// What an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// A JSON object.
    JsonObject,
    /// JSON of this schema.
    JsonSchema(Value),
    /// A text that the expression matches from its beginning to its end.
    Regex(String),
    /// A text of this grammar, in llguidance's variant of Lark.
    Lark(String),
}

/// Compiles grammars for the vocabulary of one model.
pub struct Grammars {
    factory: ParserFactory,
    stop_ids: Vec<TokenId>,
}

impl Grammars {
    /// For a vocabulary given as the bytes of every token. Grammars name `special` tokens as `<...>`, and their bytes
    /// as text are something else. `stop_ids` end an answer.
    ///
    /// # Errors
    /// [`Error::Grammar`] if there is no stop token, or the vocabulary cannot be used.
    pub fn new(vocabulary: &[Vec<u8>], special: &[TokenId], stop_ids: &[TokenId]) -> Result<Grammars> {
        let problem = |reason: String| Error::Grammar { reason };
        let stop_ids: Vec<TokenId> =
            stop_ids.iter().copied().filter(|&id| (id as usize) < vocabulary.len()).collect();
        let Some(&eos) = stop_ids.first() else {
            return Err(problem("the model has no stop token, so an answer could not end".to_string()));
        };
        let mut words = vocabulary.to_vec();
        for &id in special.iter().chain(&stop_ids) {
            if let Some(word) = words.get_mut(id as usize) {
                word.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
            }
        }
        let vocab_size =
            u32::try_from(words.len()).map_err(|_| problem("the vocabulary is too large".to_string()))?;
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size, eos), &words).with_eos_tokens(&stop_ids);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
            .map_err(|error| problem(one_line(&error)))?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        Ok(Grammars { factory, stop_ids })
    }

    /// A constraint at the beginning of an answer.
    ///
    /// # Errors
    /// [`Error::Grammar`] with the reason, if the grammar is not supported, too large or contradictory.
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint> {
        let text = match grammar {
            Grammar::JsonObject => String::new(),
            Grammar::JsonSchema(schema) => schema.to_string(),
            Grammar::Regex(text) | Grammar::Lark(text) => text.clone(),
        };
        let most = if matches!(grammar, Grammar::Regex(_)) { REGEX_BYTES_MAX } else { GRAMMAR_BYTES_MAX };
        if text.len() > most {
            let reason = format!("it has {} bytes, but at most {most} are accepted", text.len());
            return Err(Error::Grammar { reason });
        }
        let parts = text.bytes().filter(|byte| b"{\n".contains(byte)).count();
        if parts > PARTS_MAX {
            let reason = format!("it has {parts} parts, but at most {PARTS_MAX} are accepted");
            return Err(Error::Grammar { reason });
        }
        // The library follows references by recursion, so that each part may be a level of it.
        let stack = STACK_BYTES + parts * STACK_BYTES_PER_PART;
        std::thread::scope(|scope| {
            let compiler = std::thread::Builder::new().name("grammar".to_string()).stack_size(stack);
            let compiling = compiler.spawn_scoped(scope, || self.compile_here(grammar));
            let compiled = compiling.map(|thread| thread.join());
            let failed = || Error::Grammar { reason: "the compiler of grammars has failed".to_string() };
            compiled.map_err(|_| failed())?.map_err(|_| failed())?
        })
    }

    fn compile_here(&self, grammar: &Grammar) -> Result<Constraint> {
        let compiled = match grammar {
            Grammar::JsonObject => TopLevelGrammar::from_json_schema(prepared(&json!({"type": "object"}))?),
            Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(prepared(schema)?),
            Grammar::Regex(expression) => TopLevelGrammar::from_regex(expression),
            Grammar::Lark(grammar) => TopLevelGrammar::from_lark(prepared_lark(grammar)?),
        };
        let parser = self.factory.create_parser(compiled);
        let mut parser = parser.map_err(|error| Error::Grammar { reason: one_line(&error) })?;
        if let Some(warning) = parser.grammar_warnings().first() {
            return Err(Error::Grammar { reason: first_line(warning) });
        }
        parser.start_without_prompt();
        let mask = TokenMask::none(self.factory.tok_env().tok_trie().vocab_size());
        let mut constraint = Constraint { parser, mask, closing: Closing::default(), is_broken: false };
        // What is too much for the limits of the library shows only when an answer is tried.
        constraint.try_out()?;
        Ok(constraint)
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").field("stop_ids", &self.stop_ids).finish_non_exhaustive()
    }
}

/// The grammar of one answer, as far as the answer has come.
pub struct Constraint {
    parser: TokenParser,
    mask: TokenMask,
    closing: Closing,
    /// The library has failed, and what it would say from now on is worth nothing.
    is_broken: bool,
}

impl Constraint {
    /// From now on allows, of what the grammar allows, what is on a short way to the end.
    pub fn close(&mut self) {
        self.closing.close();
    }

    /// Tells that at most `left` tokens will be taken from now on, so that the answer is closed in time.
    ///
    /// To be called before every [`Constraint::allowed`]; most calls cost nothing, others some milliseconds.
    ///
    /// # Errors
    /// [`Error::Grammar`] if the grammar cannot be followed any more.
    pub fn close_within(&mut self, left: usize) -> Result<()> {
        self.guarded(|this| {
            this.closing.close_within(left, &this.parser.parser, &this.parser.token_env);
            Ok(())
        })
    }

    /// The tokens that may come next; stop tokens among them if the answer may end.
    ///
    /// # Errors
    /// [`Error::Grammar`] if none may.
    pub fn allowed(&mut self) -> Result<&TokenMask> {
        self.guarded(|this| {
            let found = match this.parser.stop_reason() {
                StopReason::NotStopped => this.parser.compute_mask().map_err(|error| one_line(&error))?,
                _ => this.parser.token_env.tok_trie().eos_token_set(),
            };
            let words = this.mask.words_mut();
            words.clear();
            words.extend_from_slice(found.as_slice());
            if this.mask.is_empty() {
                return Err("no token of the vocabulary continues the answer".to_string());
            }
            this.closing.narrow(&mut this.mask, &this.parser.parser, &this.parser.token_env);
            Ok(())
        })?;
        Ok(&self.mask)
    }

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// [`Error::Grammar`] if it is not one of [`Constraint::allowed`].
    pub fn accept(&mut self, token: TokenId) -> Result<()> {
        self.guarded(|this| {
            let taken = this.parser.consume_token(token).and_then(|taken_back| {
                this.parser.check_stop()?;
                Ok(taken_back)
            });
            match taken.map_err(|error| one_line(&error))? {
                0 => this.closing.accept(token, this.parser.token_env.tok_trie()),
                _ => {
                    return Err(
                        "the grammar takes back what was written, which cannot be done here".to_string()
                    );
                }
            }
            Ok(())
        })
    }

    /// Looks for an answer.
    fn try_out(&mut self) -> Result<()> {
        self.allowed()?;
        self.guarded(|this| {
            let way = way_to_end(&this.parser.parser, &this.parser.token_env, Nesting::default());
            way.map(drop).map_err(|error| first_line(&error))
        })
    }

    /// Does something with the library; if it fails or panics, everything from then on is an error.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<()> {
        if self.is_broken {
            let reason = "it was left when an error had occurred".to_string();
            return Err(Error::Grammar { reason });
        }
        let done = panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(work(self))));
        let done = done.unwrap_or_else(|panic| Err(one_line(&panic)));
        self.is_broken = done.is_err();
        done.map_err(|reason| Error::Grammar { reason })
    }

    /// Whether the answer is complete and nothing can be added to it.
    pub fn is_complete(&self) -> bool {
        self.parser.stopped()
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").field("closing", &self.closing).finish_non_exhaustive()
    }
}

/// What an error of the library says, without the state that it may print.
fn one_line(error: &impl fmt::Display) -> String {
    first_line(&error.to_string())
}

fn first_line(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    text.lines().next().unwrap_or_default().chars().take(CHARS_MAX).collect()
}
