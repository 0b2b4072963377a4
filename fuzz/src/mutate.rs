//! Inputs from seeds: a deterministic stream of small damages of the kinds that parsers get wrong.

/// SplitMix64 (Steele, Lea and Flood 2014): every seed gives a good stream.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// Numbers at the edges of the widths that files use.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    1 << 20,
    1 << 24,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    1 << 40,
    u64::MAX >> 1,
    u64::MAX - 7,
    u64::MAX,
];

/// Numbers at the edges of what text formats write.
const EDGE_TEXTS: [&str; 12] = [
    "0",
    "-1",
    "1e999",
    "-0.0",
    "0.5",
    "NaN",
    "-Infinity",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "null",
];

/// What opens a level of nesting in the formats at hand.
const OPENERS: [&str; 5] = ["[", "{\"a\":", "{% if x %}", "(", "{{ ["];
/// Deepest nesting written; a parser that recurses without a bound overflows the stack of a thread here.
const DEPTH_MAX: usize = 100_000;
/// Most damages of one input.
const DAMAGES_MAX: usize = 6;
/// Headers are where lengths and counts are, so half of all places are chosen in the first bytes.
const HEAD_BYTES: usize = 4096;
/// Longest input; seeds are shorter, only duplication could pass it.
const INPUT_BYTES_MAX: usize = 4 << 20;

/// Makes one input from `seeds` (not empty) with words of `dictionary`.
pub fn input(rng: &mut Rng, seeds: &[Vec<u8>], dictionary: &[&str]) -> Vec<u8> {
    let mut data = rng.pick(seeds).cloned().unwrap_or_default();
    for _ in 0..=rng.below(DAMAGES_MAX) {
        damage(rng, &mut data, seeds, dictionary);
        data.truncate(INPUT_BYTES_MAX);
    }
    data
}

fn damage(rng: &mut Rng, data: &mut Vec<u8>, seeds: &[Vec<u8>], dictionary: &[&str]) {
    let at = place(rng, data.len());
    match rng.below(12) {
        0 => flip_bit(rng, data, at),
        1 => overwrite(data, at, &[rng.next() as u8]),
        2 => data.truncate(at),
        3 => {
            let width = *rng.pick(&[1, 2, 4, 8]).unwrap_or(&8);
            let edge = rng.pick(&EDGES).copied().unwrap_or_default().to_le_bytes();
            overwrite(data, at, &edge[..width]);
        }
        4 => {
            let end = stretch(rng, data.len(), at);
            data.drain(at..end);
        }
        5 => {
            let copy = data[at..stretch(rng, data.len(), at)].to_vec();
            insert(data, at, &copy);
        }
        6 => {
            let word = rng.pick(dictionary).copied().unwrap_or_default();
            insert(data, at, word.as_bytes());
        }
        7 => {
            let word = rng.pick(dictionary).copied().unwrap_or_default();
            overwrite(data, at, word.as_bytes());
        }
        8 => {
            let other = rng.pick(seeds).cloned().unwrap_or_default();
            let from = place(rng, other.len());
            data.truncate(at);
            data.extend_from_slice(&other[from..]);
        }
        9 => replace_number(rng, data, at),
        10 => swap(rng, data, at),
        // Deep nesting is one input in hundreds: it is expensive, and one kind of mistake.
        _ if rng.below(16) == 0 => nest(rng, data, at),
        _ => insert(data, at, &[rng.next() as u8]),
    }
}

/// A place in `0..=len`, half of the time near the start.
fn place(rng: &mut Rng, len: usize) -> usize {
    let within = if rng.below(2) == 0 { len.min(HEAD_BYTES) } else { len };
    rng.below(within + 1)
}

/// The end of a stretch from `at`, mostly short.
fn stretch(rng: &mut Rng, len: usize, at: usize) -> usize {
    let most = if rng.below(4) == 0 { len - at } else { (len - at).min(32) };
    at + rng.below(most + 1)
}

fn flip_bit(rng: &mut Rng, data: &mut [u8], at: usize) {
    if let Some(byte) = data.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
}

fn overwrite(data: &mut [u8], at: usize, with: &[u8]) {
    for (byte, new) in data[at..].iter_mut().zip(with) {
        *byte = *new;
    }
}

fn insert(data: &mut Vec<u8>, at: usize, new: &[u8]) {
    data.splice(at..at, new.iter().copied());
}

/// Replaces the first decimal number after `at`.
fn replace_number(rng: &mut Rng, data: &mut Vec<u8>, at: usize) {
    let Some(start) = data[at..].iter().position(u8::is_ascii_digit).map(|p| at + p) else { return };
    let len = data[start..].iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
    let text = rng.pick(&EDGE_TEXTS).copied().unwrap_or_default();
    data.splice(start..start + len, text.bytes());
}

/// Exchanges two stretches of eight bytes.
fn swap(rng: &mut Rng, data: &mut [u8], at: usize) {
    let other = place(rng, data.len());
    for i in 0..8 {
        if at + i < data.len() && other + i < data.len() {
            data.swap(at + i, other + i);
        }
    }
}

fn nest(rng: &mut Rng, data: &mut Vec<u8>, at: usize) {
    let opener = rng.pick(&OPENERS).copied().unwrap_or_default();
    insert(data, at, opener.repeat(rng.below(DEPTH_MAX)).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let seeds = vec![b"{\"a\": 12}".to_vec(), vec![], vec![0; 300]];
        let stream = |seed| {
            let mut rng = Rng::new(seed);
            (0..500).map(|_| input(&mut rng, &seeds, &["token", "<x>"])).collect::<Vec<_>>()
        };
        assert_eq!(stream(1), stream(1));
        assert_ne!(stream(1), stream(2));
        assert!(stream(1).iter().any(|i| i.windows(5).any(|w| w == b"token")));
    }

    #[test]
    fn numbers_in_text_reach_the_edges() {
        let mut rng = Rng::new(3);
        let seen = (0..100).any(|_| {
            let mut data = b"\"layers\": 52,".to_vec();
            replace_number(&mut rng, &mut data, 0);
            data == b"\"layers\": 18446744073709551616,"
        });
        assert!(seen);
    }
}
