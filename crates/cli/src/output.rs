//! Files that appear complete or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

/// Bytes gathered before they are handed to the system.
const BUFFER_BYTES: usize = 1 << 20;

/// A file being written under a temporary name in the folder of its final one. Dropped without
/// [`OutputFile::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    part: PathBuf,
    /// `None` once finished.
    file: Option<BufWriter<File>>,
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
        let part = path.with_file_name(part_name(name));
        let file = File::create(&part).map_err(|e| explain(e, path))?;
        Ok(OutputFile {
            path: path.to_path_buf(),
            part,
            file: Some(BufWriter::with_capacity(BUFFER_BYTES, file)),
        })
    }

    /// Flushes to the disk and gives the file its name.
    ///
    /// # Errors
    /// If the disk is full or the file cannot be renamed.
    pub fn finish(mut self) -> Result<()> {
        let finish = |file: BufWriter<File>| -> io::Result<()> {
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&self.part, &self.path)
        };
        match self.file.take().map(finish) {
            Some(Err(error)) => {
                // What could not be renamed is of no use; the error above is the one to tell.
                let _ = fs::remove_file(&self.part);
                Err(explain(error, &self.path))
            }
            Some(Ok(())) | None => Ok(()),
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Err(io::ErrorKind::NotConnected.into()), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Nobody can be told, and the part is only waste.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// A folder being filled under a temporary name beside its final one. Dropped without [`OutputFolder::finish`], it
/// leaves nothing behind.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
    part: PathBuf,
    is_finished: bool,
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
        let part = path.with_file_name(part_name(name));
        fs::create_dir(&part).map_err(|e| explain(e, path))?;
        Ok(OutputFolder { path: path.to_path_buf(), part, is_finished: false })
    }

    /// Where files are to be put until the folder is finished.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// If it cannot be renamed.
    pub fn finish(mut self) -> Result<()> {
        fs::rename(&self.part, &self.path).map_err(|e| explain(e, &self.path))?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        if !self.is_finished {
            // Nobody can be told, and the part is only waste.
            let _ = fs::remove_dir_all(&self.part);
        }
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

/// The name of something unfinished: hidden, beside the finished one, and not that of another process.
fn part_name(name: &OsStr) -> OsString {
    let mut part = OsString::from(".");
    part.push(name);
    part.push(format!(".{}.part", std::process::id()));
    part
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
