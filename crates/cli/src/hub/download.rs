//! One file from the hub into a blob: resumed, checked, and renamed only when it is whole.
//!
//! The unfinished file is locked while it is written, so two programs that want the same model wait for each
//! other instead of mixing their bytes; whoever comes second finds the blob finished.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use sha2::{Digest as _, Sha256};
use ureq::Response;

use super::cache::explain;
use super::client::{Client, Remote, RequestError};

/// How often a transfer that makes no progress is tried again, and how long the first pause is; each
/// further pause is twice as long, four seconds in all.
const RETRIES_MAX: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Bytes moved at a time.
const BUFFER_BYTES: usize = 1 << 18;

/// Makes `blob` hold the contents of `remote`, which the user knows as `name`.
///
/// # Errors
/// If the contents cannot be transferred or stored, or are not what the hub announced. What arrived of an
/// interrupted transfer is kept for the next call.
pub fn fetch(client: &Client, remote: &Remote, name: &str, blob: &Path) -> Result<()> {
    if is_whole(remote, blob) {
        eprintln!("{name}: here already");
        return Ok(());
    }
    let mut part = Part::open(name, blob)?;
    if is_whole(remote, blob) {
        return Ok(());
    }
    let bar = progress_bar(name, remote.size);
    let from = part.have;
    part.fill(client, remote, &bar)?;
    bar.finish_and_clear();
    let size = part.have;
    part.finish(remote, name, blob)?;
    let resumed = if from > 0 { format!(", continued from {}", HumanBytes(from)) } else { String::new() };
    eprintln!("{name}: {}{resumed}", HumanBytes(size));
    Ok(())
}

/// Whether the blob is there with the announced size. Its contents were checked before it got its name.
fn is_whole(remote: &Remote, blob: &Path) -> bool {
    fs::metadata(blob).is_ok_and(|m| m.is_file() && remote.size.is_none_or(|size| size == m.len()))
}

