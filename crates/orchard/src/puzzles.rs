//! Arithmetic, lists and chains of facts, half of them with a line of thought that leads to the result.

use tangelo_core::random::Random;

use crate::names::split_of;
use crate::{Exercise, Split, Subject, asked, if_so, names, said, says};

/// A question with its result and the steps to it.
struct Puzzle {
    kind: &'static str,
    question: String,
    trace: String,
    result: String,
}

/// Makers of puzzles; each occurs equally often.
const KINDS: [fn(&mut Random, Split) -> Puzzle; 7] = [add, subtract, multiply, sort, count, chain, reverse];

/// A puzzle with a line of thought or without. None is both for learning and for examination.
pub fn exercise(random: &mut Random, split: Split) -> Exercise {
    let thinks = random.chance(0.5);
    let kind = *random.of(&KINDS);
    let puzzle = loop {
        let puzzle = kind(random, split);
        if split_of(&puzzle.trace) == split {
            break puzzle;
        }
    };
    let mut answer = says(puzzle.result.clone());
    answer.reasoning_content = thinks.then_some(puzzle.trace);
    Exercise {
        subject: Subject::Puzzles,
        kind: puzzle.kind,
        conversation: asked(None, puzzle.question),
        thinks,
        answer,
        grader: Box::new(move |answer| {
            let text = said(answer);
            let text = text.strip_suffix('.').unwrap_or(text);
            let ends_with = |mark: &str| text.rsplit_once(mark).is_some_and(|(_, end)| end == puzzle.result);
            if_so(text == puzzle.result || ends_with(" is ") || ends_with("= "))
        }),
    }
}

/// One of several ways to ask.
fn phrased<const N: usize>(random: &mut Random, ways: [String; N]) -> String {
    random.of(&ways).clone()
}

/// The names of the columns of a number, from the right.
const COLUMNS: [&str; 3] = ["ones", "tens", "hundreds"];

/// A number of two or three digits.
fn number(random: &mut Random) -> usize {
    if random.chance(0.5) { 10 + random.below(90) } else { 100 + random.below(900) }
}

/// The columns of two numbers, from the right: their names and their digits.
fn columns(a: usize, b: usize) -> impl Iterator<Item = (&'static str, usize, usize)> {
    let digit = |number: usize, column: usize| number / 10usize.pow(column as u32) % 10;
    let count = a.max(b).to_string().len();
    COLUMNS.into_iter().take(count).enumerate().map(move |(i, name)| (name, digit(a, i), digit(b, i)))
}

fn add(random: &mut Random, _: Split) -> Puzzle {
    let (a, b) = (number(random), number(random));
    let ways = [
        format!("What is {a} + {b}?"),
        format!("Add {a} and {b}."),
        format!("How much is {a} plus {b}?"),
        format!("{a} + {b} = ?"),
    ];
    let result = (a + b).to_string();
    Puzzle { kind: "puzzles.add", question: phrased(random, ways), trace: steps_of_sum(a, b), result }
}

/// `ones: 7+8=15, write 5 carry 1. tens: 4+2+1=7. so 75`. The last column is written in full.
fn steps_of_sum(a: usize, b: usize) -> String {
    let mut trace = String::new();
    let mut carry = 0;
    let mut rest = columns(a, b).peekable();
    while let Some((column, x, y)) = rest.next() {
        let sum = x + y + carry;
        let carried = if carry > 0 { "+1" } else { "" };
        trace += &format!("{column}: {x}+{y}{carried}={sum}");
        carry = sum / 10;
        if carry > 0 && rest.peek().is_some() {
            trace += &format!(", write {} carry 1", sum % 10);
        }
        trace += ". ";
    }
    trace + &format!("so {}", a + b)
}

fn subtract(random: &mut Random, _: Split) -> Puzzle {
    let (a, b) = (number(random), number(random));
    let (a, b) = (a.max(b), a.min(b));
    let ways = [
        format!("What is {a} - {b}?"),
        format!("Subtract {b} from {a}."),
        format!("How much is {a} minus {b}?"),
        format!("{a} - {b} = ?"),
    ];
    let result = (a - b).to_string();
    Puzzle {
        kind: "puzzles.subtract",
        question: phrased(random, ways),
        trace: steps_of_difference(a, b),
        result,
    }
}

/// `ones: 3-8, borrow, 13-8=5. tens: 4-2-1=1. so 15`.
fn steps_of_difference(a: usize, b: usize) -> String {
    let mut trace = String::new();
    let mut borrow = 0;
    for (column, x, y) in columns(a, b) {
        let less = if borrow > 0 { format!("{y}-1") } else { y.to_string() };
        let taken = y + borrow;
        borrow = usize::from(x < taken);
        if borrow > 0 {
            trace += &format!("{column}: {x}-{less}, borrow, {}-{less}={}. ", x + 10, x + 10 - taken);
        } else {
            trace += &format!("{column}: {x}-{less}={}. ", x - taken);
        }
    }
    trace + &format!("so {}", a - b)
}

