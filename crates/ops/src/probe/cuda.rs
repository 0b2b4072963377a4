//! Read bandwidth of a device: sums of a buffer that its cache does not hold.

use std::time::{Duration, Instant};

use super::elapsed;
use crate::cuda::{Buffer, Gpu, GpuError, Grid, launch};

/// Threads of a block, and blocks of a multiprocessor.
const THREADS: u32 = 256;
const BLOCKS: usize = 8;
/// Bytes of a read.
const READ_BYTES: usize = 16;
/// Most bytes of the buffer, and most for each multiprocessor: no device has a tenth of it in cache for one.
const BYTES_MAX: u64 = 1 << 30;
const BYTES_MAX_EACH: u64 = 32 << 20;
/// Part of what is left that the buffer may take.
const SHARE: u64 = 4;
/// Passes that are timed together, so that starting them takes no part of the time.
const PASSES: u32 = 4;
/// Times, of which the shortest counts, and when none is begun any more.
const TIMES: usize = 8;
const TIMES_LIMIT: Duration = Duration::from_secs(1);

/// Bytes read per second; `None` if there is no room for a buffer that says anything.
pub(super) fn bandwidth(gpu: &Gpu) -> Result<Option<f64>, GpuError> {
    let multiprocessors = gpu.properties().multiprocessors as usize;
    let most = BYTES_MAX.min(BYTES_MAX_EACH * multiprocessors as u64);
    let least = most / 8;
    let bytes = most.min(gpu.left_bytes() / SHARE);
    if bytes < least {
        return Ok(None);
    }
    let src = gpu.try_buffer(bytes as usize)?;
    let sums = gpu.try_buffer(num_threads(multiprocessors) * size_of::<u32>())?;
    src.zero();
    let start = Instant::now();
    let times = (0..TIMES).take_while(|time| *time == 0 || start.elapsed() < TIMES_LIMIT).map(|_| {
        gpu.synchronize();
        elapsed(|| {
            (0..PASSES).for_each(|_| read(&src, multiprocessors, &sums));
            gpu.synchronize();
        })
    });
    let fastest = times.min().unwrap_or_default();
    gpu.check()?;
    let read = src.len() / READ_BYTES * READ_BYTES;
    Ok(Some(f64::from(PASSES) * read as f64 / fastest.as_secs_f64()))
}

/// Threads of a pass, each of which writes a sum.
pub(super) fn num_threads(multiprocessors: usize) -> usize {
    multiprocessors * BLOCKS * THREADS as usize
}

/// A pass over a buffer, to whole reads.
pub(super) fn read(src: &Buffer, multiprocessors: usize, sums: &Buffer) {
    let grid = Grid::new(multiprocessors * BLOCKS, THREADS);
    launch!(src.gpu(), "probe_read", grid, src, src.len() / READ_BYTES, sums);
}
