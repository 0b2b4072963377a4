//! Everything that only a card can tell, in one command: `cargo run --release -p xtask -- gpu-check`.
//!
//! It needs on that machine a driver, the CUDA toolkit (NVRTC is enough) and this repository, and ten minutes at most once
//! things are built. It runs the tests on the card (`TANGELO_TEST_GPU`) and under compute-sanitizer, compares the card's
//! answers with the processor's, measures speed and memory on a model of the published sizes with made-up weights, beside
//! llama.cpp if its `llama-bench` is given, and writes what it found to `bench/`.
//!
//! A step that cannot run says why and is counted; nothing is left out in silence. `--quick` takes miniatures, runs
//! wherever there is anything that acts as a driver, and keeps its record in `target/gpu-check`.

mod answers;
mod machine;
mod ratios;
mod record;
mod run;
mod speed;
mod suite;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use record::Record;
use run::{Fault, run};

/// Where files go that are no record, from the repository's root.
const FOLDER: &str = "target/gpu-check";

/// What is asked for on the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    quick: bool,
    /// Number of the device.
    device: usize,
    /// llama.cpp's program, built for CUDA.
    llama_bench: Option<PathBuf>,
}

impl Options {
    /// # Errors
    /// What is wrong with the arguments.
    pub fn parse(args: &[&str]) -> Result<Options, String> {
        let mut options = Options { quick: false, device: 0, llama_bench: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match *arg {
                "--quick" => options.quick = true,
                "--llama-bench" => {
                    let path = value()?;
                    // Absolute, since it runs in the repository's root.
                    let path = Path::new(path).canonicalize().map_err(|e| format!("{path}: {e}"))?;
                    options.llama_bench = Some(path);
                }
                "--device" => {
                    let number = value()?.trim_start_matches("cuda:").parse();
                    options.device = number.map_err(|_| "--device takes cuda:N".to_string())?;
                }
                other => return Err(format!("gpu-check has no option `{other}`")),
            }
        }
        Ok(options)
    }
}

/// What the steps share.
struct Check<'a> {
    root: &'a Path,
    options: Options,
    /// The program.
    tangelo: PathBuf,
    /// Where files go that are no record.
    folder: PathBuf,
}

impl Check<'_> {
    /// The program with arguments, on the device or on the processor.
    fn tangelo(&self, on_device: bool, args: &[&str]) -> Command {
        let device = if on_device { format!("cuda:{}", self.options.device) } else { "cpu".to_string() };
        let mut command = Command::new(&self.tangelo);
        command.args(args).args(["--device", &device]).current_dir(self.root);
        command
    }

    /// The JSON document that the program prints.
    fn json(&self, on_device: bool, args: &[&str], limit: Duration) -> Result<Value, Fault> {
        let text = run(&mut self.tangelo(on_device, args), limit)?;
        serde_json::from_str(&text).map_err(|e| Fault::Failed(format!("{} printed no JSON: {e}", args[0])))
    }
}

/// Builds, checks, measures and writes the record; whether nothing failed.
///
/// # Errors
/// If there is nothing to check: the program cannot be built, the device cannot be used, the record cannot be written.
pub fn check(root: &Path, options: Options) -> Result<bool, String> {
    let folder = root.join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(|e| format!("{} cannot be made: {e}", folder.display()))?;
    let tangelo = suite::build_program(root, options.quick).map_err(|fault| fault.to_string())?;
    let check = Check { root, options, tangelo, folder };
    let start = Instant::now();
    let mut record = Record::new(machine::facts(&check).map_err(|fault| fault.to_string())?);
    suite::run_all(&check, &mut record);
    answers::compare_all(&check, &mut record);
    speed::measure_all(&check, &mut record);
    record.ratios = ratios::of(&record.facts);
    record.facts["seconds"] = json!(start.elapsed().as_secs());
    let path = record.write(&check)?;
    println!("\n{}\nwritten to {}.json and .md", record.page(), path.display());
    Ok(record.num_failed() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = Options::parse(&["--quick", "--device", "cuda:3"]);
        assert_eq!(options, Ok(Options { quick: true, device: 3, llama_bench: None }));
        for wrong in
            [&["--fast"][..], &["--device"], &["--device", "x"], &["--llama-bench", "no/such/program"]]
        {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
