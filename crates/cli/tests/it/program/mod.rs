//! Running the program from tests, and the files that they need.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A file or folder of the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// An empty folder for one test.
pub fn scratch(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("what an earlier run left can be removed");
    }
    fs::create_dir_all(&folder).expect("the build's temporary folder can be written");
    folder
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("the paths of the tests are UTF-8")
}

/// Runs the program with something on its standard input.
pub fn output(args: &[&str], input: &[u8]) -> Output {
    output_in(&[], args, input)
}

/// As [`output`], with variables in its environment. It computes on the processor unless they or the arguments say
/// otherwise, whatever the machine has.
pub fn output_in(environment: &[(&str, &str)], args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tangelo"));
    command.args(args).env_remove("TANGELO_SIMD").env("TANGELO_DEVICE", "cpu");
    command.envs(environment.iter().copied());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // The program may end without reading; its exit status is what the tests look at.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("the program ends")
}

/// What the program prints when all goes well.
#[track_caller]
pub fn run(args: &[&str]) -> String {
    run_with_input(args, b"")
}

/// As [`run`], with something on its standard input.
#[track_caller]
pub fn run_with_input(args: &[&str], input: &[u8]) -> String {
    let output = output(args, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

/// Checks that the program refuses with this status, and one sentence that holds `expected`.
#[track_caller]
pub fn refused(args: &[&str], status: i32, expected: &str) {
    refused_in(&[], args, status, expected);
}

/// As [`refused`], with variables in its environment.
#[track_caller]
pub fn refused_in(environment: &[(&str, &str)], args: &[&str], status: i32, expected: &str) {
    let output = output_in(environment, args, b"");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {errors}");
    assert!(errors.starts_with("error: ") && errors.contains(expected), "{args:?}: {errors}");
    if status == 1 {
        assert_eq!(errors.trim_end().lines().count(), 1, "{args:?}: {errors}");
    }
}
