//! Files that appear complete or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

/// Bytes gathered before they are handed to the system.
const BUFFER_BYTES: usize = 1 << 20;

/// Temporary names in use, for [`clean_up_when_interrupted`].
static PARTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn parts() -> MutexGuard<'static, Vec<PathBuf>> {
    PARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, Ctrl-C removes what is unfinished and ends the program with the status that shells give to an
/// interrupted one.
///
/// # Errors
/// If the system refuses the handler.
pub fn clean_up_when_interrupted() -> Result<()> {
    const INTERRUPTED: i32 = 128 + 2;
    let handler = || {
        // The lock is kept, so that nothing is finished or begun any more.
        let parts = parts();
        parts.iter().for_each(|part| remove(part));
        std::process::exit(INTERRUPTED);
    };
    ctrlc::set_handler(handler).context("cannot watch for Ctrl-C")
}

/// The temporary name of a file or folder: hidden, beside the final one, not that of another process. Dropping it
/// removes whatever still has the name; nobody could be told of a failure to do so, and nothing is lost by it.
#[derive(Debug)]
struct Part(PathBuf);

impl Part {
    fn of(path: &Path, name: &OsStr) -> Part {
        let mut part = OsString::from(".");
        part.push(name);
        part.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(part);
        parts().push(part.clone());
        Part(part)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        parts().retain(|part| *part != self.0);
        remove(&self.0);
    }
}

fn remove(part: &Path) {
    let _ = if part.is_dir() { fs::remove_dir_all(part) } else { fs::remove_file(part) };
}

/// A file being written under a temporary name in the folder of its final one. Dropped without
/// [`OutputFile::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    part: Part,
    file: BufWriter<File>,
}

impl OutputFile {
    /// Starts a file that will replace whatever is at `path`.
    ///
    /// # Errors
    /// If the folder does not exist or may not be written, or `path` is something other than a file.
    pub fn create(path: &Path) -> Result<OutputFile> {
        let shown = path.display();
        let Some(name) = path.file_name().filter(|_| !path.is_dir()) else {
            bail!("{shown} is a folder; name the file to write");
        };
        if path.exists() && !path.is_file() {
            bail!("{shown} is not a regular file, so it cannot be replaced; name another");
        }
        let part = Part::of(path, name);
        let file = File::create(&part.0).map_err(|e| explain(e, path))?;
        Ok(OutputFile { path: path.to_path_buf(), part, file: BufWriter::with_capacity(BUFFER_BYTES, file) })
    }

    /// Flushes to the disk and gives the file its name.
    ///
    /// # Errors
    /// If the disk is full or the file cannot be renamed.
    pub fn finish(self) -> Result<()> {
        let OutputFile { path, part, file } = self;
        let finish = || -> io::Result<()> {
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&part.0, &path)
        };
        finish().map_err(|e| explain(e, &path))
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A folder being filled under a temporary name beside its final one. Dropped without [`OutputFolder::finish`], it
/// leaves nothing behind.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
    part: Part,
}

impl OutputFolder {
    /// Starts a folder that will be at `path`.
    ///
    /// # Errors
    /// If something other than an empty folder is there, or the folder around it does not exist or may not be written.
    pub fn create(path: &Path) -> Result<OutputFolder> {
        let shown = path.display();
        let Some(name) = path.file_name() else { bail!("{shown} is not the name of a folder") };
        let is_free = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        ensure!(is_free, "{shown} exists already; remove it or name another folder");
        let part = Part::of(path, name);
        fs::create_dir(&part.0).map_err(|e| explain(e, path))?;
        Ok(OutputFolder { path: path.to_path_buf(), part })
    }

    /// Where files are to be put until the folder is finished.
    pub fn part(&self) -> &Path {
        &self.part.0
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn finish(self) -> Result<()> {
        fs::rename(&self.part.0, &self.path).map_err(|e| explain(e, &self.path))
    }
}

/// Writes a small file at once.
///
/// # Errors
/// As [`OutputFile`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OutputFile::create(path)?;
    file.write_all(bytes).with_context(|| format!("cannot write {}", path.display()))?;
    file.finish()
}

/// What a writer of tensors says about a stream that failed, in terms of the file.
pub fn explain_write(error: tangelo_formats::Error, path: &Path) -> anyhow::Error {
    match error {
        tangelo_formats::Error::Write { cause, .. } => explain(cause, path),
        other => other.into(),
    }
}

/// The system's reason for refusing to write, with a remedy.
fn explain(error: io::Error, path: &Path) -> anyhow::Error {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            anyhow!("there is no space left for {path}; free some or write to another disk")
        }
        io::ErrorKind::NotFound => anyhow!("{path} is in a folder that does not exist; make it first"),
        _ => anyhow!("cannot write {path}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(test: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tangelo-output-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder");
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_file_appears_when_it_is_finished() {
        let folder = folder("appears");
        let path = folder.join("x");
        fs::write(&path, "old").expect("a file");
        let mut file = OutputFile::create(&path).expect("a part");
        file.write_all(b"new").expect("writing");
        assert_eq!(fs::read(&path).expect("a file"), b"old");
        file.finish().expect("renaming");
        assert_eq!(fs::read(&path).expect("a file"), b"new");
        assert_eq!(names(&folder), ["x"]);
        fs::remove_dir_all(folder).expect("the folder goes");
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let folder = folder("dropped");
        let mut file = OutputFile::create(&folder.join("x")).expect("a part");
        file.write_all(b"new").expect("writing");
        drop(file);
        assert_eq!(names(&folder), [] as [&str; 0]);
        let refusal = |path: &Path| OutputFile::create(path).expect_err("refused").to_string();
        assert!(refusal(&folder).contains("is a folder"));
        assert!(refusal(&folder.join("no/x")).contains("make it first"));
        fs::remove_dir_all(folder).expect("the folder goes");
    }
}
