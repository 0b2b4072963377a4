//! What the Jinja engine must not be given, found by reading the source before it is compiled. Each of these was
//! found by fuzzing; a template that is refused here does not occur in the wild.
//!
//! - A mistake behind column 65535: columns are counted in 16 bits, and the message about the mistake overflows.
//! - Parentheses around the targets of `for` and `set`: they are followed without a bound, unlike expressions.
//! - A namespace inside itself (`{% set ns.x = ns %}`): printing it never ends. Namespaces are the only values that
//!   can be changed, so it is enough that none becomes part of a value: a namespace may be bound to one name, and
//!   the name may only be followed by an attribute.
//!
//! This is a scan of words, not a parser: it knows tags, comments and strings.

use std::collections::HashSet;

/// Longest line.
const LINE_CHARS_MAX: usize = u16::MAX as usize - 1;
/// Deepest nesting of parentheses in one tag; the engine bounds that of expressions by 150.
const PARENTHESES_MAX: usize = 150;
/// The function that makes a namespace.
const NAMESPACE: &str = "namespace";

/// Says why a template must not be compiled, if it must not.
pub(super) fn refusal(source: &str) -> Option<String> {
    if source.lines().any(|line| line.chars().count() > LINE_CHARS_MAX) {
        return Some(format!("one of its lines is longer than {LINE_CHARS_MAX} characters"));
    }
    let tokens = tokens(source);
    if parentheses(&tokens) > PARENTHESES_MAX {
        return Some(format!("its parentheses are nested more than {PARENTHESES_MAX} deep"));
    }
    let name = escaping_namespace(&tokens)?;
    Some(format!("it uses the namespace `{name}` other than by its attributes"))
}

/// What a tag consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'s> {
    /// A tag begins.
    Tag,
    /// A name or number.
    Word(&'s str),
    /// A string, whatever it says.
    Text,
    /// Any other character that is not white space.
    Sign(char),
}

/// The tokens inside the tags of a template.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some((kind, inside)) = next_tag(rest) {
        if kind == '#' {
            rest = inside.split_once("#}").map_or("", |(_, after)| after);
            continue;
        }
        tokens.push(Token::Tag);
        rest = tag(inside, if kind == '%' { "%}" } else { "}}" }, &mut tokens);
    }
    tokens
}

/// The kind of the next tag (`%`, `{` or `#`) and what follows its opening.
fn next_tag(source: &str) -> Option<(char, &str)> {
    let mut rest = source;
    loop {
        (_, rest) = rest.split_once('{')?;
        match rest.chars().next() {
            Some(kind @ ('%' | '{' | '#')) => return Some((kind, rest.get(1..)?)),
            _ => continue,
        }
    }
}

/// Adds the tokens of one tag and returns what follows its end.
fn tag<'s>(inside: &'s str, close: &str, tokens: &mut Vec<Token<'s>>) -> &'s str {
    let mut rest = inside;
    // A dictionary may end in `}}` before the tag does.
    let mut braces = 0usize;
    loop {
        rest = rest.trim_start();
        if braces == 0
            && let Some(after) = rest.strip_prefix(close)
        {
            return after;
        }
        let Some(first) = rest.chars().next() else { return "" };
        let len = match first {
            '"' | '\'' => {
                tokens.push(Token::Text);
                string_len(rest, first)
            }
            c if is_word(c) => {
                let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(rest.get(..len).unwrap_or_default()));
                len
            }
            c => {
                match c {
                    '{' => braces = braces.saturating_add(1),
                    '}' => braces = braces.saturating_sub(1),
                    _ => {}
                }
                tokens.push(Token::Sign(c));
                c.len_utf8()
            }
        };
        rest = rest.get(len..).unwrap_or_default();
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Bytes of the string that `text` begins with, quotes included.
fn string_len(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at.saturating_add(c.len_utf8()),
            _ => {}
        }
    }
    text.len()
}