fn multiply(random: &mut Random, _: Split) -> Puzzle {
    let (a, b) = (10 + random.below(90), 2 + random.below(8));
    let ways = [
        format!("What is {a} * {b}?"),
        format!("Multiply {a} by {b}."),
        format!("How much is {a} times {b}?"),
        format!("{a} * {b} = ?"),
    ];
    let (ones, product) = (a % 10, a * b);
    let (large, small) = ((a - ones) * b, ones * b);
    let trace =
        format!("{}*{b}={large}. {ones}*{b}={small}. {large}+{small}={product}. so {product}", a - ones);
    Puzzle { kind: "puzzles.multiply", question: phrased(random, ways), trace, result: product.to_string() }
}

/// The items with something between them.
fn joined<T: ToString>(items: &[T], between: &str) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(between)
}

fn sort(random: &mut Random, _: Split) -> Puzzle {
    let count = 4 + random.below(4);
    let mut numbers: Vec<usize> = (1..100).collect();
    random.shuffle(&mut numbers);
    numbers.truncate(count);
    let list = joined(&numbers, ", ");
    let ways = [
        format!("Sort these numbers: {list}."),
        format!("Put these numbers in order, smallest first: {list}."),
        format!("Write from small to large: {list}."),
        format!("Sort {list}."),
    ];
    let trace = steps_of_sort(&numbers);
    numbers.sort_unstable();
    Puzzle { kind: "puzzles.sort", question: phrased(random, ways), trace, result: joined(&numbers, ", ") }
}

/// The smallest number and those that are left, a line for each, such as `3<20 8`, `8<20`.
fn steps_of_sort(numbers: &[usize]) -> String {
    let mut left = numbers.to_vec();
    let mut lines = Vec::new();
    while let Some(&smallest) = left.iter().min() {
        left.retain(|&number| number != smallest);
        if !left.is_empty() {
            lines.push(format!("{smallest}<{}", joined(&left, " ")));
        }
    }
    lines.join("\n")
}

fn count(random: &mut Random, split: Split) -> Puzzle {
    if random.chance(0.5) { count_letters(random, split) } else { count_things(random) }
}

/// Letters to count of which there may be none.
const COMMON_LETTERS: [char; 8] = ['a', 'e', 'i', 'o', 'u', 'n', 'r', 's'];

/// `b0 r0 o1 m1. so 1`: each letter with how many there were so far.
fn count_letters(random: &mut Random, split: Split) -> Puzzle {
    let word = names::name(random, split).to_lowercase();
    let letters: Vec<char> = word.chars().collect();
    let letter = if random.chance(0.85) { *random.of(&letters) } else { *random.of(&COMMON_LETTERS) };
    let ways = [
        format!("How often does the letter {letter} occur in \"{word}\"?"),
        format!("How many times is there a letter {letter} in \"{word}\"?"),
        format!("Count the letter {letter} in the word \"{word}\"."),
    ];
    let (steps, result) = counted(&letters, &letter, "");
    let trace = format!("{}. so {result}", steps.join(" "));
    Puzzle { kind: "puzzles.count", question: phrased(random, ways), trace, result: result.to_string() }
}

/// `rope 1, lamp 1, rope 2. so 2`: each thing with how many there were so far.
fn count_things(random: &mut Random) -> Puzzle {
    let things = names::things(random, 3);
    let (one, many) = things[0];
    let items: Vec<&str> = (0..4 + random.below(5)).map(|_| random.of(&things).0).collect();
    let list = items.join(", ");
    let ways = [
        format!("How many {many} are in this list: {list}?"),
        format!("Count the {many}: {list}."),
        format!("How often is there {} {one} among {list}?", names::article(one)),
    ];
    let (steps, result) = counted(&items, &one, " ");
    let trace = format!("{}. so {result}", steps.join(", "));
    Puzzle { kind: "puzzles.count", question: phrased(random, ways), trace, result: result.to_string() }
}

/// Each item with how many of the wanted kind there are up to it, and how many there are of them in all.
fn counted<T: ToString + PartialEq>(items: &[T], wanted: &T, between: &str) -> (Vec<String>, usize) {
    let mut count = 0;
    let steps = items.iter().map(|item| {
        count += usize::from(item == wanted);
        format!("{}{between}{count}", item.to_string())
    });
    (steps.collect(), count)
}

/// What people may be to each other.
const RELATIONS: [&str; 5] = ["friend", "teacher", "neighbor", "cousin", "boss"];

/// How facts are told in one puzzle.
const TELLINGS: [fn(&str, &str, &str) -> String; 2] = [
    |relation, whose, who| format!("{whose}'s {relation} is {who}."),
    |relation, whose, who| format!("The {relation} of {whose} is {who}."),
];

