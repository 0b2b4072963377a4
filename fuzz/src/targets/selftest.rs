//! Targets that fail on purpose, so that a test can see the fuzzer catch every kind of failure. They are found
//! by name only.

use std::hint::black_box;
use std::thread;

use super::Target;

/// One target for each way to fail. They do so on inputs that hold the word `hit`.
pub static TARGETS: &[Target] = &[
    failing("selftest-panic", panics),
    failing("selftest-memory", allocates),
    failing("selftest-stack", recurses),
    failing("selftest-time", hangs),
];

const fn failing(name: &'static str, run: fn(&[u8]) -> bool) -> Target {
    Target { name, what: "a failure on purpose", run, seeds: || vec![vec![b'.'; 10]], dictionary: &["hit"] }
}

fn is_hit(data: &[u8]) -> bool {
    data.windows(3).any(|w| w == b"hit")
}

fn panics(data: &[u8]) -> bool {
    assert!(!is_hit(data), "the words of the panic");
    true
}

fn allocates(data: &[u8]) -> bool {
    if is_hit(data) {
        black_box(Vec::<u8>::with_capacity(1 << 40));
    }
    true
}

fn recurses(data: &[u8]) -> bool {
    fn descend(n: u64) -> u64 {
        let here = black_box([n; 64]);
        if n == 0 { 0 } else { descend(n - 1) + here[63] }
    }
    !is_hit(data) || black_box(descend(u64::MAX)) > 0
}

fn hangs(data: &[u8]) -> bool {
    while is_hit(data) {
        thread::yield_now();
    }
    true
}
