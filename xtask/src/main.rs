//! Repository tasks: `cargo run -p xtask -- tidy` checks the rules of the house, `-- lines` prints where the
//! code is.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use xtask::{lines, rules, tree::Tree};

const USAGE: &str = "usage: cargo run -p xtask -- <tidy|lines>";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [task] = args.as_slice() else {
        eprintln!("error: expected one task; {USAGE}");
        return ExitCode::from(2);
    };
    let tree = match Tree::read(xtask::root()) {
        Ok(tree) => tree,
        Err(e) => {
            eprintln!("error: the repository could not be read: {e}");
            return ExitCode::FAILURE;
        }
    };
    match task.as_str() {
        "tidy" => tidy(&tree),
        "lines" => {
            print!("{}", lines::table(&tree));
            ExitCode::SUCCESS
        }
        other => {
            eprintln!("error: there is no task `{other}`; {USAGE}");
            ExitCode::from(2)
        }
    }
}

fn tidy(tree: &Tree) -> ExitCode {
    let problems = rules::check(tree);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        println!("tidy: {} files, {} rules, no problems", tree.files.len(), rules::RULES.len());
        ExitCode::SUCCESS
    } else {
        eprintln!("error: tidy found {} problems in {} files", problems.len(), tree.files.len());
        ExitCode::FAILURE
    }
}
