//! What operations run on: a thread pool, the instruction set in force, recycled buffers, and a GPU if there is one.

mod buffer;
mod pool;

pub(crate) use buffer::{DeviceView, SharedRows};
pub use buffer::{Mat, Place, Vector, View, ViewMut};
pub use pool::Pool;

use crate::cuda::{Gpu, GpuError};
use crate::dispatch::{Impl, Simd, choose};
use buffer::FreeList;
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Environment variable that forces an instruction set: the name of one of [`Simd::ALL`].
pub const SIMD_VARIABLE: &str = "TANGELO_SIMD";

/// The context every operation takes: where it runs and how.
#[derive(Debug)]
pub struct Cx {
    pool: Pool,
    simd: Simd,
    free: Arc<FreeList>,
    gpu: Option<Gpu>,
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
        Ok(Cx { pool: Pool::new(threads), simd, free: Arc::default(), gpu: None })
    }

    /// All cores of the machine, and the instruction set named by [`SIMD_VARIABLE`] or else the best one.
    pub fn from_env() -> Result<Cx, CxError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Cx::new(threads, simd_from_env()?)
    }

    /// The context, with a GPU to compute on beside the processors.
    pub fn with_gpu(self, gpu: Gpu) -> Cx {
        Cx { gpu: Some(gpu), ..self }
    }

    /// The GPU, if there is one.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// What went wrong on the GPU, if anything did; results on it are worthless then.
    ///
    /// # Errors
    /// The first failure.
    pub fn check_gpu(&self) -> Result<(), GpuError> {
        self.gpu.as_ref().map_or(Ok(()), Gpu::check)
    }

    /// Where a model is to be, as a whole, if nobody says: on the GPU if there is one.
    pub fn best_place(&self) -> Place {
        if self.gpu.is_some() { Place::Device } else { Place::Host }
    }

    /// The GPU of a context that was asked to put something there.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn the_gpu(&self) -> &Gpu {
        self.gpu.as_ref().expect("Place::Device is for contexts with a GPU")
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

    /// [`Cx::mat`] in a place.
    pub fn mat_at(&self, place: Place, rows: usize, cols: usize) -> Mat {
        match place {
            Place::Host => self.mat(rows, cols),
            Place::Device => Mat::on_device(self.the_gpu(), rows, cols),
        }
    }

    /// A matrix of zeros in a place.
    pub fn zeros_at(&self, place: Place, rows: usize, cols: usize) -> Mat {
        let mut mat = self.mat_at(place, rows, cols);
        match mat.buffer() {
            Some(buffer) => buffer.zero(),
            None => mat.data_mut().fill(0.0),
        }
        mat
    }

    /// A copy of a matrix in a place; the same matrix if it is there.
    pub fn mat_to(&self, place: Place, mat: Mat) -> Mat {
        if mat.place() == place {
            return mat;
        }
        let mut copy = self.mat_at(place, mat.rows(), mat.cols());
        match (mat.buffer(), copy.buffer()) {
            (None, Some(buffer)) => buffer.write(0, mat.data()),
            (Some(buffer), None) => buffer.read(0, copy.data_mut()),
            _ => unreachable!("the places differ"),
        }
        copy
    }

    /// A copy of a vector in a place; the same vector if it is there.
    pub fn vector_to(&self, place: Place, vector: Vector) -> Vector {
        match (vector.place(), place) {
            (Place::Host, Place::Device) => {
                let copy = Vector::on_device(self.the_gpu(), vector.len());
                copy.buffer().expect("made on the device").write(0, &vector);
                copy
            }
            (Place::Device, Place::Host) => Vector::from(vector.to_vec()),
            _ => vector,
        }
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

    /// [`Cx::run`] for parts of unequal size, those of most `size` first, one at a time.
    pub(crate) fn run_largest_first(
        &self,
        parts: usize,
        size: impl Fn(usize) -> usize,
        work: &(dyn Fn(usize) + Sync),
    ) {
        let mut order: Vec<usize> = (0..parts).collect();
        order.sort_by_key(|part| Reverse(size(*part)));
        let next = AtomicUsize::new(0);
        self.run(self.threads(), &|_| {
            while let Some(part) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                work(*part);
            }
        });
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
