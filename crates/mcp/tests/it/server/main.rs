//! The scripted server as a program: `scripted-mcp-server FOLDER [silent | broken | stubborn]`; with `parent` as a
//! further word of the mode it starts a program of its own first.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

mod protocol;

use protocol::{Reply, Script};

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().expect("a folder"));
    std::fs::write(folder.join("pid"), std::process::id().to_string()).expect("the folder can be written to");
    let mode = args.next().unwrap_or_default();
    if mode.contains("parent") {
        start_child(&folder.join("child"));
    }
    match mode.as_str() {
        // Takes a greeting for granted.
        "silent" | "silent parent" => wait(),
        "broken" => {
            eprintln!("the cheese is locked");
            std::process::exit(1);
        }
        _ => {}
    }
    eprintln!("ready");
    let script = Arc::new(Script::new(&folder));
    for line in std::io::stdin().lock().lines() {
        let message =
            serde_json::from_str(&line.expect("standard input is text")).expect("a message is JSON");
        let script = Arc::clone(&script);
        std::thread::spawn(move || match script.answer(&message) {
            Reply::Nothing => {}
            Reply::Messages(messages) => {
                let mut out = std::io::stdout().lock();
                for message in messages {
                    writeln!(out, "{message}").expect("the client reads");
                }
                out.flush().expect("the client reads");
            }
            Reply::Die(words) => {
                eprintln!("{words}");
                std::process::exit(3);
            }
        });
    }
    if mode.contains("stubborn") {
        wait();
    }
}

/// Starts a program that outlives this one, and gets its folder for itself.
fn start_child(folder: &Path) {
    std::fs::create_dir_all(folder).expect("the folder can be written to");
    let program = std::env::current_exe().expect("it runs");
    let child = Command::new(program).arg(folder).arg("silent").stdin(Stdio::null()).spawn();
    let mut child = child.expect("it can be started again");
    std::thread::spawn(move || child.wait());
}

/// Until somebody kills it; not for ever, should nobody do so.
fn wait() {
    std::thread::sleep(Duration::from_secs(120));
}
