//! The repository's own tests, on the card: all of ops, model and engine, then those of ops under compute-sanitizer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::Check;
use super::record::Record;
use super::run::{Fault, run};

/// A build of everything from nothing; not part of the ten minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);
const TEST_LIMIT: Duration = Duration::from_secs(90);
const SANITIZER_LIMIT: Duration = Duration::from_secs(120);
/// What the names of tests that use a device have in common.
const DEVICE_TESTS: &str = "device";
/// Status with which compute-sanitizer ends if it found something.
const SANITIZER_STATUS: &str = "99";
const SANITIZERS: [&str; 2] = ["compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer"];

/// A program that was built and the folder of its package, where its tests run.
struct Program {
    path: PathBuf,
    folder: PathBuf,
    /// Folder and target, such as `ops/tangelo_ops`.
    name: String,
    /// Whether it is the tests of a library, or a program of integration tests.
    is_test: bool,
}

/// Builds the program; its path.
pub fn build_program(root: &Path, is_quick: bool) -> Result<PathBuf, Fault> {
    let built = artifacts(root, is_quick, &["build", "-p", "tangelo-cli"])?;
    let program = built.into_iter().next();
    program.map(|program| program.path).ok_or_else(|| Fault::Failed("the build made no program".into()))
}

/// All tests.
pub fn run_all(check: &Check<'_>, record: &mut Record) {
    let packages = ["tangelo-ops", "tangelo-model", "tangelo-engine"].map(|package| ["-p", package]);
    let mut args = vec!["test", "--no-run"];
    // A trial shows that the step works; one package does.
    args.extend(packages.iter().take(if check.options.quick { 1 } else { 3 }).flatten());
    let built = artifacts(check.root, check.options.quick, &args);
    let programs = match built {
        Ok(programs) => programs,
        Err(fault) => return record.step("tests", || Err(fault)),
    };
    for program in programs.iter().filter(|program| program.is_test) {
        record.step(&format!("tests of {}", program.name), || {
            let mut command = Command::new(&program.path);
            command.current_dir(&program.folder).env("TANGELO_TEST_GPU", "1");
            if check.options.quick {
                command.arg("rms_norm");
            }
            passed(&run(&mut command, TEST_LIMIT)?)
        });
    }
    record.step("compute-sanitizer", || sanitizer(programs.iter().find(|p| p.name == "ops/tangelo_ops")));
}

/// Memory errors of the kernels of ops.
fn sanitizer(program: Option<&Program>) -> Result<String, Fault> {
    let program = program.ok_or_else(|| Fault::Missing("the tests of ops were not built".into()))?;
    let exists = |sanitizer: &&str| Command::new(sanitizer).arg("--version").output().is_ok();
    let sanitizer = SANITIZERS.into_iter().find(exists);
    let sanitizer = sanitizer.ok_or_else(|| Fault::Missing("compute-sanitizer was not found".into()))?;
    let mut command = Command::new(sanitizer);
    command.args(["--tool", "memcheck", "--error-exitcode", SANITIZER_STATUS]).arg(&program.path);
    command.args([DEVICE_TESTS, "--test-threads", "1"]);
    command.current_dir(&program.folder).env("TANGELO_TEST_GPU", "1");
    match run(&mut command, SANITIZER_LIMIT) {
        Ok(text) => passed(&text),
        // It slows kernels down a hundredfold; not to be done is no error.
        Err(Fault::Late(why)) => Err(Fault::Missing(why)),
        Err(fault) => Err(fault),
    }
}

/// How many tests passed, from what their program prints; none is a failure.
fn passed(text: &str) -> Result<String, Fault> {
    let result = text.lines().find_map(|line| line.strip_prefix("test result: ok. "));
    match result.and_then(|rest| rest.split(" passed").next()) {
        Some(count) if count != "0" => Ok(format!("{count} passed")),
        _ => Err(Fault::Missing("it has no tests for this".into())),
    }
}

/// What cargo built; `args` begin with its subcommand.
fn artifacts(root: &Path, is_quick: bool, args: &[&str]) -> Result<Vec<Program>, Fault> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(args).arg("--message-format=json").current_dir(root);
    // A trial takes the profile that is built anyhow.
    cargo.args((!is_quick).then_some("--release"));
    let messages = run(&mut cargo, BUILD_LIMIT)?;
    Ok(messages.lines().filter_map(artifact).collect())
}

/// The program in one of cargo's messages.
fn artifact(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = PathBuf::from(message["executable"].as_str()?);
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let name = format!("{}/{}", folder.file_name()?.to_string_lossy(), message["target"]["name"].as_str()?);
    let is_test = message["profile"]["test"].as_bool()? && message["target"]["kind"][0] != "bin";
    Some(Program { path, folder, name, is_test })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_messages() {
        let message = r#"{"manifest_path":"/r/crates/ops/Cargo.toml","target":{"name":"tangelo_ops","kind":["lib"]},"profile":{"test":true},
            "executable":"/r/t"}"#;
        let program = artifact(message).expect("a program");
        assert_eq!(program.folder, PathBuf::from("/r/crates/ops"));
        assert!(program.name == "ops/tangelo_ops" && program.is_test);
        assert!(artifact(r#"{"reason":"build-finished","success":true}"#).is_none());
    }

    #[test]
    fn no_test_is_no_success() {
        let line = |n| format!("\nrunning\ntest result: ok. {n} passed; 0 failed; 0 ignored\n");
        assert_eq!(passed(&line(12)).expect("twelve"), "12 passed");
        assert!(passed(&line(0)).is_err() && passed("").is_err());
    }
}
