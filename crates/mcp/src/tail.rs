//! The last words of a program: what it wrote to standard error before it failed.
//!
//! Servers write their logs there, which nobody wants between the lines of a conversation. They are read, so that the
//! server is never held up by a full pipe, and all but the end is forgotten.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStderr;
use tokio::sync::watch;

/// Most bytes that are remembered.
const BYTES_MAX: usize = 4096;
/// Most lines that are told.
const LINES_MAX: usize = 8;
/// Bytes per read.
const CHUNK: usize = 4096;
/// How long the words of a server that has just ended are waited for.
const END_WAIT: Duration = Duration::from_millis(300);

/// Reads standard error to its end.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes: Arc<Mutex<Vec<u8>>>,
    has_ended: watch::Receiver<bool>,
}

impl Tail {
    /// Begins to read.
    pub(crate) fn read(mut stderr: ChildStderr) -> Tail {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (ended, has_ended) = watch::channel(false);
        let shared = Arc::clone(&bytes);
        tokio::spawn(async move {
            let mut chunk = [0; CHUNK];
            while let Ok(read @ 1..) = stderr.read(&mut chunk).await {
                let mut bytes = shared.lock().unwrap_or_else(PoisonError::into_inner);
                keep_end(&mut bytes, chunk.get(..read).unwrap_or_default());
            }
            let _ = ended.send(true);
        });
        Tail { bytes, has_ended }
    }

    /// The last lines, each on a line of its own behind a heading; empty if nothing was written.
    pub(crate) async fn words(&self) -> String {
        let mut has_ended = self.has_ended.clone();
        // A server that still runs goes on writing: then the lines so far must do.
        let _ = tokio::time::timeout(END_WAIT, has_ended.wait_for(|ended| *ended)).await;
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        last_lines(&bytes)
    }
}

fn keep_end(bytes: &mut Vec<u8>, more: &[u8]) {
    bytes.extend_from_slice(more);
    bytes.drain(..bytes.len().saturating_sub(BYTES_MAX));
}

fn last_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(LINES_MAX)..).unwrap_or_default();
    match last {
        [] => String::new(),
        last => format!("\nits last words:\n  {}", last.join("\n  ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let mut bytes = Vec::new();
        for i in 0..10_000 {
            keep_end(&mut bytes, format!("line {i}\n\n").as_bytes());
        }
        assert_eq!(bytes.len(), BYTES_MAX);
        let words = last_lines(&bytes);
        assert!(words.starts_with("\nits last words:\n  line 9992\n  line 9993\n"), "{words}");
        assert!(words.ends_with("\n  line 9999"), "{words}");
        assert_eq!(last_lines(b" \n\n"), "");
    }
}
