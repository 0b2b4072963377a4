//! Read bandwidth: sums of a buffer that no cache holds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::{ProbeError, elapsed, reference};
use crate::device::{Cx, SharedRows};
use crate::lanes::{LANES, Lanes, over_lanes};

/// Bytes that a thread reads in one go: enough for the hardware's prefetchers to be in step nearly all the time, few
/// enough that the threads finish together.
pub(super) const PART_BYTES: usize = 2 << 20;
const PART: usize = PART_BYTES / size_of::<f32>();
/// Parts that are timed together, 64 MiB: a few milliseconds, so that some go undisturbed where other programs run too.
const TIMED: usize = 32;
/// Most passes over the buffer, and the time after which none is begun; only slow memory takes as long.
const PASSES: usize = 12;
const PASSES_TIME: Duration = Duration::from_secs(1);

/// Streams that a thread reads a part in, side by side, each to its own sum. The hardware fetches ahead in each of them:
/// on a Zen 3 server one thread reads 20 GB/s in one stream, 26 in two, four or eight, and two threads 40 and 47.
pub(super) const STREAMS: usize = 4;

/// Sums a slice whose length is a multiple of `STREAMS · LANES`.
pub(super) type Kernel = unsafe fn(&[f32], &mut f32);

over_lanes! {
    /// Sums of a slice.
    pub(super) static IMPLS: Kernel = sum(src: &[f32], out: &mut f32), reference::read
}

/// Size of the buffer: 32 MiB for each thread, more than twice what any server has in last-level cache per core, and
/// at least 256 MiB, since a few threads may have the cache of a whole socket for themselves.
pub(super) fn buffer_bytes(threads: usize) -> usize {
    const PER_THREAD: usize = 32 << 20;
    const LEAST: usize = 256 << 20;
    const MOST: usize = 4 << 30;
    threads.saturating_mul(PER_THREAD).clamp(LEAST, MOST)
}

/// Bytes per second over `bytes` bytes, a multiple of [`PART_BYTES`], in huge pages if the system grants them: with
/// small ones the look-up of addresses takes its share of the bandwidth.
pub(super) fn bandwidth(cx: &Cx, bytes: usize) -> Result<f64, ProbeError> {
    let mut map = MmapMut::map_anon(bytes).map_err(|cause| ProbeError::Memory { bytes, cause })?;
    #[cfg(target_os = "linux")]
    // A system without huge pages has its own, lower limit.
    let _ = map.advise(memmap2::Advice::HugePage);
    // SAFETY: any bytes are floats; the map is aligned to pages, so nothing is left over at its ends.
    let (_, floats, _) = unsafe { map.align_to_mut::<f32>() };
    let rows = SharedRows::new(floats, PART);
    // Untouched pages are all the same page of zeros, which would be read from the cache.
    // SAFETY: every part is written by the one thread that claimed it.
    cx.run(bytes / PART_BYTES, &|part| unsafe { rows.part(part, 0..PART) }.fill(1.0));
    let floats: &[f32] = floats;
    let timed = floats.chunks_exact(PART * TIMED);
    let start = Instant::now();
    let passes = (0..PASSES).take_while(|pass| *pass == 0 || start.elapsed() < PASSES_TIME);
    let fastest = passes.flat_map(|_| timed.clone()).map(|floats| elapsed(|| read(cx, floats))).min();
    Ok((TIMED * PART_BYTES) as f64 / fastest.unwrap_or_default().as_secs_f64())
}

/// Reads all parts of a slice.
fn read(cx: &Cx, floats: &[f32]) {
    let sum = cx.choose(IMPLS);
    cx.run(floats.len() / PART, &|part| {
        let mut total = 0.0;
        // SAFETY: `choose` returns only what the instruction set in force allows, and a part is whole lanes of whole streams.
        unsafe { sum(&floats[part * PART..(part + 1) * PART], &mut total) };
        black_box(total);
    });
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn sum<V: Lanes>(src: &[f32], out: &mut f32) {
    let stream = src.len() / STREAMS;
    // SAFETY: the last element read is at most STREAMS · stream − 1; the caller vouches for the instruction set.
    unsafe {
        let mut sums = [V::splat(0.0); STREAMS];
        for at in (0..stream / LANES * LANES).step_by(LANES) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(V::load(src.as_ptr().add(i * stream + at)));
            }
        }
        let [a, b, c, d] = sums;
        *out = a.add(b).add(c.add(d)).fold_add();
    }
}