fn chain(random: &mut Random, split: Split) -> Puzzle {
    let (count, hops) = (4 + random.below(4), 2 + random.below(2));
    let people = names::names(random, split, count + 1);
    let (relation, telling) = (*random.of(&RELATIONS), *random.of(&TELLINGS));
    let facts: Vec<String> = people.windows(2).map(|pair| telling(relation, &pair[0], &pair[1])).collect();
    let start = random.below(count - hops + 1);
    let (first, last) = (&people[start], &people[start + hops]);
    let trace = facts[start..start + hops].join(" ");
    let mut told = facts;
    random.shuffle(&mut told);
    let told = told.join(" ");
    let ofs = vec![format!("the {relation} of"); hops].join(" ");
    let possessives = vec![format!("'s {relation}"); hops].concat();
    let ways = [
        format!("{told} Who is {ofs} {first}?"),
        format!("{told} Who is {first}{possessives}?"),
        format!("Who is {ofs} {first}? {told}"),
    ];
    let result = last.clone();
    Puzzle { kind: "puzzles.chain", question: phrased(random, ways), trace, result }
}

fn reverse(random: &mut Random, _: Split) -> Puzzle {
    let count = 4 + random.below(3);
    let mut words: Vec<&str> = names::things(random, count).into_iter().map(|(word, _)| word).collect();
    let list = words.join(", ");
    let ways = [
        format!("Reverse this list: {list}."),
        format!("Write these words in reverse order: {list}."),
        format!("Say this list from last to first: {list}."),
        format!("Put these words back to front: {list}."),
    ];
    let trace = steps_of_reverse(&words);
    words.reverse();
    Puzzle { kind: "puzzles.reverse", question: phrased(random, ways), trace, result: words.join(", ") }
}

