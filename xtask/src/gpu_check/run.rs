//! Running other programs for a limited time.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked whether a program has ended.
const INTERVAL: Duration = Duration::from_millis(20);
/// Lines of a program's complaint that are kept.
const LINES_KEPT: usize = 4;

/// Why a step has no result.
#[derive(Debug)]
pub enum Fault {
    /// It ran and the result is wrong.
    Failed(String),
    /// It was ended because it took too long.
    Late(String),
    /// It could not run: something is not on this machine.
    Missing(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Fault::Failed(why) | Fault::Late(why) | Fault::Missing(why)) = self;
        f.write_str(why)
    }
}

/// What a program prints. It and what it starts are ended together if it takes too long. Devices are numbered as
/// `nvidia-smi` does.
pub fn run(command: &mut Command, limit: Duration) -> Result<String, Fault> {
    let name = command.get_program().to_string_lossy().into_owned();
    let name = name.rsplit('/').next().unwrap_or_default().to_string();
    command.env("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Fault::Missing(format!("{name} was not found")),
        _ => Fault::Failed(format!("{name}: {e}")),
    })?;
    let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let status = wait(&mut child, limit).map_err(|e| Fault::Failed(format!("{name}: {e}")))?;
    let text = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
    let (out, err) = (text(out), text(err));
    match status {
        None => Err(Fault::Late(format!("{name} was ended after {} s", limit.as_secs()))),
        Some(true) => Ok(out),
        Some(false) => {
            let said = [out, err].map(|text| last_lines(&text)).concat();
            Err(Fault::Failed(format!("{name} failed: {}", said.trim())))
        }
    }
}

/// Whether it ended well; `None` if it had to be ended.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<bool>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if start.elapsed() > limit {
            Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(INTERVAL);
    }
}

/// Reads to the end, so that the program never waits for its reader.
fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = vec![];
        // A pipe that breaks has nothing more to say.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let kept = &lines[lines.len().saturating_sub(LINES_KEPT)..];
    kept.iter().map(|line| format!("{} ", line.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<String, Fault> {
        run(Command::new("sh").args(["-c", script]), limit)
    }

    #[test]
    fn what_happened_is_told_apart() {
        let long = Duration::from_secs(20);
        assert_eq!(shell("echo good", long).expect("it ends well"), "good\n");
        let failed = shell("echo a; echo b >&2; exit 3", long);
        assert!(matches!(failed, Err(Fault::Failed(why)) if why == "sh failed: a b"));
        let start = Instant::now();
        assert!(matches!(shell("sleep 600; echo late", Duration::ZERO), Err(Fault::Late(_))));
        assert!(start.elapsed() < 20 * long, "what it had started was ended too");
        let missing = run(&mut Command::new("no-such-program"), long);
        assert!(matches!(missing, Err(Fault::Missing(why)) if why == "no-such-program was not found"));
    }
}
