//! What operations run on: a thread pool, the instruction set in force and recycled buffers.

mod buffer;
mod pool;

pub(crate) use buffer::SharedRows;
pub use buffer::{Mat, View, ViewMut};
pub use pool::Pool;

use crate::dispatch::{Impl, Simd, choose};
use buffer::FreeList;
use std::ops::Range;
use std::sync::Arc;

/// Environment variable that forces an instruction set: the name of one of [`Simd::ALL`].
pub const SIMD_VARIABLE: &str = "TANGELO_SIMD";

/// The context every operation takes: where it runs and how.
#[derive(Debug)]
pub struct Cx {
    pool: Pool,
    simd: Simd,
    free: Arc<FreeList>,
}

/// Why a context could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CxError {
    /// The name is none of the known levels.
    #[error("unknown instruction set '{name}': expected one of {}", Simd::names())]
    UnknownSimd {
        /// What was asked for.
        name: String,
    },
    /// The level exists but not on this machine.
    #[error("this machine has no {simd}: the best it can run is {best}")]
    SimdUnavailable {
        /// What was asked for.
        simd: Simd,
        /// What could be used instead.
        best: Simd,
    },
}

impl Cx {
    /// A context with `threads` threads (at least one, the caller's included) and the given instruction set.
    pub fn new(threads: usize, simd: Simd) -> Result<Cx, CxError> {
        if !simd.is_available() {
            return Err(CxError::SimdUnavailable { simd, best: Simd::best() });
        }
        Ok(Cx { pool: Pool::new(threads), simd, free: Arc::default() })
    }

    /// All cores of the machine, and the instruction set named by [`SIMD_VARIABLE`] or else the best one.
    pub fn from_env() -> Result<Cx, CxError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Cx::new(threads, simd_from_env()?)
    }

    /// The instruction set in force.
    pub fn simd(&self) -> Simd {
        self.simd
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// A matrix with unspecified contents, from recycled memory where possible; dropping it gives it back.
    pub fn mat(&self, rows: usize, cols: usize) -> Mat {
        Mat::recycled(&self.free, rows, cols)
    }

    /// The implementation of an operation for the instruction set in force.
    pub(crate) fn choose<F: Copy>(&self, impls: &[Impl<F>]) -> F {
        choose(impls, self.simd)
    }

    /// Runs `work(part)` for every part, on all threads. Which thread runs which part is not specified, so no
    /// result may depend on it.
    pub(crate) fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        self.pool.run(parts, work);
    }

    /// Splits `0..n` into ranges of `grain` (the last may be shorter) and runs `work` on each.
    pub(crate) fn run_ranges(&self, n: usize, grain: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
        self.run(n.div_ceil(grain), &|part| work(part * grain..n.min((part + 1) * grain)));
    }
}

/// The instruction set named by [`SIMD_VARIABLE`], or else the best one of the machine.
pub fn simd_from_env() -> Result<Simd, CxError> {
    match std::env::var(SIMD_VARIABLE) {
        Err(_) => Ok(Simd::best()),
        Ok(name) => Simd::from_name(&name).ok_or(CxError::UnknownSimd { name }),
    }
}
