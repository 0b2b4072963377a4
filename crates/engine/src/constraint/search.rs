//! A short way from where an answer is to where it may end, found by trying.
//!
//! Nodes are the texts that may follow, one byte longer than their parents; the cheapest are looked at first. Brackets and
//! quotation marks that are open cost most, bytes that were chosen among several cost less, and bytes without a choice
//! least: what has to be written anyway, such as the names of required properties, is no reason to try something else.
//! What ends a string, a list or an object ends it at once, and of the ways to write a value only the first that comes to
//! its end is followed: what a context-free grammar wants behind a part does not depend on the part. Of the texts that bring the lexer into the same state within a lexeme only one is followed, so that a string of twenty
//! letters is a row of twenty nodes and not a tree.
//!
//! The search runs on a copy of the parser, with the library's own limits on the work of each step, and has a limit on
//! the number of steps. It works on bytes, of which there are few, and not on tokens, of which there are many: any text
//! that a grammar allows can be written in tokens.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use llguidance::derivre::StateID;
use llguidance::earley::{BiasComputer, Parser, ParserRecognizer};
use llguidance::toktrie::{Recognizer, SimpleVob, TokEnv, TokTrie};
use tangelo_core::TokenId;

/// Steps of one search; a step takes some ten microseconds.
const STEPS_MAX: usize = 3_000;
/// Cost of a bracket or a quotation mark that is open. More than that of the byte that closes it, so that what closes is
/// tried before what goes on.
const OPEN_COST: usize = 12;
/// Cost of a byte that was chosen.
const CHOICE_COST: usize = 4;
/// Cost of a byte without a choice.
const FORCED_COST: usize = 1;
/// Texts of one length that end a lexeme in the same state and nesting, and are followed. One would do if the state told
/// all about what is to come.
const LIKE_ENDS_MAX: u8 = 4;
/// The id of no token: what is pushed here is bytes.
const NO_TOKEN: TokenId = TokenId::MAX;

/// A text that may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    /// The text; a special token in it is written as the library does, `\xff[ID]`.
    pub bytes: Vec<u8>,
    /// Whether the answer may end behind it. If not, it is only the most promising beginning of a way to the end.
    pub is_whole: bool,
}

/// What of JSON is open in a text. In other texts it is a guess that does no harm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Nesting {
    brackets: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Nesting {
    /// After more of the text.
    #[must_use]
    pub fn after(mut self, bytes: &[u8]) -> Nesting {
        for byte in bytes {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_in_string => self.is_escaped = true,
                b'"' => self.is_in_string = !self.is_in_string,
                b'[' | b'{' if !self.is_in_string => self.brackets += 1,
                b']' | b'}' if !self.is_in_string => self.brackets = self.brackets.saturating_sub(1),
                _ => {}
            }
        }
        self
    }

    fn open(self) -> usize {
        self.brackets + usize::from(self.is_in_string)
    }
}

/// A byte that may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Next {
    byte: u8,
    /// The lexer's state behind it.
    state: StateID,
    /// Whether the lexeme before has ended.
    is_new_lexeme: bool,
}

/// A text to go on from; the order is that of looking at them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    /// Of the bytes alone, without what is open.
    cost: usize,
    path: Vec<u8>,
    /// Nodes with this number have their last lexeme and all before it in common.
    lexeme: usize,
    nesting: Nesting,
    /// Where in the path the values begin that are being written, outermost first.
    values: Vec<usize>,
}

impl Node {
    /// Writes one more byte. If it ends a value, says where in the path that began.
    fn push(&mut self, byte: u8) -> Option<usize> {
        let before = self.nesting;
        self.nesting = before.after(&[byte]);
        self.path.push(byte);
        if before.is_in_string {
            return None;
        }
        let begin = self.values.last().copied().unwrap_or(0);
        match byte {
            b'[' | b'{' => self.values.push(self.path.len()),
            b']' | b'}' => drop(self.values.pop()),
            b':' | b',' => {
                self.values.pop();
                self.values.push(self.path.len());
            }
            _ => {}
        }
        (b",]}".contains(&byte) && before.brackets > 0).then_some(begin)
    }
}

