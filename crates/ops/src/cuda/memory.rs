//! Memory of a device: buffers, recycled as those of the host are, and copies to and from them.
//!
//! A buffer that is dropped goes to a list and is taken from there by the next one that it fits. Everything runs in one
//! stream, so whoever gets it writes it after its last reader is done. That a step of decoding gets the same addresses
//! every time, because it asks for the same sizes in the same order, is what lets its graph be launched again
//! ([`super::record`]).

use super::error::{call, is_out_of_memory};
use super::{Gpu, GpuError, lock};
use cudarc::driver::result as driver;

/// Sizes are multiples of this, in bytes: what copies and vector loads like to begin at.
const ALIGNMENT: usize = 256;
/// A free buffer serves a request of at least this part of its size.
const WASTE_MAX: usize = 2;

/// Free buffers and what is in use.
#[derive(Default)]
pub(super) struct Memory {
    /// (bytes, address), in the order in which they were given back.
    free: Vec<(usize, u64)>,
    /// Bytes of all buffers, free ones included.
    reserved: u64,
    /// The most there ever were.
    peak: u64,
    /// Most bytes to take; 0 for no bound.
    budget: u64,
}

impl Memory {
    /// The smallest free buffer for `bytes`; of equal ones that which was given back last.
    fn take(&mut self, bytes: usize) -> Option<(usize, u64)> {
        let fits = |&(size, _): &(usize, u64)| size >= bytes && size / WASTE_MAX <= bytes;
        let candidates = (0..self.free.len()).rev().filter(|&i| fits(&self.free[i]));
        let best = candidates.min_by_key(|&i| self.free[i].0)?;
        Some(self.free.remove(best))
    }

    /// Gives all free buffers back to the driver.
    ///
    /// # Safety
    /// Nothing that runs may use them, and the context must be current.
    pub(super) unsafe fn release(&mut self) {
        for (bytes, address) in self.free.drain(..) {
            // SAFETY: the caller vouches. If the context is gone, so is the memory.
            let _ = unsafe { driver::free_sync(address) };
            self.reserved -= bytes as u64;
        }
    }
}

/// Bytes on a device. Dropped, it is recycled.
pub(crate) struct Buffer {
    gpu: Gpu,
    address: u64,
    /// Bytes asked for.
    len: usize,
    /// Bytes it has.
    size: usize,
}

impl Gpu {
    /// A buffer of `len` bytes with unspecified contents. After a failure it is one that nothing can be done with.
    pub(crate) fn buffer(&self, len: usize) -> Buffer {
        self.try_buffer(len).unwrap_or_else(|failure| {
            self.fail(failure);
            Buffer { gpu: self.clone(), address: 0, len, size: 0 }
        })
    }

    /// A buffer of `len` bytes with unspecified contents.
    ///
    /// # Errors
    /// If there is no memory, or something has failed before.
    pub(crate) fn try_buffer(&self, len: usize) -> Result<Buffer, GpuError> {
        self.check()?;
        let size = len.max(1).next_multiple_of(ALIGNMENT);
        let mut memory = lock(&self.0.memory);
        if let Some((size, address)) = memory.take(size) {
            return Ok(Buffer { gpu: self.clone(), address, len, size });
        }
        self.bind().map_err(call("entering the context"))?;
        if memory.budget > 0 && memory.reserved + size as u64 > memory.budget {
            self.trim(&mut memory);
            if memory.reserved + size as u64 > memory.budget {
                let (wanted, total) = (size as u64, memory.budget);
                return Err(GpuError::NoMemory { wanted, free: total - memory.reserved, total });
            }
        }
        // SAFETY: the context is current; the address is handed to one owner.
        let address = unsafe { driver::malloc_sync(size) }.or_else(|error| {
            if !is_out_of_memory(error) {
                return Err(call("allocating memory")(error));
            }
            self.trim(&mut memory);
            // SAFETY: as above.
            unsafe { driver::malloc_sync(size) }.map_err(|_| {
                let (free, total) = driver::mem_get_info().unwrap_or((0, 0));
                GpuError::NoMemory { wanted: size as u64, free: free as u64, total: total as u64 }
            })
        })?;
        memory.reserved += size as u64;
        memory.peak = memory.peak.max(memory.reserved);
        Ok(Buffer { gpu: self.clone(), address, len, size })
    }

