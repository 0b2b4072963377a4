//! The fuzzer itself: every kind of failure is caught, saved and reproducible; every target's seeds are
//! accepted and what once failed doesn't fail again.

use std::path::Path;
use std::process::{Command, Output};

use fuzz::runner;
use fuzz::targets::TARGETS;

fn fuzz(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fuzz"));
    // The reports name the input relative to the repository's root.
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.args(args).output().expect("the fuzzer starts")
}

/// The failure is reported with its reason, and the printed command shows it again.
fn check(target: &str, reason: &str) {
    let output = fuzz(&[target, "--iterations", "2000", "--timeout", "1"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(reason) && stderr.contains(&format!("1 of 1 targets failed: {target}")),
        "{stderr}"
    );
    let line = stderr.lines().find_map(|l| l.trim().strip_prefix("to reproduce: cargo run -p fuzz -- "));
    let mut args: Vec<&str> = line.expect("a command").split(' ').collect();
    args.extend(["--timeout", "1"]);
    assert!(!fuzz(&args).status.success(), "{args:?} fails again");
    std::fs::remove_file(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(args[2]))
        .expect("the input was saved");
}

#[test]
fn a_panic_is_caught() {
    check("selftest-panic", "the words of the panic");
}

#[test]
fn a_huge_allocation_is_caught() {
    check("selftest-memory", "it asked for 1099511627776 bytes");
}

#[test]
fn a_stack_overflow_is_caught() {
    check("selftest-stack", "the process ended with signal");
}

#[test]
fn endless_work_is_caught() {
    check("selftest-time", "it took longer than 1s");
}

#[test]
fn wrong_usage_is_status_two() {
    for args in [&["no-such-target"][..], &["--input", "x"], &["--wrong"]] {
        assert_eq!(fuzz(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn seeds_are_accepted_and_regressions_survived() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has seeds", target.name);
        for (i, seed) in seeds.into_iter().enumerate() {
            assert_eq!(runner::one(target, seed), Some(true), "{} accepts its seed {i}", target.name);
        }
        for (i, input) in runner::regressions(target).into_iter().enumerate() {
            assert!(runner::one(target, input).is_some(), "{} survives regression {i}", target.name);
        }
    }
}
