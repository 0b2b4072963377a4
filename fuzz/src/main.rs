//! The command: `cargo run -p fuzz -- [TARGET…] [--seconds N] [--iterations N] [--seed N]`, `--list`,
//! `TARGET --input FILE` to see a failure again. Exit status: 0 clean, 1 a target failed, 2 wrong usage.

#![deny(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use fuzz::alloc::Counting;
use fuzz::runner::{self, Budget};
use fuzz::targets::{self, Target};
use fuzz::watch;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Stack of the thread that parses: what a thread of a server gets.
const STACK_BYTES: usize = 2 << 20;

/// Give every parser hostile input
#[derive(Debug, Parser)]
struct Args {
    /// Which targets; all if none is named
    targets: Vec<String>,
    /// Seconds per target
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Mutated inputs per target, instead of a time
    #[arg(long)]
    iterations: Option<u64>,
    /// Which stream of inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds that one input may take, far above what any needs so that a loaded machine is no failure
    #[arg(long, default_value_t = 20)]
    timeout: u64,
    /// Try one file with the one target named
    #[arg(long)]
    input: Option<PathBuf>,
    /// Print the targets
    #[arg(long)]
    list: bool,
    /// Write the seeds of the targets into folders of their names, for another engine
    #[arg(long, value_name = "FOLDER")]
    write_seeds: Option<PathBuf>,
    /// Run the one target named in this process
    #[arg(long, hide = true)]
    worker: bool,
    /// Save each input here before trying it
    #[arg(long, hide = true)]
    trace: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut chosen: Vec<&'static Target> = Vec::new();
    for name in &args.targets {
        match targets::find(name) {
            Some(target) => chosen.push(target),
            None => {
                eprintln!("error: there is no target `{name}`; `cargo run -p fuzz -- --list` prints them");
                return ExitCode::from(2);
            }
        }
    }
    if chosen.is_empty() {
        chosen = targets::TARGETS.iter().collect();
    }
    if args.list {
        chosen.iter().for_each(|t| println!("{:<18} {}", t.name, t.what));
        return ExitCode::SUCCESS;
    }
    if let Some(folder) = &args.write_seeds {
        return write_seeds(&chosen, folder);
    }
    match (chosen.as_slice(), &args.input) {
        ([target], Some(path)) => in_thread(target, args.timeout, move |t| reproduce(t, path)),
        (_, Some(_)) => {
            eprintln!("error: --input needs exactly one target, whose input it is");
            ExitCode::from(2)
        }
        ([target], None) if args.worker => in_thread(target, args.timeout, |t| work(t, &args)),
        _ => supervise(&chosen, &args),
    }
}

/// Runs `f` on a thread with the stack of a server's, under the clock.
fn in_thread(
    target: &'static Target,
    timeout: u64,
    f: impl FnOnce(&'static Target) -> bool + Send,
) -> ExitCode {
    runner::quiet_panics();
    watch::start_clock(Duration::from_secs(timeout));
    let is_clean = thread::scope(|scope| {
        let builder = thread::Builder::new().stack_size(STACK_BYTES);
        let handle = builder.spawn_scoped(scope, || f(target)).expect("a thread can be started");
        handle.join().expect("the runner catches the panics of targets")
    });
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn reproduce(target: &'static Target, path: &Path) -> bool {
    let data = match std::fs::read(path) {
        Ok(data) => data,
        Err(e) => {
            eprintln!("error: {} cannot be read: {e}", path.display());
            return false;
        }
    };
    let outcome = runner::one(target, data);
    if let Some(accepted) = outcome {
        println!("{}: {}", target.name, if accepted { "accepted" } else { "refused" });
    }
    outcome.is_some()
}

fn work(target: &'static Target, args: &Args) -> bool {
    // A given number of inputs runs to its end, so that a traced run comes as far as the one it repeats.
    let time = if args.iterations.is_some() { Duration::MAX } else { Duration::from_secs(args.seconds) };
    let budget = Budget { iterations: args.iterations.unwrap_or(u64::MAX), time };
    match runner::run(target, budget, args.seed, args.trace.as_deref()) {
        Some(s) => {
            let percent = s.accepted * 100 / s.tried.max(1);
            println!("{:<18} {:>9} inputs, {percent:>2} % accepted", target.name, s.tried);
            true
        }
        None => false,
    }
}

/// Runs each target in a process of its own and says how it ended.
fn supervise(chosen: &[&'static Target], args: &Args) -> ExitCode {
    let start = Instant::now();
    let failed: Vec<&str> = chosen.iter().filter(|t| !survives(t, args)).map(|t| t.name).collect();
    if failed.is_empty() {
        println!("{} targets, none failed, {} s", chosen.len(), start.elapsed().as_secs());
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {} of {} targets failed: {}", failed.len(), chosen.len(), failed.join(", "));
    ExitCode::FAILURE
}

fn survives(target: &'static Target, args: &Args) -> bool {
    let status = worker(target, args).status().expect("this program can be started again");
    match status.code() {
        Some(0) => return true,
        Some(1) => return false,
        _ => {}
    }
    // Killed by a signal, as by a stack overflow: the inputs are the same each time, so the run is repeated
    // with each input saved first, and the last one saved is the one.
    let trace = watch::folder().join(format!("{}-trace.bin", target.name));
    std::fs::create_dir_all(watch::folder()).expect("the build folder can be written");
    let mut again = worker(target, args);
    again.arg("--trace").arg(&trace);
    if args.iterations.is_none() {
        again.args(["--iterations", &u64::MAX.to_string()]); // Saving takes time, so no clock may end it.
    }
    let _ = again.status().expect("this program can be started again");
    let data = std::fs::read(&trace).unwrap_or_default();
    watch::report(target.name, &data, &format!("the process ended with {status}"));
    false
}

fn worker(target: &Target, args: &Args) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
    command.args([target.name, "--worker"]);
    for (flag, value) in [("--seed", args.seed), ("--seconds", args.seconds), ("--timeout", args.timeout)] {
        command.args([flag, &value.to_string()]);
    }
    if let Some(iterations) = args.iterations {
        command.args(["--iterations", &iterations.to_string()]);
    }
    command
}

fn write_seeds(chosen: &[&'static Target], folder: &Path) -> ExitCode {
    for target in chosen {
        let folder = folder.join(target.name);
        for (i, seed) in (target.seeds)().iter().chain(&runner::regressions(target)).enumerate() {
            let written = std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::write(folder.join(format!("seed-{i}.bin")), seed));
            if let Err(e) = written {
                eprintln!("error: {} cannot be written: {e}", folder.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