/// A search in progress.
struct Search {
    parser: Parser,
    looker: Looker,
    /// Cheapest first, then the longer one.
    open: BinaryHeap<Reverse<(usize, Reverse<usize>, Node)>>,
    /// Number of lexemes that nodes were given.
    lexemes: usize,
    within_lexemes: HashSet<(usize, StateID)>,
    behind_lexemes: HashMap<(StateID, Nesting, usize), u8>,
    steps: usize,
}

/// A short way to the end from where `parser` is, behind a text with this nesting; `None` if there is none to be seen, or
/// the grammar takes back what was written, so that nothing can be tried.
///
/// # Errors
/// What the library says when its limits are reached.
pub(super) fn way_to_end(parser: &Parser, env: &TokEnv, nesting: Nesting) -> Result<Option<Way>, String> {
    if !parser.grammar().lexer_spec().can_rollback() {
        return Ok(None);
    }
    let mut search = Search {
        parser: parser.deep_clone(),
        looker: Looker { env: env.clone(), found: Mutex::default() },
        open: BinaryHeap::new(),
        lexemes: 0,
        within_lexemes: HashSet::new(),
        behind_lexemes: HashMap::new(),
        steps: 0,
    };
    search.add(Node { cost: 0, path: Vec::new(), lexeme: 0, nesting, values: Vec::new() });
    while let Some(Reverse((.., node))) = search.open.pop() {
        if search.steps >= STEPS_MAX {
            return Ok(Some(Way { bytes: node.path, is_whole: false }).filter(|way| !way.bytes.is_empty()));
        }
        if let Some(bytes) = search.go_on(node)? {
            return Ok(Some(Way { bytes, is_whole: true }));
        }
    }
    Ok(None)
}

impl Search {
    fn add(&mut self, node: Node) {
        let cost = node.cost + OPEN_COST * node.nesting.open();
        self.open.push(Reverse((cost, Reverse(node.path.len()), node)));
    }

    /// Follows a node as long as there is one byte only, and adds its branches; the whole way if it comes to an end.
    fn go_on(&mut self, mut node: Node) -> Result<Option<Vec<u8>>, String> {
        self.apply(&node.path)?;
        let branches = loop {
            self.steps += 1;
            self.force(&mut node)?;
            if self.parser.is_accepting() {
                return Ok(Some(node.path));
            }
            let next = self.look()?;
            let (only, cost) = match (&next[..], closer(&next, node.nesting)) {
                _ if self.steps >= STEPS_MAX => break next,
                (&[only], _) => (only, FORCED_COST),
                (_, Some(closer)) => (closer, CHOICE_COST),
                _ => break next,
            };
            self.apply(&[only.byte])?;
            node.cost += cost;
            self.extend(&mut node, &[only.byte], only.is_new_lexeme);
        };
        if !node.path.is_empty() {
            self.parser.rollback(node.path.len()).map_err(|error| error.to_string())?;
        }
        for next in branches {
            let mut branch = node.clone();
            branch.cost += CHOICE_COST;
            branch.push(next.byte);
            if next.is_new_lexeme {
                self.lexemes += 1;
                branch.lexeme = self.lexemes;
            }
            if self.is_new(&branch, next) {
                self.add(branch);
            }
        }
        Ok(None)
    }

