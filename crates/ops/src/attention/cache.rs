//! Keys and values of one attention layer of one sequence, in pages of 64 positions.
//!
//! A full page never changes, so copies of a cache share pages: copying a sequence costs a pointer per page,
//! and appending to a shared, unfinished page copies that page first.
//!
//! A cache of f16 takes half the memory and half the time to read, and is lossy: see [`KvType::F16`].

use super::cuda::Header;
use super::page::{Page, PageOf};
use crate::device::{Cx, DeviceView, Place, View};
use std::fmt;
use std::sync::Arc;

/// Positions per page, each of which is a softmax of its own until they are combined.
pub const PAGE: usize = 64;

/// Type of the elements of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Keys and values as they were computed.
    #[default]
    F32,
    /// IEEE binary16: rounded to nearest even when appended, magnitudes above 65504 (infinity too) to ±65504,
    /// because an infinite key would turn a softmax into NaN; NaN stays NaN. Reading widens exactly.
    F16,
}

impl KvType {
    /// All types.
    pub const ALL: [KvType; 2] = [KvType::F32, KvType::F16];

    /// The name accepted by `--kv`.
    pub const fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
        }
    }

    /// Inverse of [`KvType::name`].
    pub fn from_name(name: &str) -> Option<KvType> {
        KvType::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            KvType::F32 => size_of::<f32>(),
            KvType::F16 => size_of::<u16>(),
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Elements as a plain array.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// As in a [`KvType::F32`] cache.
    F32(Vec<f32>),
    /// Bits of binary16, as in a [`KvType::F16`] cache.
    F16(Vec<u16>),
}