/// `1 rope, 2 lamp, 3 bell; 3 bell, 2 lamp, 1 rope`.
fn steps_of_reverse(words: &[&str]) -> String {
    let mut numbered: Vec<String> = words.iter().zip(1..).map(|(word, i)| format!("{i} {word}")).collect();
    let forwards = numbered.join(", ");
    numbered.reverse();
    format!("{forwards}; {}", numbered.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const SPLITS: [Split; 2] = [Split::Train, Split::Test];

    fn question(exercise: &Exercise) -> &str {
        exercise.conversation.messages[0].content.as_deref().unwrap()
    }

    /// The numbers in a text, in order.
    fn numbers(text: &str) -> Vec<usize> {
        text.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    }

    /// Tokens at the worst: each digit, mark and white space that no word follows; three letters of a word.
    fn tokens(text: &str) -> usize {
        let (mut count, mut letters) = (0, 0);
        for (letter, next) in text.chars().zip(text.chars().skip(1).chain(['.'])) {
            letters = if letter.is_alphabetic() { letters + 1 } else { 0 };
            let is_before_word = letter == ' ' && next.is_alphabetic();
            count += usize::from(letters % 3 == 1 || letters == 0 && !is_before_word);
        }
        count
    }

    /// Checks `a+b+c=d` or `a-b-c=d` or `a*b=d`.
    fn is_right(equation: &str) -> bool {
        let (left, right) = equation.split_once('=').unwrap();
        let values = numbers(left);
        let (first, rest) = values.split_first().unwrap();
        let value = if left.contains('*') {
            values.iter().product()
        } else if left.contains('-') {
            first - rest.iter().sum::<usize>()
        } else {
            values.iter().sum::<usize>()
        };
        value == right.parse::<usize>().unwrap()
    }

    #[test]
    fn results_and_every_equation_on_the_way_are_right() {
        let mut random = Random::new(1);
        type Kind = fn(&mut Random, Split) -> Puzzle;
        type Operation = fn(usize, usize) -> usize;
        let kinds: [(Kind, Operation); 3] =
            [(add, |a, b| a + b), (subtract, |a, b| a.abs_diff(b)), (multiply, |a, b| a * b)];
        for (kind, operation) in kinds {
            for _ in 0..2000 {
                let puzzle = kind(&mut random, Split::Train);
                let asked = numbers(&puzzle.question);
                assert_eq!(operation(asked[0], asked[1]).to_string(), puzzle.result, "{}", puzzle.question);
                assert!(puzzle.trace.ends_with(&format!("so {}", puzzle.result)), "{}", puzzle.trace);
                let equations = puzzle.trace.split([' ', ',']).filter(|word| word.contains('='));
                assert!(equations.clone().count() >= 2);
                assert!(equations.map(|word| word.trim_end_matches('.')).all(is_right), "{}", puzzle.trace);
            }
        }
    }

    #[test]
    fn the_written_digits_of_a_sum_are_its_result() {
        let mut random = Random::new(2);
        for _ in 0..2000 {
            let puzzle = add(&mut random, Split::Train);
            let (columns, _) = puzzle.trace.rsplit_once("so ").unwrap();
            let mut digits: Vec<String> = Vec::new();
            for column in columns.split_terminator(". ") {
                let (_, sum) = column.split_once('=').unwrap();
                let written = sum.split_once(", write ").map_or(sum, |(_, written)| &written[..1]);
                digits.insert(0, written.to_owned());
            }
            assert_eq!(digits.concat(), puzzle.result, "{}", puzzle.trace);
        }
    }

    #[test]
    fn steps_read_as_described() {
        assert_eq!(steps_of_sum(47, 28), "ones: 7+8=15, write 5 carry 1. tens: 4+2+1=7. so 75");
        assert_eq!(steps_of_sum(95, 7), "ones: 5+7=12, write 2 carry 1. tens: 9+0+1=10. so 102");
        assert_eq!(
            steps_of_difference(503, 38),
            "ones: 3-8, borrow, 13-8=5. tens: 0-3-1, borrow, 10-3-1=6. hundreds: 5-0-1=4. so 465"
        );
        assert_eq!(steps_of_sort(&[14, 3, 20, 8]), "3<14 20 8\n8<14 20\n14<20");
        assert_eq!(steps_of_reverse(&["rope", "lamp"]), "1 rope, 2 lamp; 2 lamp, 1 rope");
        assert_eq!(counted(&['t', 'a', 'l', 'a'], &'a', "").0.join(" "), "t0 a1 l1 a2");
    }

    #[test]
    fn lists_and_chains_lead_to_their_results() {
        let mut random = Random::new(3);
        for _ in 0..2000 {
            let puzzle = sort(&mut random, Split::Train);
            let picked: Vec<usize> = puzzle.trace.lines().map(|line| numbers(line)[0]).collect();
            let result = numbers(&puzzle.result);
            assert!(result.is_sorted() && result.starts_with(&picked) && result.len() == picked.len() + 1);
            let mut asked = numbers(&puzzle.question);
            asked.sort_unstable();
            assert_eq!(asked, result);

            let puzzle = chain(&mut random, Split::Test);
            assert!(puzzle.trace.ends_with(&format!("is {}.", puzzle.result)), "{}", puzzle.trace);
            assert!(puzzle.trace.split_inclusive('.').all(|fact| puzzle.question.contains(fact.trim())));

            let puzzle = reverse(&mut random, Split::Train);
            let mut words: Vec<&str> = puzzle.result.split(", ").collect();
            words.reverse();
            assert!(puzzle.question.contains(&words.join(", ")), "{}", puzzle.question);
            assert!((4..=6).contains(&words.len()));

            let puzzle = count(&mut random, Split::Train);
            assert!(puzzle.trace.ends_with(&format!("so {}", puzzle.result)), "{}", puzzle.trace);
        }
    }

    #[test]
    fn exercises_are_short_and_their_answers_good_and_all_kinds_occur() {
        let mut random = Random::new(4);
        let mut longest: HashMap<&str, (usize, String)> = HashMap::new();
        for split in SPLITS {
            let mut kinds: HashMap<&str, [usize; 2]> = HashMap::new();
            for _ in 0..3000 {
                let exercise = exercise(&mut random, split);
                kinds.entry(exercise.kind).or_default()[usize::from(exercise.thinks)] += 1;
                assert!(question(&exercise).split_whitespace().count() < 60, "{}", question(&exercise));
                assert_eq!((exercise.grader)(&exercise.answer), 1.0);
                assert_eq!((exercise.grader)(&says(format!(" {}. ", said(&exercise.answer)))), 1.0);
                assert_eq!((exercise.grader)(&says(format!("{}, 1", said(&exercise.answer)))), 0.0);
                assert_eq!(exercise.thinks, exercise.answer.reasoning_content.is_some());
                let trace = exercise.answer.reasoning_content.unwrap_or_default();
                let length = tokens(&trace);
                let entry = longest.entry(exercise.kind).or_default();
                if length > entry.0 {
                    *entry = (length, trace);
                }
            }
            assert!(kinds.len() == 7 && kinds.values().flatten().all(|&count| count > 100), "{kinds:?}");
        }
        assert!(longest.values().all(|(length, _)| *length <= 80), "{longest:#?}");
    }

    #[test]
    fn puzzles_for_learning_and_for_examination_are_apart() {
        let traces = |split| {
            let mut random = Random::new(5);
            let exercises = (0..4000).map(|_| exercise(&mut random, split));
            exercises.filter_map(|e| e.answer.reasoning_content).collect::<HashSet<String>>()
        };
        let (train, test) = (traces(Split::Train), traces(Split::Test));
        assert!(test.len() > 1000 && train.is_disjoint(&test));
    }
}
