//! An allocator that counts, and reports a parser that asks for more than any honest input needs.
//!
//! It reports by ending the process ([`crate::watch::fail`]), because an allocator must not unwind.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::watch;

/// Most bytes of one allocation, and of all that live at once, while a target runs. The largest honest use is
/// the fuel of a chat template, which bounds what it makes to about 256 MB.
pub const BYTES_MAX: usize = 512 << 20;

/// The counting allocator.
pub struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static BASE: AtomicUsize = AtomicUsize::new(0);
static IS_ARMED: AtomicBool = AtomicBool::new(false);

/// Runs `f` under the limits.
pub fn limited<T>(f: impl FnOnce() -> T) -> T {
    BASE.store(LIVE.load(Relaxed), Relaxed);
    IS_ARMED.store(true, Relaxed);
    let result = f();
    IS_ARMED.store(false, Relaxed);
    result
}

fn grow(request: usize, by: usize) {
    let live = LIVE.fetch_add(by, Relaxed).wrapping_add(by);
    let above = live.saturating_sub(BASE.load(Relaxed));
    if (request > BYTES_MAX || above > BYTES_MAX) && IS_ARMED.swap(false, Relaxed) {
        watch::fail(&format!("it asked for {request} bytes with {above} in use; the limit is {BYTES_MAX}"));
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size(), layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size(), layout.size());
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `pointer` came from this allocator, hence from the system's, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size, size.saturating_sub(layout.size()));
        LIVE.fetch_sub(layout.size().saturating_sub(size), Relaxed);
        // SAFETY: as for `dealloc`, and the caller guarantees a valid new size.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
