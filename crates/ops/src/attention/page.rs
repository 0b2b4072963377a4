//! How a page lies in memory, and its two element types.
//!
//! The keys of all heads come first, then the values of all heads. Kernels read *strips* of sixteen columns, so that a
//! strip is one stretch of memory that is read from its beginning to its end, whatever the number of queries:
//!
//! - keys, per head: four strips of sixteen positions, each (D, 16). Positions lie in the lanes while a score is
//!   summed in the order of d.
//! - values, per head: strips of sixteen columns of the head, each (64, 16), the last one (64, D mod 16) if D is
//!   not a multiple of sixteen. Columns lie in the lanes while an output is summed in the order of positions.

use super::cache::{KvType, PAGE};
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
}

impl Page {
    /// A page of zeros.
    pub(super) fn new(num_kv_heads: usize, head_dim: usize, kv_type: KvType) -> Page {
        match kv_type {
            KvType::F32 => Page::F32(PageOf::new(num_kv_heads, head_dim)),
            KvType::F16 => Page::F16(PageOf::new(num_kv_heads, head_dim)),
        }
    }

    pub(super) fn as_f32(&self) -> Option<&PageOf<f32>> {
        match self {
            Page::F32(page) => Some(page),
            Page::F16(_) => None,
        }
    }

    pub(super) fn as_f16(&self) -> Option<&PageOf<u16>> {
        match self {
            Page::F16(page) => Some(page),
            Page::F32(_) => None,
        }
    }
}

/// Keys and values of 64 positions.
#[derive(Clone, Debug)]
pub(super) struct PageOf<E> {
    data: Vec<E>,
    head_dim: usize,
}

impl<E: Copy> PageOf<E> {
    fn new(num_kv_heads: usize, head_dim: usize) -> PageOf<E>
    where
        E: Default,
    {
        PageOf { data: vec![E::default(); 2 * num_kv_heads * head_dim * PAGE], head_dim }
    }

    /// All elements.
    pub(super) fn data(&self) -> &[E] {
        &self.data
    }

    /// [`PageOf::data`].
    pub(super) fn data_mut(&mut self) -> &mut [E] {
        &mut self.data
    }

    /// Where values begin.
    fn half(&self) -> usize {
        self.data.len() / 2
    }

    /// Positions `strip · 16 ..` of the keys of a head: (D, 16).
    pub(super) fn key_strip(&self, kv_head: usize, strip: usize) -> &[E] {
        let len = self.head_dim * LANES;
        &self.data[kv_head * self.head_dim * PAGE + strip * len..][..len]
    }

    /// Columns `strip · 16 ..` of the values of a head: (64, width), and the width, at most 16.
    pub(super) fn value_strip(&self, kv_head: usize, strip: usize) -> (&[E], usize) {
        let width = LANES.min(self.head_dim - strip * LANES);
        let from = self.half() + kv_head * self.head_dim * PAGE + strip * LANES * PAGE;
        (&self.data[from..][..PAGE * width], width)
    }

    /// Where element `d` of a head's key at `slot` lies.
    fn key_at(&self, kv_head: usize, slot: usize, d: usize) -> usize {
        kv_head * self.head_dim * PAGE + (slot / LANES * self.head_dim + d) * LANES + slot % LANES
    }

    /// Where the columns of strip `d / 16` of a head's value at `slot` begin; `d` is a multiple of 16.
    fn value_at(&self, kv_head: usize, slot: usize, d: usize) -> usize {
        self.half() + (kv_head * self.head_dim + d) * PAGE + slot * LANES.min(self.head_dim - d)
    }

    /// Element `d` of a head's key at `slot`.
    pub(super) fn key(&self, kv_head: usize, slot: usize, d: usize) -> E {
        self.data[self.key_at(kv_head, slot, d)]
    }

    /// Element `d` of a head's value at `slot`.
    pub(super) fn value(&self, kv_head: usize, slot: usize, d: usize) -> E {
        self.data[self.value_at(kv_head, slot, d / LANES * LANES) + d % LANES]
    }

    /// Writes position `slot`: `k` and `v` (K·D).
    pub(super) fn put<T: Copy>(&mut self, slot: usize, k: &[T], v: &[T], convert: impl Fn(T) -> E) {
        let dim = self.head_dim;
        for (head, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
            let from = self.key_at(head, slot, 0);
            for (key, k) in self.data[from..].iter_mut().step_by(LANES).zip(k) {
                *key = convert(*k);
            }
            for (strip, v) in v.chunks(LANES).enumerate() {
                let from = self.value_at(head, slot, strip * LANES);
                for (value, v) in self.data[from..].iter_mut().zip(v) {
                    *value = convert(*v);
                }
            }
        }
    }

    /// Appends position `slot` to `keys` and `values`, each (K·D).
    pub(super) fn get(&self, slot: usize, keys: &mut Vec<E>, values: &mut Vec<E>) {
        for head in 0..self.half() / (self.head_dim * PAGE) {
            keys.extend((0..self.head_dim).map(|d| self.key(head, slot, d)));
            values.extend((0..self.head_dim).map(|d| self.value(head, slot, d)));
        }
    }
}
