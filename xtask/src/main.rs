//! Repository tasks: `cargo run -p xtask -- tidy` checks the rules of the house, `-- lines` prints where the
//! code is, `-- cuda` compiles the GPU's kernels for every device, `-- gpu-check` tries everything on a real one.

#![forbid(unsafe_code)]

mod cuda;
mod gpu_check;

use std::process::ExitCode;

use xtask::{lines, rules, tree::Tree};

const USAGE: &str = "usage: cargo run -p xtask -- <tidy|lines|cuda [--check]|\
                     gpu-check [--quick] [--device cuda:N] [--llama-bench PATH]>";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let task = match args.as_slice() {
        ["cuda"] => return cuda(false),
        ["cuda", "--check"] => return cuda(true),
        ["gpu-check", options @ ..] => return gpu_check(options),
        [task] => *task,
        _ => {
            eprintln!("error: expected one task; {USAGE}");
            return ExitCode::from(2);
        }
    };
    let tree = match Tree::read(xtask::root()) {
        Ok(tree) => tree,
        Err(e) => {
            eprintln!("error: the repository could not be read: {e}");
            return ExitCode::FAILURE;
        }
    };
    match task {
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

fn gpu_check(options: &[&str]) -> ExitCode {
    let options = match gpu_check::Options::parse(options) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("error: {problem}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    match gpu_check::check(xtask::root(), options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: steps failed; the record says which");
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn cuda(check: bool) -> ExitCode {
    match cuda::run(xtask::root(), check) {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