    /// Gives free buffers back to the driver once nothing uses them.
    fn trim(&self, memory: &mut Memory) {
        // What has been recorded and not yet run may use buffers that are free by now.
        self.flush();
        // SAFETY: after waiting nothing runs any more; the caller has made the context current. A graph that names a buffer
        // is run again only for launches that name it too, hence while someone owns that address.
        unsafe {
            let _ = driver::stream::synchronize(self.0.stream);
            memory.release();
        }
    }

    /// Bytes of all buffers now and at most so far.
    pub fn reserved_bytes(&self) -> (u64, u64) {
        let memory = lock(&self.0.memory);
        (memory.reserved, memory.peak)
    }

    /// Takes at most `bytes` of memory from now on.
    pub fn set_budget(&self, bytes: u64) {
        lock(&self.0.memory).budget = bytes;
    }

    /// Bytes that may still be taken: what is free, within the budget. Nothing after a failure.
    pub fn left_bytes(&self) -> u64 {
        let free = self.free_bytes().map_or(0, |(free, _)| free);
        let memory = lock(&self.0.memory);
        let recycled: u64 = memory.free.iter().map(|(bytes, _)| *bytes as u64).sum();
        let left = match memory.budget {
            0 => free,
            budget => free.min(budget.saturating_sub(memory.reserved)),
        };
        left + recycled
    }

    /// Bytes free on the device, whoever uses the rest, and in all.
    ///
    /// # Errors
    /// If the driver does not say.
    pub fn free_bytes(&self) -> Result<(u64, u64), GpuError> {
        self.bind().map_err(call("entering the context"))?;
        let (free, total) = driver::mem_get_info().map_err(call("asking for free memory"))?;
        Ok((free as u64, total as u64))
    }
}

impl Buffer {
    /// The device it is on.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Where it is.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies `bytes` to it, from byte `at` on, after everything asked for so far.
    pub(crate) fn write<T: Plain>(&self, at: usize, data: &[T]) {
        self.gpu.flush();
        self.write_ahead(at, data);
    }

    /// [`Buffer::write`], but before the launches that are being recorded: for what none of them has touched.
    pub(crate) fn write_ahead<T: Plain>(&self, at: usize, data: &[T]) {
        assert!(at + size_of_val(data) <= self.len, "{} bytes at {at} of {}", size_of_val(data), self.len);
        let to = self.address + at as u64;
        // SAFETY: inside the buffer (checked). Memory that is not page-locked is copied before the call returns.
        self.gpu
            .attempt("copying to it", || unsafe { driver::memcpy_htod_async(to, data, self.gpu.0.stream) });
    }

    /// Copies it from byte `at` on to `data`, and waits for that. After a failure `data` is unchanged.
    pub(crate) fn read<T: Plain>(&self, at: usize, data: &mut [T]) {
        assert!(at + size_of_val(data) <= self.len, "{} bytes at {at} of {}", size_of_val(data), self.len);
        self.gpu.flush();
        let (from, stream) = (self.address + at as u64, self.gpu.0.stream);
        // SAFETY: inside the buffer (checked), and waited for while `data` is borrowed.
        self.gpu.attempt("copying from it", || unsafe {
            driver::memcpy_dtoh_async(data, from, stream)?;
            driver::stream::synchronize(stream)
        });
    }

    /// Fills it with zeros.
    pub(crate) fn zero(&self) {
        self.gpu.flush();
        let stream = self.gpu.0.stream;
        // SAFETY: the whole buffer.
        self.gpu.attempt("clearing memory", || unsafe {
            driver::memset_d8_async(self.address, 0, self.len, stream)
        });
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        let copy = self.gpu.buffer(self.len);
        self.gpu.flush();
        let stream = self.gpu.0.stream;
        // SAFETY: both have `len` bytes.
        self.gpu.attempt("copying on it", || unsafe {
            driver::memcpy_dtod_async(copy.address, self.address, self.len, stream)
        });
        copy
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.address != 0 {
            lock(&self.gpu.0.memory).free.push((self.size, self.address));
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

/// A type every bit pattern of which is a value.
///
/// # Safety
/// That is what the implementor promises, and that it has no padding.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: numbers.
unsafe impl Plain for u16 {}
// SAFETY: numbers.
unsafe impl Plain for u32 {}
// SAFETY: numbers.
unsafe impl Plain for u64 {}
// SAFETY: numbers.
unsafe impl Plain for f32 {}
