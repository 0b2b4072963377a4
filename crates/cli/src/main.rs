//! The `tangelo` program: reads the command line, runs one subcommand, turns its error into one sentence on
//! standard error. Exit status: 0 done, 1 failed, 2 wrong usage.

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

use clap::Parser as _;

mod args;
mod commands;
mod device;
mod hub;
mod model;
mod output;
mod page;
mod persona;
mod pocket;
mod progress;
mod session;
mod terminal;
mod weights;

fn main() -> ExitCode {
    match commands::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough, as in `tangelo ls | head -1`.
        Err(error)
            if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            if let Some(usage) = error.downcast_ref::<clap::Error>() {
                usage.exit();
            }
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
