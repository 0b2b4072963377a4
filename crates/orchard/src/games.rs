//! Small games of text whose best moves are known exactly.
//!
//! What is seen of a game says all that is needed for the next move, so who plays need not remember anything.

use std::collections::VecDeque;

use tangelo_core::random::Random;

use crate::names::split_of;
use crate::{Exercise, Split, Subject, asked, said, says};

/// How many illegal moves lose a game.
const PATIENCE: usize = 3;

/// How many ways there are to say the rules of a game.
const PHRASINGS: usize = 3;

/// What a move leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// The game goes on.
    Goes,
    /// The game is won.
    Won,
    /// The game is lost.
    Lost,
    /// The move is not one of the game, and nothing changed.
    Illegal,
}

/// A game of one of [`Game::KINDS`].
///
/// In `walk` a flag on a grid must be reached, in `guess` a number be guessed, in `nim` the last stone be taken
/// before an opponent takes it who plays at random, and in `door` a key be taken to the door that it opens.
#[derive(Debug, Clone)]
pub struct Game {
    board: Board,
    phrasing: usize,
    turns_left: usize,
    illegal_moves: usize,
    result: Option<Move>,
    opponent: Random,
}

impl Game {
    /// The names of the games.
    pub const KINDS: [&str; 4] = ["walk", "guess", "nim", "door"];

    /// A new game of a random kind.
    ///
    /// Games for learning and for examination begin differently, except nim, which has too few beginnings.
    pub fn new(random: &mut Random, split: Split) -> Game {
        let draw = random.of(&BOARDS).1;
        Game::with(draw, random, split)
    }

    /// A new game of this kind, if there is such a kind.
    pub fn of_kind(kind: &str, random: &mut Random, split: Split) -> Option<Game> {
        let (_, draw) = BOARDS.iter().find(|(name, _)| *name == kind)?;
        Some(Game::with(*draw, random, split))
    }

    fn with(draw: Draw, random: &mut Random, split: Split) -> Game {
        let board = loop {
            let board = draw(random);
            if board.is_for(split) {
                break board;
            }
        };
        let turns_left = board.rules().turns();
        let (phrasing, opponent) = (random.below(PHRASINGS), Random::new(random.bits()));
        Game { board, phrasing, turns_left, illegal_moves: 0, result: None, opponent }
    }

    /// The name of the game.
    pub fn kind(&self) -> &'static str {
        match self.board {
            Board::Walk(_) => "walk",
            Board::Guess(_) => "guess",
            Board::Nim(_) => "nim",
            Board::Door(_) => "door",
        }
    }

    /// The rules and the state of the game, which is all that is needed for the next move.
    pub fn observation(&self) -> String {
        let rules = self.board.rules();
        format!("{} {}", rules.phrasings()[self.phrasing], rules.state())
    }

    /// All moves of the game that can be made now; none when it is over.
    pub fn legal_moves(&self) -> Vec<String> {
        if self.result.is_some() { Vec::new() } else { self.board.rules().legal_moves() }
    }

    /// Moves than which none is better now; none when the game is over. There may be others as good
    /// ([`Game::is_best`]).
    pub fn best_moves(&self) -> Vec<String> {
        if self.result.is_some() { Vec::new() } else { self.board.rules().best_moves() }
    }

    /// Whether a move is as good as any can be now.
    pub fn is_best(&self, word: &str) -> bool {
        self.result.is_none() && self.board.rules().is_best(word)
    }

    /// Makes a move, and the opponent's if there is one. The third illegal move loses, and so does the last turn
    /// if it does not win.
    pub fn play(&mut self, text: &str) -> Move {
        if let Some(result) = self.result {
            return result;
        }
        let word = plain(text);
        let outcome = if !self.legal_moves().contains(&word) {
            self.illegal_moves += 1;
            if self.illegal_moves < PATIENCE { Move::Illegal } else { Move::Lost }
        } else {
            self.turns_left = self.turns_left.saturating_sub(1);
            match self.board.rules_mut().play(&word, &mut self.opponent) {
                Move::Goes if self.turns_left == 0 => Move::Lost,
                outcome => outcome,
            }
        };
        if matches!(outcome, Move::Won | Move::Lost) {
            self.result = Some(outcome);
        }
        outcome
    }

    /// Makes so many moves, about half of them good ones, as long as the game lasts.
    fn advance(&mut self, random: &mut Random, moves: usize) {
        for _ in 0..moves {
            let choice = if random.chance(0.5) { self.best_moves() } else { self.legal_moves() };
            if choice.is_empty() {
                return;
            }
            let word: &String = random.of(&choice);
            self.play(word);
        }
    }
}