impl Elements {
    /// Their type.
    pub fn kv_type(&self) -> KvType {
        match self {
            Elements::F32(_) => KvType::F32,
            Elements::F16(_) => KvType::F16,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Elements::F32(data) => data.len(),
            Elements::F16(data) => data.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The cache. Cloning shares all pages.
#[derive(Debug)]
pub struct KvCache {
    pages: Vec<Arc<Page>>,
    len: usize,
    num_kv_heads: usize,
    head_dim: usize,
    kv_type: KvType,
    place: Place,
    /// On a device, once something has been appended there.
    header: Option<Header>,
}

impl Clone for KvCache {
    fn clone(&self) -> KvCache {
        KvCache { pages: self.pages.clone(), header: None, ..*self }
    }
}

impl KvCache {
    /// An empty cache.
    pub fn new(num_kv_heads: usize, head_dim: usize, kv_type: KvType) -> KvCache {
        KvCache {
            pages: Vec::new(),
            len: 0,
            num_kv_heads,
            head_dim,
            kv_type,
            place: Place::Host,
            header: None,
        }
    }

    /// Moves all pages to a place.
    pub fn move_to(&mut self, cx: &Cx, place: Place) {
        if place == self.place {
            return;
        }
        if place == Place::Host {
            *self = self.on_host();
            return;
        }
        let moved = self.pages.iter().map(|page| Arc::new(page.on_device(cx.the_gpu()))).collect();
        (self.pages, self.place, self.header) = (moved, place, None);
    }

    /// A copy on the host.
    fn on_host(&self) -> KvCache {
        let copy = |page: &Arc<Page>| match &**page {
            Page::Device(buffer) => {
                Arc::new(Page::from_device(buffer, self.num_kv_heads, self.head_dim, self.kv_type))
            }
            _ => Arc::clone(page),
        };
        KvCache { pages: self.pages.iter().map(copy).collect(), place: Place::Host, header: None, ..*self }
    }

    /// What kernels read of it.
    pub(super) fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// [`KvCache::append`] on a device: makes room, then a kernel writes.
    fn append_on_device(&mut self, k: DeviceView<'_>, v: DeviceView<'_>, rows: usize) {
        assert!(self.place == Place::Device, "append: a cache lies where its keys and values are computed");
        if !self.len.is_multiple_of(PAGE)
            && let Some(last) = self.pages.last_mut()
        {
            Arc::make_mut(last);
        }
        let bytes = 2 * PAGE * self.width() * self.kv_type.bytes();
        while self.pages.len() * PAGE < self.len + rows {
            self.pages.push(Arc::new(Page::Device(k.gpu.buffer(bytes))));
        }
        let addresses: Vec<u64> = self.pages.iter().map(|page| page.address()).collect();
        Header::update(&mut self.header, k.gpu, self.len, &addresses);
        if let Some(header) = &self.header {
            super::cuda::append(self, header, k, v, rows);
        }
        self.len += rows;
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of key/value heads (K).
    pub fn num_kv_heads(&self) -> usize {
        self.num_kv_heads
    }

    /// Width of a head (D).
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Type of the elements.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Bytes of the pages, shared or not.
    pub fn bytes(&self) -> usize {
        self.pages.len() * 2 * PAGE * self.width() * self.kv_type.bytes()
    }

    /// K·D.
    fn width(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    pub(super) fn page(&self, b: usize) -> &Page {
        &self.pages[b]
    }

    /// The page of the next position, not shared with any copy, and the position within it.
    fn next_slot(&mut self) -> (&mut Page, usize) {
        let slot = self.len % PAGE;
        if slot == 0 {
            self.pages.push(Arc::new(Page::new(self.num_kv_heads, self.head_dim, self.kv_type)));
        }
        (Arc::make_mut(self.pages.last_mut().expect("pushed when the last one filled up")), slot)
    }

    /// Appends one position per row of `k` and `v`, both (l, K·D), rounded to the type of the cache.
    ///
    /// # Panics
    /// If the shapes do not agree.
    pub fn append(&mut self, k: View<'_>, v: View<'_>) {
        let width = self.width();
        assert!(k.cols() == width && v.cols() == width && k.rows() == v.rows(), "append: shapes of k and v");
        if let (Some(keys), Some(values)) = (k.device(), v.device()) {
            return self.append_on_device(keys, values, k.rows());
        }
        for row in 0..k.rows() {
            match self.next_slot() {
                (Page::F32(page), slot) => page.put(slot, k.row(row), v.row(row), |x| x),
                (Page::F16(page), slot) => page.put(slot, k.row(row), v.row(row), round_to_f16),
                (Page::Device(_), _) => panic!("append: a cache lies where its keys and values are computed"),
            }
            self.len += 1;
        }
    }

    /// Keys and values as plain arrays, each (len, K·D), in the type of the cache.
    pub fn elements(&self) -> (Elements, Elements) {
        if self.place == Place::Device {
            return self.on_host().elements();
        }
        match self.kv_type {
            KvType::F32 => {
                let (keys, values) = self.rows(Page::as_f32);
                (Elements::F32(keys), Elements::F32(values))
            }
            KvType::F16 => {
                let (keys, values) = self.rows(Page::as_f16);
                (Elements::F16(keys), Elements::F16(values))
            }
        }
    }

    fn rows<E: Copy>(&self, typed: fn(&Page) -> Option<&PageOf<E>>) -> (Vec<E>, Vec<E>) {
        let mut keys = Vec::with_capacity(self.len * self.width());
        let mut values = Vec::with_capacity(self.len * self.width());
        for position in 0..self.len {
            let page = typed(&self.pages[position / PAGE]).expect("all pages are of the type of the cache");
            page.get(position % PAGE, &mut keys, &mut values);
        }
        (keys, values)
    }

    /// Appends positions as [`KvCache::elements`] gave them, without rounding.
    ///
    /// # Panics
    /// If the cache is on a device, the types differ, or there are not whole rows, or not as many keys as values.
    pub fn append_elements(&mut self, keys: &Elements, values: &Elements) {
        let (width, len) = (self.width(), keys.len());
        assert!(len == values.len() && len.is_multiple_of(width.max(1)), "append_elements: whole rows");
        for at in (0..len).step_by(width.max(1)) {
            let row = at..at + width;
            match (self.next_slot(), keys, values) {
                ((Page::F32(page), slot), Elements::F32(k), Elements::F32(v)) => {
                    page.put(slot, &k[row.clone()], &v[row], |x| x);
                }
                ((Page::F16(page), slot), Elements::F16(k), Elements::F16(v)) => {
                    page.put(slot, &k[row.clone()], &v[row], |x| x);
                }
                _ => panic!("append_elements: elements of a cache of {}", self.kv_type),
            }
            self.len += 1;
        }
    }
}

/// See [`KvType::F16`].
pub(super) fn round_to_f16(x: f32) -> u16 {
    /// Largest finite f16.
    const F16_MAX: f32 = 65504.0;
    tangelo_core::float::f32_to_f16(x.clamp(-F16_MAX, F16_MAX)) // `clamp` keeps NaN.
}
