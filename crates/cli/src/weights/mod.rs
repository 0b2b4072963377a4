//! Writing the weights of a model, in any type that a file can hold.

mod encode;
mod gguf;
mod mix;
mod vocabulary;

use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

pub use encode::{Job, Transform};
pub use gguf::{Source, write_gguf};
use indicatif::HumanBytes;
pub use mix::Mix;
use mix::{MIXES, named};
pub use vocabulary::Vocabulary;

use crate::args::usage;

/// The elements of a tensor, wherever they come from.
pub trait Elements: Send + Sync {
    /// Computes the elements `range`, row-major; `out` has as many elements as `range`.
    fn fill(&self, range: Range<u64>, out: &mut [f32]);
}

/// What has been written.
#[derive(Debug)]
pub struct Written {
    /// Number of tensors.
    pub tensors: usize,
    /// Their size.
    pub bytes: u64,
}

impl Written {
    /// Says what is at `path` now, and how long it took.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn report(&self, path: &Path, start: Instant) -> io::Result<()> {
        let (path, bytes) = (path.display(), HumanBytes(self.bytes));
        let seconds = start.elapsed().as_secs_f64();
        writeln!(io::stdout(), "{path}: {} tensors, {bytes} in {seconds:.1} s", self.tensors)
    }
}

/// The mixture that the user names with `option`.
///
/// # Errors
/// If there is no such mixture.
pub fn mixture(option: &str, name: &str) -> anyhow::Result<&'static Mix> {
    named(name).ok_or_else(|| {
        let known: Vec<&str> = MIXES.iter().map(|mix| mix.name).collect();
        usage(format!("there is no type `{name}` for {option}; the types are {}", known.join(", ")))
    })
}

/// The name of the mixture behind a value of `general.file_type`, as it is written in names of files.
pub fn mixture_of_file_type(number: u32) -> Option<String> {
    MIXES.iter().find(|mix| mix.file_type == number).map(|mix| mix.name.to_uppercase())
}
