//! What this machine can do at most: bytes read from memory, integer and f32 arithmetic per second.
//!
//! Speeds are worth knowing as fractions of these limits. Each is measured with all threads of a context and the
//! instructions that its kernels use, in well under a second:
//!
//! - **read**: all threads sum a buffer much larger than the caches, in several sequential streams each;
//! - **f32**: chains of fused multiply-adds that do not wait for each other, 2 operations per lane;
//! - **int8**: the same with the multiply-accumulate of 8-bit integers of the level, 2 operations per product:
//!   `vpdpbusd` on AVX-512 and AVX-VNNI, `vpmaddubsw` on AVX2 (whose products still have to be widened and added, which
//!   takes two more instructions, so that no kernel without VNNI comes near this limit), `smmla` or `sdot` on aarch64.
//!   The reference is a plain loop, for whose speed the compiler answers.
//!
//! Of a device the read bandwidth is measured ([`device_read_bytes_per_s`]), which is what decoding waits for; not its
//! arithmetic.
//!
//! The best of several runs is reported: whatever else the machine does can only make a run slower. This module knows
//! nothing of models, and nothing that computes depends on it.

mod cuda;
mod fma;
mod int8;
mod read;
mod reference;
#[cfg(test)]
mod tests;

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::cuda::{Gpu, GpuError};
use crate::device::Cx;
use crate::dispatch::Simd;

/// What a context can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes read from memory per second.
    pub read_bytes_per_s: f64,
    /// Multiplications and additions of 8-bit integers per second, counted apart.
    pub int8_ops_per_s: f64,
    /// Multiplications and additions of f32 per second, counted apart.
    pub f32_flops_per_s: f64,
    /// Threads they were measured with.
    pub threads: usize,
    /// Instruction set they were measured with.
    pub simd: Simd,
}

/// Why the limits could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The buffer to read cannot be had.
    #[error(
        "measuring the read bandwidth takes {bytes} bytes of memory, which cannot be had: {cause}; free some"
    )]
    Memory {
        /// Size of the buffer.
        bytes: usize,
        /// What the system says.
        cause: std::io::Error,
    },
}

/// Measures the machine; nothing else should run on it.
///
/// # Errors
/// [`ProbeError::Memory`] if there is no room for the buffer that is read (32 MiB per thread, at least 256 MiB).
pub fn limits(cx: &Cx) -> Result<Limits, ProbeError> {
    let fma = cx.choose(fma::IMPLS);
    let int8 = cx.choose(int8::IMPLS);
    // SAFETY: `choose` returns only what the instruction set in force allows.
    let run_fma = |rounds| unsafe { fma(rounds, &mut *black_box(&mut [0.0; 16])) };
    // SAFETY: as above.
    let run_int8 = |rounds| unsafe { int8(rounds, &mut *black_box(&mut [0; 16])) };
    Ok(Limits {
        read_bytes_per_s: read::bandwidth(cx, read::buffer_bytes(cx.threads()))?,
        int8_ops_per_s: int8::OPS_PER_ROUND * rounds_per_s(cx, &run_int8),
        f32_flops_per_s: fma::OPS_PER_ROUND * rounds_per_s(cx, &run_fma),
        threads: cx.threads(),
        simd: cx.simd(),
    })
}

/// Bytes that a device reads from its memory per second, with a buffer of at most a GiB and a quarter of what is left;
/// `None` if that is too little to say anything.
///
/// # Errors
/// If the device fails.
pub fn device_read_bytes_per_s(gpu: &Gpu) -> Result<Option<f64>, GpuError> {
    cuda::bandwidth(gpu)
}

/// Least time of one part of a job. With [`PARTS`] of them a job is long beside its start (microseconds), and short
/// enough that some jobs go undisturbed where other programs run too.
const PART_TIME: Duration = Duration::from_micros(250);
/// Parts of a job per thread; several, so that no thread waits long for the last.
const PARTS: usize = 4;
/// Jobs, of which the fastest counts.
const JOBS: usize = 120;

/// The most rounds per second of which all threads together are capable; `work(n)` does n rounds.
fn rounds_per_s(cx: &Cx, work: &(dyn Fn(usize) + Sync)) -> f64 {
    let mut rounds = 64;
    while elapsed(|| work(rounds)) < PART_TIME {
        rounds *= 2;
    }
    let parts = PARTS * cx.threads();
    let fastest = (0..JOBS).map(|_| elapsed(|| cx.run(parts, &|_| work(rounds)))).min().unwrap_or_default();
    (rounds * parts) as f64 / fastest.as_secs_f64()
}

fn elapsed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
