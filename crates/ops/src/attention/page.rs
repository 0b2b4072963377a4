//! How a page lies in memory, and its two element types.
//!
//! Kernels read *strips* of sixteen columns, so that a strip is one stretch of memory that is read from its
//! beginning to its end, whatever the number of queries:
//!
//! - keys, per head: four strips of sixteen positions, each (D, 16). Positions lie in the lanes while a score is
//!   summed in the order of d.
//! - values, per head: strips of sixteen columns of the head, each (64, 16), the last one (64, D mod 16) if D is
//!   not a multiple of sixteen. Columns lie in the lanes while an output is summed in the order of positions.

use super::cache::{KvType, PAGE};
use crate::cuda::{Buffer, Gpu, Plain};
use crate::lanes::{LANES, Lanes};
use tangelo_core::float::f16_to_f32;

/// An element type that kernels read.
pub(super) trait Element: Copy + Default {
    /// Exactly this number.
    fn widen(self) -> f32;

    /// Sixteen of them, widened.
    ///
    /// # Safety
    /// The instruction set of `V` must be available and sixteen elements readable at `src`.
    unsafe fn load<V: Lanes>(src: *const Self) -> V;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<V: Lanes>(src: *const f32) -> V {
        // SAFETY: the caller vouches.
        unsafe { V::load(src) }
    }
}

/// The bits of a binary16.
impl Element for u16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f16_to_f32(self)
    }

    #[inline(always)]
    unsafe fn load<V: Lanes>(src: *const u16) -> V {
        // SAFETY: the caller vouches.
        unsafe { V::load_f16(src) }
    }
}

/// A page of either type.
#[derive(Clone, Debug)]
pub(super) enum Page {
    F32(PageOf<f32>),
    F16(PageOf<u16>),
    /// Keys, then values, of either type.
    Device(Buffer),
}

impl Page {
    /// A page of zeros.
    pub(super) fn new(num_kv_heads: usize, head_dim: usize, kv_type: KvType) -> Page {
        match kv_type {
            KvType::F32 => Page::F32(PageOf::new(num_kv_heads, head_dim)),
            KvType::F16 => Page::F16(PageOf::new(num_kv_heads, head_dim)),
        }
    }

    /// A copy on a device.
    pub(super) fn on_device(&self, gpu: &Gpu) -> Page {
        fn copy<E: Plain>(page: &PageOf<E>, gpu: &Gpu) -> Page {
            let bytes = size_of_val(&page.keys[..]);
            let buffer = gpu.buffer(2 * bytes);
            buffer.write(0, &page.keys);
            buffer.write(bytes, &page.values);
            Page::Device(buffer)
        }
        match self {
            Page::F32(page) => copy(page, gpu),
            Page::F16(page) => copy(page, gpu),
            Page::Device(buffer) => Page::Device(buffer.clone()),
        }
    }

    /// A copy on the host of a page on a device.
    pub(super) fn from_device(
        buffer: &Buffer,
        num_kv_heads: usize,
        head_dim: usize,
        kv_type: KvType,
    ) -> Page {
        fn fill<E: Plain>(page: &mut PageOf<E>, buffer: &Buffer) {
            let bytes = size_of_val(&page.keys[..]);
            buffer.read(0, &mut page.keys);
            buffer.read(bytes, &mut page.values);
        }
        let mut page = Page::new(num_kv_heads, head_dim, kv_type);
        match &mut page {
            Page::F32(page) => fill(page, buffer),
            Page::F16(page) => fill(page, buffer),
            Page::Device(_) => {}
        }
        page
    }

    /// Where it is on a device; 0 on the host.
    pub(super) fn address(&self) -> u64 {
        match self {
            Page::F32(_) | Page::F16(_) => 0,
            Page::Device(buffer) => buffer.address(),
        }
    }

    pub(super) fn as_f32(&self) -> Option<&PageOf<f32>> {
        match self {
            Page::F32(page) => Some(page),
            Page::F16(_) | Page::Device(_) => None,
        }
    }

    pub(super) fn as_f16(&self) -> Option<&PageOf<u16>> {
        match self {
            Page::F16(page) => Some(page),
            Page::F32(_) | Page::Device(_) => None,
        }
    }
}

/// Keys and values of 64 positions.
#[derive(Clone, Debug)]
pub(super) struct PageOf<E> {
    keys: Vec<E>,
    values: Vec<E>,
    head_dim: usize,
}

impl<E: Copy> PageOf<E> {
    fn new(num_kv_heads: usize, head_dim: usize) -> PageOf<E>
    where
        E: Default,
    {
        let len = num_kv_heads * head_dim * PAGE;
        PageOf { keys: vec![E::default(); len], values: vec![E::default(); len], head_dim }
    }

    /// Positions `strip · 16 ..` of the keys of a head: (D, 16).
    pub(super) fn key_strip(&self, kv_head: usize, strip: usize) -> &[E] {
        let len = self.head_dim * LANES;
        &self.keys[kv_head * self.head_dim * PAGE + strip * len..][..len]
    }

    /// Columns `strip · 16 ..` of the values of a head: (64, width), and the width, at most 16.
    pub(super) fn value_strip(&self, kv_head: usize, strip: usize) -> (&[E], usize) {
        let width = LANES.min(self.head_dim - strip * LANES);
        let from = kv_head * self.head_dim * PAGE + strip * LANES * PAGE;
        (&self.values[from..][..PAGE * width], width)
    }

    /// Where element `d` of a head's key at `slot` lies.
    fn key_at(&self, kv_head: usize, slot: usize, d: usize) -> usize {
        kv_head * self.head_dim * PAGE + (slot / LANES * self.head_dim + d) * LANES + slot % LANES
    }

    /// Where the columns of strip `d / 16` of a head's value at `slot` begin; `d` is a multiple of 16.
    fn value_at(&self, kv_head: usize, slot: usize, d: usize) -> usize {
        (kv_head * self.head_dim + d) * PAGE + slot * LANES.min(self.head_dim - d)
    }

    /// Element `d` of a head's key at `slot`.
    pub(super) fn key(&self, kv_head: usize, slot: usize, d: usize) -> E {
        self.keys[self.key_at(kv_head, slot, d)]
    }

    /// Element `d` of a head's value at `slot`.
    pub(super) fn value(&self, kv_head: usize, slot: usize, d: usize) -> E {
        self.values[self.value_at(kv_head, slot, d / LANES * LANES) + d % LANES]
    }

    /// Writes position `slot`: `k` and `v` (K·D).
    pub(super) fn put<T: Copy>(&mut self, slot: usize, k: &[T], v: &[T], convert: impl Fn(T) -> E) {
        let dim = self.head_dim;
        for (head, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
            let from = self.key_at(head, slot, 0);
            for (key, k) in self.keys[from..].iter_mut().step_by(LANES).zip(k) {
                *key = convert(*k);
            }
            for (strip, v) in v.chunks(LANES).enumerate() {
                let from = self.value_at(head, slot, strip * LANES);
                for (value, v) in self.values[from..].iter_mut().zip(v) {
                    *value = convert(*v);
                }
            }
        }
    }

    /// Appends position `slot` to `keys` and `values`, each (K·D).
    pub(super) fn get(&self, slot: usize, keys: &mut Vec<E>, values: &mut Vec<E>) {
        for head in 0..self.keys.len() / (self.head_dim * PAGE) {
            keys.extend((0..self.head_dim).map(|d| self.key(head, slot, d)));
            values.extend((0..self.head_dim).map(|d| self.value(head, slot, d)));
        }
    }
}