/// The word of a move, without what surrounds it.
fn plain(text: &str) -> String {
    let text = text.trim();
    text.strip_suffix('.').unwrap_or(text).trim_end().to_lowercase()
}

/// What one game is like. Moves that are played are legal ones.
trait Rules {
    /// Ways to say the rules, with the words for moves.
    fn phrasings(&self) -> [&'static str; PHRASINGS];
    /// The state in words.
    fn state(&self) -> String;
    /// How many moves may be made from here on.
    fn turns(&self) -> usize;
    fn legal_moves(&self) -> Vec<String>;
    fn best_moves(&self) -> Vec<String>;
    fn is_best(&self, word: &str) -> bool {
        self.best_moves().iter().any(|best| best == word)
    }
    fn play(&mut self, word: &str, opponent: &mut Random) -> Move;
}

#[derive(Debug, Clone)]
enum Board {
    Walk(Walk),
    Guess(Guess),
    Nim(Nim),
    Door(Door),
}

type Draw = fn(&mut Random) -> Board;

const BOARDS: [(&str, Draw); 4] = [
    ("walk", |random| Board::Walk(Walk::new(random))),
    ("guess", |random| Board::Guess(Guess::new(random))),
    ("nim", |random| Board::Nim(Nim::new(random))),
    ("door", |random| Board::Door(Door::new(random))),
];

impl Board {
    fn rules(&self) -> &dyn Rules {
        match self {
            Board::Walk(walk) => walk,
            Board::Guess(guess) => guess,
            Board::Nim(nim) => nim,
            Board::Door(door) => door,
        }
    }

    fn rules_mut(&mut self) -> &mut dyn Rules {
        match self {
            Board::Walk(walk) => walk,
            Board::Guess(guess) => guess,
            Board::Nim(nim) => nim,
            Board::Door(door) => door,
        }
    }

    /// Whether its state is one of this split. Nim has so few states that both have all of them.
    fn is_for(&self, split: Split) -> bool {
        matches!(self, Board::Nim(_)) || split_of(&self.rules().state()) == split
    }
}

/// A row and a column.
type Place = (usize, usize);

/// The ways to go and what they add to the row and the column.
const WAYS: [(&str, isize, isize); 4] = [("north", -1, 0), ("south", 1, 0), ("east", 0, 1), ("west", 0, -1)];

/// A grid with a flag to reach.
#[derive(Debug, Clone)]
struct Walk {
    size: usize,
    you: Place,
    flag: Place,
    walls: Vec<Place>,
}

impl Walk {
    fn new(random: &mut Random) -> Walk {
        loop {
            let size = 4 + random.below(2);
            let mut places: Vec<Place> = (0..size * size).map(|i| (i / size, i % size)).collect();
            random.shuffle(&mut places);
            let walls = if random.chance(0.5) { 0 } else { 1 + random.below(2) };
            let walls = places[2..2 + walls].to_vec();
            let walk = Walk { size, you: places[0], flag: places[1], walls };
            if walk.distance(walk.you).is_some() {
                return walk;
            }
        }
    }

    /// Where a way leads, unless it leads off the grid or into a wall.
    fn step(&self, from: Place, (_, rows, columns): (&str, isize, isize)) -> Option<Place> {
        let place = (from.0.checked_add_signed(rows)?, from.1.checked_add_signed(columns)?);
        let is_free = place.0 < self.size && place.1 < self.size && !self.walls.contains(&place);
        is_free.then_some(place)
    }