/// Deepest nesting of parentheses in one tag.
fn parentheses(tokens: &[Token<'_>]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for token in tokens {
        depth = match token {
            Token::Tag => 0,
            Token::Sign('(') => depth.saturating_add(1),
            Token::Sign(')') => depth.saturating_sub(1),
            _ => depth,
        };
        deepest = deepest.max(depth);
    }
    deepest
}

/// The name of a namespace that may become part of a value.
fn escaping_namespace<'s>(tokens: &[Token<'s>]) -> Option<&'s str> {
    let at = |index: Option<usize>| index.and_then(|i| tokens.get(i)).copied().unwrap_or(Token::Tag);
    // (word, the tokens before it, the tokens after it)
    let words = || {
        tokens.iter().enumerate().filter_map(|(i, token)| {
            let Token::Word(word) = *token else { return None };
            let before = [1, 2, 3].map(|n| at(i.checked_sub(n)));
            let after = [1, 2, 3].map(|n| at(i.checked_add(n)));
            Some((word, before, after))
        })
    };
    let mut names = HashSet::new();
    for (word, before, after) in words().filter(|(word, ..)| *word == NAMESPACE) {
        match (before, after) {
            ([Token::Sign('.'), ..], _) => {}
            ([Token::Sign('='), Token::Word(name), Token::Word("set")], [Token::Sign('('), ..]) => {
                names.insert(name);
            }
            _ => return Some(word),
        }
    }
    let escapes = |(word, before, after): &(&str, [Token<'_>; 3], [Token<'_>; 3])| {
        let is_attribute = before[0] == Token::Sign('.');
        let is_used_by_attribute = matches!(after[0], Token::Sign('.' | '['));
        let is_bound = before[0] == Token::Word("set") && after[0] == Token::Sign('=');
        names.contains(word) && !is_attribute && !is_used_by_attribute && !is_bound
    };
    words().find(escapes).map(|(word, ..)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_stay_where_they_are() {
        for good in [
            "{% set ns = namespace(a=1, b=[]) %}{% for m in messages %}{% set ns.a = ns.a + 1 %}{% endfor %}{{ ns.a }}",
            "{%- set ns = namespace() -%}{%- set ns.b = ns.b + [ns.a] -%}{{ {'ns': ns.b, \"x\": x.ns}}}",
            "the word ns and a namespace in prose {# ns namespace #}{{ 'ns namespace' }}{{ \"it's ns\" }}",
        ] {
            assert_eq!(refusal(good), None, "{good}");
        }
        for bad in [
            "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns.a }}",
            "{% set ns = namespace() %}{% set a = [ns] %}{% set ns.a = a %}",
            "{% set ns = namespace() %}{% set ns.a = {'x': ns} %}",
            "{% set f = namespace %}{% set ns = f() %}",
            "{{ f(namespace()) }}",
            "{% set a = [namespace()] %}",
        ] {
            let why = refusal(bad).expect(bad);
            assert!(why.contains("namespace"), "{why}");
        }
    }

    #[test]
    fn parentheses_count_in_tags_only() {
        let deep = "(".repeat(PARENTHESES_MAX + 1);
        assert_eq!(refusal(&format!("{deep}{{{{ '{deep}' }}}}{{# {deep} #}}{{{{ (1) }}}}")), None);
        assert!(refusal(&format!("{{% for {deep}")).expect("too deep").contains("150 deep"));
    }

    #[test]
    fn long_lines_are_refused() {
        let line = "x".repeat(LINE_CHARS_MAX);
        assert_eq!(refusal(&format!("{line}\n{line}")), None);
        assert!(refusal(&format!("{line}x")).is_some());
    }

    #[test]
    fn unfinished_tags_are_scanned_to_the_end() {
        for text in ["{", "{%", "{{ 'x", "{{ \"\\", "{# x", "{% é", "{{ {{ }", "{{ é'é"] {
            assert_eq!(refusal(text), None, "{text}");
        }
    }
}