/// A bar on standard error; hidden where that is not a terminal.
fn progress_bar(name: &str, size: Option<u64>) -> ProgressBar {
    let template = match size {
        Some(_) => "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{msg} {bytes} {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template).expect("the templates above are valid");
    let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.with_style(style.progress_chars("=> ")).with_message(name.to_string())
}

/// A download under way: `<blob>.incomplete`, locked.
struct Part {
    path: PathBuf,
    file: File,
    /// Bytes in the file, all of which are in `hash`.
    have: u64,
    hash: Sha256,
}

/// Why a transfer ended early.
enum Stop {
    /// Worth another try.
    Later(anyhow::Error),
    /// Not worth one.
    Never(anyhow::Error),
}

impl From<RequestError> for Stop {
    fn from(error: RequestError) -> Stop {
        if error.is_transient() { Stop::Later(anyhow!("{error}")) } else { Stop::Never(anyhow!("{error}")) }
    }
}

impl Part {
    /// Opens and locks what exists of the download, waiting for another program that writes it.
    fn open(name: &str, blob: &Path) -> Result<Part> {
        let mut path = blob.as_os_str().to_owned();
        path.push(".incomplete");
        let path = PathBuf::from(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(|e| explain(e, &path))?;
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(|e| explain(e, &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    eprintln!("{name}: waiting for another program that downloads it");
                    file.lock().map_err(|e| explain(e, &path))?;
                }
                Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(e)) => return Err(explain(e, &path)),
            }
            // The program waited for may have renamed or removed the file, leaving us with one without a name.
            if path.exists() || blob.exists() {
                let mut part = Part { path, file, have: 0, hash: Sha256::new() };
                part.read_existing()?;
                return Ok(part);
            }
        }
    }

    /// Takes the bytes of an earlier attempt into account.
    fn read_existing(&mut self) -> Result<()> {
        let length = self.file.metadata().map_err(|e| explain(e, &self.path))?.len();
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.have < length {
            let n =
                self.file.read(&mut buffer).with_context(|| format!("reading {}", self.path.display()))?;
            if n == 0 {
                break;
            }
            self.hash.update(&buffer[..n]);
            self.have += n as u64;
        }
        Ok(())
    }

    /// Forgets everything that arrived.
    fn restart(&mut self) -> Result<(), Stop> {
        let result = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        result.map_err(|e| Stop::Never(explain(e, &self.path)))?;
        (self.have, self.hash) = (0, Sha256::new());
        Ok(())
    }

    /// Transfers until everything is there, trying again as long as that brings new bytes.
    fn fill(&mut self, client: &Client, remote: &Remote, bar: &ProgressBar) -> Result<()> {
        let mut furthest = self.have;
        let mut failures = 0;
        loop {
            let error = match self.transfer(client, remote, bar) {
                Ok(()) => return Ok(()),
                Err(Stop::Never(error)) => return Err(error),
                Err(Stop::Later(error)) => error,
            };
            failures = if self.have > furthest { 1 } else { failures + 1 };
            furthest = furthest.max(self.have);
            if failures > RETRIES_MAX {
                return Err(error);
            }
            std::thread::sleep(RETRY_PAUSE * 2u32.pow(failures - 1));
        }
    }

    /// One request for what is missing.
    fn transfer(&mut self, client: &Client, remote: &Remote, bar: &ProgressBar) -> Result<(), Stop> {
        if remote.size.is_some_and(|size| self.have > size) {
            self.restart()?;
        }
        if remote.size == Some(self.have) && self.have > 0 {
            return Ok(()); // Interrupted between the last byte and the renaming.
        }
        let response = match client.contents(&remote.url, self.have) {
            Err(RequestError::Status { status: 416, .. }) if self.have > 0 => {
                self.restart()?;
                client.contents(&remote.url, 0)?
            }
            answer => answer?,
        };
        if self.have > 0 && !continues_at(&response, self.have, remote.size) {
            if response.status() != 200 {
                let (url, from) = (&remote.url, self.have);
                self.restart()?;
                return Err(Stop::Later(anyhow!(
                    "{url} did not continue at byte {from} as asked; try again"
                )));
            }
            self.restart()?;
        }
        let length = response.header("Content-Length").and_then(|n| n.parse::<u64>().ok());
        let size = remote.size.or_else(|| length.map(|n| self.have + n));
        self.receive(response, remote, size, bar)
    }

    /// Stores the body of a response whose first byte is byte `have` of the file.
    fn receive(
        &mut self,
        response: Response,
        remote: &Remote,
        size: Option<u64>,
        bar: &ProgressBar,
    ) -> Result<(), Stop> {
        let url = &remote.url;
        let mut body = response.into_reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            bar.set_position(self.have);
            let lost = |why: String| RequestError::Network { url: url.clone(), why };
            let n = body.read(&mut buffer).map_err(|e| lost(e.to_string()))?;
            if n == 0 {
                return match size {
                    Some(size) if self.have < size => {
                        Err(lost(format!("it closed after {} of {size} bytes", self.have)).into())
                    }
                    _ => Ok(()),
                };
            }
            if size.is_some_and(|size| self.have + n as u64 > size) {
                self.restart()?;
                return Err(Stop::Never(anyhow!(
                    "{url} sends more bytes than the hub announced; try again later"
                )));
            }
            self.file.write_all(&buffer[..n]).map_err(|e| Stop::Never(explain(e, &self.path)))?;
            self.hash.update(&buffer[..n]);
            self.have += n as u64;
        }
    }

    /// Checks the contents and gives them their name; contents that are wrong are removed.
    fn finish(self, remote: &Remote, name: &str, blob: &Path) -> Result<()> {
        let hash: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let announced = &remote.etag;
        // Large files are named by their SHA-256; other ETags do not say how they were computed.
        let is_hash = announced.len() == hash.len() && announced.chars().all(|c| c.is_ascii_hexdigit());
        if is_hash && !announced.eq_ignore_ascii_case(&hash) {
            fs::remove_file(&self.path).map_err(|e| explain(e, &self.path))?;
            bail!(
                "`{name}` arrived damaged: its SHA-256 is {hash}, the hub announced {announced}; it was removed, run the \
                 command again"
            );
        }
        self.file.sync_all().and_then(|()| fs::rename(&self.path, blob)).map_err(|e| explain(e, blob))
    }
}

/// Whether a response holds the bytes from `from` on of a file of `size` bytes.
fn continues_at(response: &Response, from: u64, size: Option<u64>) -> bool {
    let range = response.header("Content-Range").unwrap_or_default();
    response.status() == 206 && range_matches(range, from, size)
}

/// Whether `Content-Range: bytes FROM-TO/TOTAL` starts at `from` and agrees with `size`.
fn range_matches(range: &str, from: u64, size: Option<u64>) -> bool {
    let Some((bounds, total)) = range.strip_prefix("bytes ").and_then(|r| r.split_once('/')) else {
        return false;
    };
    let starts = bounds.split('-').next().and_then(|n| n.trim().parse::<u64>().ok()) == Some(from);
    let total: Option<u64> = total.trim().parse().ok();
    starts && (total.is_none() || size.is_none() || total == size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_must_start_where_the_file_ends() {
        assert!(range_matches("bytes 10-19/20", 10, Some(20)));
        assert!(range_matches("bytes 10-19/*", 10, Some(20)));
        assert!(range_matches("bytes 10-19/20", 10, None));
        for bad in ["bytes 0-19/20", "bytes 10-19/30", "bytes */20", "", "10-19/20"] {
            assert!(!range_matches(bad, 10, Some(20)), "{bad}");
        }
    }
}