    /// How many moves it takes from a place to the flag, if it can be reached.
    fn distance(&self, from: Place) -> Option<usize> {
        let mut seen = vec![from];
        let mut ahead = VecDeque::from([(from, 0)]);
        while let Some((place, moves)) = ahead.pop_front() {
            if place == self.flag {
                return Some(moves);
            }
            for next in WAYS.iter().filter_map(|&way| self.step(place, way)) {
                if !seen.contains(&next) {
                    seen.push(next);
                    ahead.push_back((next, moves + 1));
                }
            }
        }
        None
    }
}

fn in_words((row, column): Place) -> String {
    format!("row {row}, column {column}")
}

impl Rules for Walk {
    fn phrasings(&self) -> [&'static str; PHRASINGS] {
        [
            "Reach the flag: north lowers the row, south raises it, east raises the column, west lowers it.",
            "Move to the flag with north (row -1), south (row +1), east (column +1) or west (column -1).",
            "Say north, south, east or west to get to the flag. Row 0 is in the north, column 0 in the west.",
        ]
    }

    fn state(&self) -> String {
        let walls: Vec<String> = self.walls.iter().map(|&wall| in_words(wall)).collect();
        let walls = if walls.is_empty() { "none".to_owned() } else { walls.join("; ") };
        let (you, flag) = (in_words(self.you), in_words(self.flag));
        let last = self.size - 1;
        format!("Rows and columns are 0 to {last}. Walls: {walls}. The flag is at {flag}. You are at {you}.")
    }

    fn turns(&self) -> usize {
        2 * self.distance(self.you).unwrap_or_default()
    }

    fn legal_moves(&self) -> Vec<String> {
        let open = WAYS.iter().filter(|&&way| self.step(self.you, way).is_some());
        open.map(|way| way.0.to_owned()).collect()
    }

    fn best_moves(&self) -> Vec<String> {
        let after = |&way: &(&str, isize, isize)| Some(self.distance(self.step(self.you, way)?)? + 1);
        let distance = self.distance(self.you);
        WAYS.iter().filter(|way| after(way) == distance).map(|way| way.0.to_owned()).collect()
    }

    fn play(&mut self, word: &str, _: &mut Random) -> Move {
        let way = WAYS.iter().find(|way| way.0 == word);
        self.you = way.and_then(|&way| self.step(self.you, way)).unwrap_or(self.you);
        if self.you == self.flag { Move::Won } else { Move::Goes }
    }
}

/// A number to guess, and what is known of it.
#[derive(Debug, Clone)]
struct Guess {
    low: usize,
    high: usize,
    number: usize,
}

impl Guess {
    const HIGHEST: usize = 20;

    /// With fewer numbers five guesses are enough for anybody.
    const FEWEST: usize = 12;

    fn new(random: &mut Random) -> Guess {
        let count = Guess::FEWEST + random.below(Guess::HIGHEST - Guess::FEWEST + 1);
        let low = 1 + random.below(Guess::HIGHEST - count + 1);
        Guess { low, high: low + count - 1, number: low + random.below(count) }
    }
}

impl Rules for Guess {
    fn phrasings(&self) -> [&'static str; PHRASINGS] {
        [
            "Guess the number in 5 guesses. Answer with a number only.",
            "I think of a number; say which. I tell you if it is higher or lower.",
            "Find the secret number with few guesses. Say one number.",
        ]
    }

    fn state(&self) -> String {
        format!("It is at least {} and at most {}.", self.low, self.high)
    }

    fn turns(&self) -> usize {
        5
    }

    fn legal_moves(&self) -> Vec<String> {
        (self.low..=self.high).map(|number| number.to_string()).collect()
    }

    /// The middle of what is left, or the two middles.
    fn best_moves(&self) -> Vec<String> {
        let sum = self.low + self.high;
        (sum / 2..=sum.div_ceil(2)).map(|number| number.to_string()).collect()
    }

    /// Whether no other guess leaves fewer guesses to be made, over all numbers that it may be.
    fn is_best(&self, word: &str) -> bool {
        let Some(guess) = word.parse().ok().filter(|guess| (self.low..=self.high).contains(guess)) else {
            return false;
        };
        let cost = |guess: usize| guesses(guess - self.low) + guesses(self.high - guess);
        (self.low..=self.high).all(|other| cost(guess) <= cost(other))
    }