    /// Adds bytes to a node that nothing else can compete with. Where they end a value, other ways to write the same
    /// value are given up: what follows does not depend on it.
    fn extend(&mut self, node: &mut Node, bytes: &[u8], is_new_lexeme: bool) {
        for &byte in bytes {
            if let Some(begin) = node.push(byte) {
                let same = node.path.get(..begin).unwrap_or_default();
                self.open.retain(|Reverse((.., other))| !other.path.starts_with(same));
            }
        }
        if is_new_lexeme {
            self.lexemes += 1;
            node.lexeme = self.lexemes;
        }
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self.parser.apply_token(bytes, NO_TOKEN) {
            Ok(0) => Ok(()),
            Ok(_) => Err("the grammar takes back what was written".to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Goes on with what the library knows to come next, which takes it less time than trying.
    fn force(&mut self, node: &mut Node) -> Result<(), String> {
        let forced = self.parser.force_bytes().to_vec();
        self.apply(&forced)?;
        if !forced.is_empty() {
            node.cost += FORCED_COST * forced.len();
            self.extend(node, &forced, true);
        }
        Ok(())
    }

    /// Whether nothing like it was added before.
    fn is_new(&mut self, node: &Node, last: Next) -> bool {
        if !last.is_new_lexeme {
            return self.within_lexemes.insert((node.lexeme, last.state));
        }
        let like = self.behind_lexemes.entry((last.state, node.nesting, node.path.len())).or_default();
        *like += 1;
        *like <= LIKE_ENDS_MAX
    }

    fn look(&mut self) -> Result<Vec<Next>, String> {
        // The library remembers the mask of a state, but here it is not the mask that is looked for.
        self.parser.invalidate_bias_cache();
        self.parser.compute_bias(&self.looker, &[]);
        match self.parser.get_error() {
            Some(error) => Err(error.message()),
            None => Ok(std::mem::take(&mut *self.looker.found())),
        }
    }
}

/// What ends a string, a list, an object or a member, if it may come next. Nothing else need be tried then: what a
/// context-free grammar wants behind a part does not depend on how long the part is.
fn closer(next: &[Next], nesting: Nesting) -> Option<Next> {
    let find = |wanted: u8| next.iter().find(|next| next.byte == wanted).copied();
    if nesting.is_in_string {
        // Where a quotation mark is like other characters, this is no string of JSON.
        let is_other =
            |mark: Next| next.iter().all(|next| next.byte == mark.byte || next.state != mark.state);
        return find(b'"').filter(|&mark| !nesting.is_escaped && is_other(mark));
    }
    let marks = [b'}', b']', b','].map(|mark| find(mark).filter(|next| next.is_new_lexeme));
    marks.into_iter().flatten().next().filter(|_| nesting.brackets > 0)
}

/// Finds the bytes that may come next. It is called as if it made a mask, because that is how the library lets one look
/// ahead and limits the work.
struct Looker {
    env: TokEnv,
    found: Mutex<Vec<Next>>,
}

impl Looker {
    fn found(&self) -> MutexGuard<'_, Vec<Next>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BiasComputer for Looker {
    fn compute_bias(&self, recognizer: &mut ParserRecognizer<'_>, _start: &[u8]) -> SimpleVob {
        let mut found = self.found();
        found.clear();
        recognizer.trie_started("way to the end");
        // Of bytes that are alike the first is taken, so letters come first. Beginnings of longer characters are alike
        // to none of ASCII, but as good as any; so they are tried where nothing else will do.
        let ascii = (b'a'..=b'z').chain(b'0'..=b'9').chain(0..b'0').chain(b':'..b'a').chain(b'{'..0x80);
        for byte in ascii.chain([TokTrie::SPECIAL_TOKEN_MARKER]) {
            try_byte(recognizer, byte, &mut found);
        }
        if found.is_empty() {
            (0x80..TokTrie::SPECIAL_TOKEN_MARKER).for_each(|byte| try_byte(recognizer, byte, &mut found));
        }
        recognizer.trie_finished();
        self.trie().alloc_token_set()
    }

    fn trie(&self) -> &TokTrie {
        self.env.tok_trie()
    }
}

fn try_byte(recognizer: &mut ParserRecognizer<'_>, byte: u8, found: &mut Vec<Next>) {
    let lexemes = |recognizer: &mut ParserRecognizer<'_>| {
        let stats = recognizer.stats_mut();
        stats.rows + stats.cached_rows
    };
    let before = lexemes(recognizer);
    if !recognizer.try_push_byte(byte) {
        return;
    }
    let (state, is_new_lexeme) = (recognizer.lexer_state(), lexemes(recognizer) != before);
    recognizer.pop_bytes(1);
    let next = Next { byte, state, is_new_lexeme };
    // What counts for the nesting is like no other byte.
    let is_mark = |byte: u8| b"\"\\[]{}".contains(&byte);
    let is_like = |other: &Next| Next { byte, ..*other } == next && !is_mark(other.byte);
    if is_mark(byte) || !found.iter().any(is_like) {
        found.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_counted_outside_of_strings() {
        for (text, open) in
            [("", 0), (r#"{"a": ["#, 2), (r#"{"a": "[{\\\"}"#, 2), (r#"{"a": [1, {}]}"#, 0), ("]", 0)]
        {
            assert_eq!(Nesting::default().after(text.as_bytes()).open(), open, "{text}");
        }
    }
}