    fn play(&mut self, word: &str, _: &mut Random) -> Move {
        let guess: usize = word.parse().unwrap_or_default();
        if guess == self.number {
            return Move::Won;
        }
        if guess < self.number {
            self.low = self.low.max(guess + 1);
        } else {
            self.high = self.high.min(guess - 1);
        }
        Move::Goes
    }
}

/// Guesses that so many numbers take in all, each guessed once: the depths of a balanced tree.
fn guesses(numbers: usize) -> usize {
    (1..=numbers).map(|number| number.ilog2() as usize + 1).sum()
}

/// Stones, of which the last wins.
#[derive(Debug, Clone)]
struct Nim {
    stones: usize,
}

impl Nim {
    /// The most that may be taken at once.
    const MOST: usize = 3;

    fn new(random: &mut Random) -> Nim {
        Nim { stones: 5 + random.below(11) }
    }

    fn most(&self) -> usize {
        self.stones.min(Nim::MOST)
    }
}

impl Rules for Nim {
    fn phrasings(&self) -> [&'static str; PHRASINGS] {
        [
            "We take turns to take 1, 2 or 3 stones; who takes the last one wins. Say how many you take.",
            "Take 1, 2 or 3 stones. Then I take some, and so on. The last stone wins. Say a number.",
            "Nim: answer 1, 2 or 3 to take that many stones. Whoever takes the last stone wins.",
        ]
    }

    fn state(&self) -> String {
        match self.stones {
            1 => "There is 1 stone left.".to_owned(),
            stones => format!("There are {stones} stones left."),
        }
    }

    fn turns(&self) -> usize {
        self.stones
    }

    fn legal_moves(&self) -> Vec<String> {
        (1..=self.most()).map(|stones| stones.to_string()).collect()
    }

    /// What leaves a multiple of four, or any number where nothing does.
    fn best_moves(&self) -> Vec<String> {
        match self.stones % (Nim::MOST + 1) {
            0 => self.legal_moves(),
            more => vec![more.to_string()],
        }
    }

    fn play(&mut self, word: &str, opponent: &mut Random) -> Move {
        self.stones = self.stones.saturating_sub(word.parse().unwrap_or_default());
        if self.stones == 0 {
            return Move::Won;
        }
        self.stones -= 1 + opponent.below(self.most());
        if self.stones == 0 { Move::Lost } else { Move::Goes }
    }
}

/// A row of rooms with a key and a door. Nobody says where the key was once it is taken.
#[derive(Debug, Clone)]
struct Door {
    rooms: usize,
    room: usize,
    key: Option<usize>,
    door: usize,
}

impl Door {
    fn new(random: &mut Random) -> Door {
        let rooms = 3 + random.below(4);
        let key = 1 + random.below(rooms);
        let door = 1 + (key + random.below(rooms - 1)) % rooms;
        Door { rooms, room: 1 + random.below(rooms), key: Some(key), door }
    }

    /// The room to go to next, and what to do in it.
    fn aim(&self) -> (usize, &'static str) {
        self.key.map_or((self.door, "open"), |key| (key, "take"))
    }
}

impl Rules for Door {
    fn phrasings(&self) -> [&'static str; PHRASINGS] {
        [
            "Take the key, then open the door. Say left, right, take or open.",
            "Answer left, right, take or open: get the key, then open the door with it.",
            "You need the key to open the door. Moves: left, right, take, open.",
        ]
    }

    fn state(&self) -> String {
        let key = self.key.map_or("You have the key".to_owned(), |key| format!("The key is in room {key}"));
        let Door { rooms, room, door, .. } = self;
        format!(
            "Rooms 1 to {rooms}, from left to right. The door is in room {door}. {key}. You are in room {room}."
        )
    }

    fn turns(&self) -> usize {
        let to_door = |from: usize| from.abs_diff(self.door) + 1;
        2 * self.key.map_or(to_door(self.room), |key| self.room.abs_diff(key) + 1 + to_door(key))
    }

    fn legal_moves(&self) -> Vec<String> {
        let (place, act) = self.aim();
        let moves = [("left", self.room > 1), ("right", self.room < self.rooms), (act, self.room == place)];
        moves.iter().filter(|(_, is_legal)| *is_legal).map(|(word, _)| (*word).to_owned()).collect()
    }

    fn best_moves(&self) -> Vec<String> {
        let (place, act) = self.aim();
        let word = match place.cmp(&self.room) {
            std::cmp::Ordering::Less => "left",
            std::cmp::Ordering::Equal => act,
            std::cmp::Ordering::Greater => "right",
        };
        vec![word.to_owned()]
    }

    fn play(&mut self, word: &str, _: &mut Random) -> Move {
        match word {
            "left" => self.room -= 1,
            "right" => self.room += 1,
            "take" => self.key = None,
            _ => return Move::Won,
        }
        Move::Goes
    }
}

/// The next move of a game that has been played for a while.
pub fn exercise(random: &mut Random, split: Split) -> Exercise {
    let draw = random.of(&BOARDS).1;
    let game = loop {
        let mut game = Game::with(draw, random, split);
        let moves = random.below(4);
        game.advance(random, moves);
        if game.result.is_none() && game.board.is_for(split) {
            break game;
        }
    };
    let kind = match game.board {
        Board::Walk(_) => "games.walk",
        Board::Guess(_) => "games.guess",
        Board::Nim(_) => "games.nim",
        Board::Door(_) => "games.door",
    };
    let (best, legal) = (game.best_moves(), game.legal_moves());
    let (right, fair): (Vec<String>, Vec<String>) = legal.into_iter().partition(|word| game.is_best(word));
    Exercise {
        subject: Subject::Games,
        kind,
        conversation: asked(None, game.observation()),
        thinks: false,
        answer: says(best.first().cloned().unwrap_or_default()),
        grader: Box::new(move |answer| {
            let word = plain(said(answer));
            if right.contains(&word) {
                1.0
            } else if fair.contains(&word) {
                0.2
            } else {
                0.0
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPLITS: [Split; 2] = [Split::Train, Split::Test];

    fn game(kind: &str, random: &mut Random, split: Split) -> Game {
        Game::of_kind(kind, random, split).unwrap()
    }

    /// Plays to the end and checks on the way what holds for every state.
    fn result(game: &mut Game, mut choose: impl FnMut(&Game) -> String) -> Move {
        for _ in 0..100 {
            let (legal, best) = (game.legal_moves(), game.best_moves());
            assert!(!best.is_empty() && best.iter().all(|word| legal.contains(word)), "{game:?}");
            assert!(best.iter().all(|word| game.is_best(word)), "{game:?}");
            let (before, word) = (game.observation(), choose(game));
            let outcome = game.play(&word);
            assert!(outcome != Move::Goes || game.observation() != before, "{game:?} {word}");
            assert_eq!(outcome == Move::Illegal, game.result.is_none() && !legal.contains(&word));
            if matches!(outcome, Move::Won | Move::Lost) {
                assert!(game.legal_moves().is_empty() && game.best_moves().is_empty());
                assert_eq!(game.play("north"), outcome);
                return outcome;
            }
        }
        panic!("does not end: {game:?}");
    }

    fn wins(kind: &str, games: usize, mut choose: impl FnMut(&Game) -> String) -> f64 {
        let mut random = Random::new(5).named(kind);
        let mut won = 0;
        for i in 0..games {
            let mut game = game(kind, &mut random, SPLITS[i % 2]);
            won += usize::from(result(&mut game, &mut choose) == Move::Won);
        }
        won as f64 / games as f64
    }

    #[test]
    fn every_guess_that_is_as_good_as_the_middle_counts() {
        let is_best = |count: usize, guess: usize| {
            Guess { low: 11, high: 10 + count, number: 11 }.is_best(&(10 + guess).to_string())
        };
        let best = |count: usize| (1..=count).filter(|guess| is_best(count, *guess)).collect::<Vec<usize>>();
        assert_eq!([best(3), best(4), best(5)], [vec![2], vec![2, 3], vec![2, 3, 4]]);
        assert_eq!(best(7), [4]);
    }

    #[test]
    fn best_moves_win_and_random_ones_win_clearly_less() {
        let mut random = Random::new(8);
        for kind in Game::KINDS {
            let best = wins(kind, 2000, |game| random.of(&game.best_moves()).clone());
            let by_chance = wins(kind, 2000, |game| random.of(&game.legal_moves()).clone());
            assert!(if kind == "nim" { best > 0.8 } else { best == 1.0 }, "{kind} {best}");
            assert!(by_chance < best - 0.1, "{kind} {by_chance}");
        }
    }

    #[test]
    fn nim_is_won_whenever_it_can_be() {
        let mut random = Random::new(2);
        for _ in 0..2000 {
            let mut game = game("nim", &mut random, Split::Train);
            let can_be_won = game.best_moves().len() == 1;
            let outcome = result(&mut game, |game| game.best_moves()[0].clone());
            assert!(!can_be_won || outcome == Move::Won);
        }
    }

    #[test]
    fn a_middle_guess_is_enough_for_every_number() {
        for number in 1..=Guess::HIGHEST {
            let mut board = Guess { low: 1, high: Guess::HIGHEST, number };
            let mut play = |_| board.play(&board.best_moves()[0], &mut Random::new(0));
            assert!((0..5).map(&mut play).any(|outcome| outcome == Move::Won));
        }
    }

    #[test]
    fn the_shortest_way_leads_around_a_wall() {
        let walk = Walk { size: 4, you: (0, 1), flag: (2, 1), walls: vec![(1, 1)] };
        assert_eq!((walk.distance(walk.you), walk.turns()), (Some(4), 8));
        assert_eq!(walk.best_moves(), ["east", "west"]);
        assert_eq!(walk.legal_moves(), ["east", "west"]);
    }

    #[test]
    fn nonsense_loses_at_the_third_time_and_words_may_be_dressed() {
        let mut random = Random::new(4);
        for kind in Game::KINDS {
            let mut game = game(kind, &mut random, Split::Train);
            let before = game.observation();
            assert_eq!(
                ["", "99", "jump"].map(|word| game.play(word)),
                [Move::Illegal, Move::Illegal, Move::Lost]
            );
            assert_eq!(game.observation(), before);
        }
        let mut game = game("door", &mut random, Split::Test);
        let word = format!(" {}.\n", game.best_moves()[0].to_uppercase());
        assert_eq!(game.play(&word), Move::Goes);
        assert!(Game::of_kind("chess", &mut random, Split::Train).is_none());
    }

    #[test]
    fn games_are_the_same_from_the_same_seed() {
        let play = |seed| {
            let mut game = Game::new(&mut Random::new(seed), Split::Test);
            let outcome = result(&mut game, |game| game.legal_moves()[0].clone());
            (game.kind(), game.observation(), outcome)
        };
        assert!((0..50).all(|seed| play(seed) == play(seed)));
    }

    #[test]
    fn exercises_have_good_answers_and_all_kinds_occur() {
        let mut random = Random::new(6);
        for split in SPLITS {
            let mut kinds = [0; 4];
            for _ in 0..3000 {
                let exercise = exercise(&mut random, split);
                let kind = Game::KINDS.iter().position(|kind| exercise.kind == format!("games.{kind}"));
                kinds[kind.unwrap()] += 1;
                let text = exercise.conversation.messages[0].content.as_deref().unwrap();
                assert!(text.split_whitespace().count() < 60, "{text}");
                assert_eq!((exercise.grader)(&exercise.answer), 1.0, "{text}");
                assert_eq!((exercise.grader)(&says(format!(" {}. ", said(&exercise.answer)))), 1.0);
                assert_eq!((exercise.grader)(&says("jump")), 0.0);
            }
            assert!(kinds.iter().all(|&count| count > 600), "{kinds:?}");
        }
    }

    #[test]
    fn states_for_learning_and_for_examination_are_apart() {
        let states = |split| {
            let mut random = Random::new(7);
            let exercises = (0..2000).map(|_| exercise(&mut random, split)).filter(|e| e.kind != "games.nim");
            let ends = exercises.map(|exercise| {
                let text = exercise.conversation.messages[0].content.clone().unwrap();
                let state = ["Rows", "It is at", "Rooms"].iter().find_map(|start| text.rfind(start)).unwrap();
                text[state..].to_owned()
            });
            ends.collect::<std::collections::HashSet<String>>()
        };
        let (train, test) = (states(Split::Train), states(Split::Test));
        assert!(test.len() > 100 && train.is_disjoint(&test));
    }

    #[test]
    fn a_legal_move_that_is_not_best_is_worth_a_little() {
        let mut random = Random::new(9);
        let grades = (0..200).map(|_| (exercise(&mut random, Split::Train).grader)(&says("left")));
        let grades: Vec<f64> = grades.collect();
        assert!([0.0, 0.2, 1.0].iter().all(|grade| grades.contains(grade)));
    }
}
