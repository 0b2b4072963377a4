//! Keys and values of one attention layer of one sequence, in pages of 64 positions.
//!
//! A full page never changes, so copies of a cache share pages: copying a sequence costs a pointer per page,
//! and appending to a shared, unfinished page copies that page first.
//!
//! Pages are on the host or on a device; a page moves by a copy.
//!
//! A cache of f16 takes half the memory and half the time to read, and is lossy: see [`KvType::F16`].

use super::cuda::DevicePages;
use super::page::{Page, PageOf};
use crate::device::{Cx, Place, View};
use std::fmt;
use std::sync::Arc;

const ELSEWHERE: &str = "a cache lies where what is done with it is computed; move it there first";

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
#[derive(Clone, Debug)]
pub struct KvCache {
    pages: Pages,
    len: usize,
    num_kv_heads: usize,
    head_dim: usize,
    kv_type: KvType,
}

#[derive(Clone, Debug)]
enum Pages {
    Host(Vec<Arc<Page>>),
    Device(DevicePages),
}

impl KvCache {
    /// An empty cache, on the host.
    pub fn new(num_kv_heads: usize, head_dim: usize, kv_type: KvType) -> KvCache {
        KvCache { pages: Pages::Host(Vec::new()), len: 0, num_kv_heads, head_dim, kv_type }
    }

    /// Moves all pages to a place. Copies of this cache stay where they are.
    pub fn move_to(&mut self, cx: &Cx, place: Place) {
        match (&self.pages, place) {
            (Pages::Host(pages), Place::Device) => {
                self.pages = Pages::Device(DevicePages::from_host(cx.the_gpu(), pages));
            }
            (Pages::Device(_), Place::Host) => self.pages = Pages::Host(self.pages_on_host(0)),
            _ => {}
        }
    }

    /// Where the pages are.
    pub fn place(&self) -> Place {
        match &self.pages {
            Pages::Host(_) => Place::Host,
            Pages::Device(_) => Place::Device,
        }
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
        let num_pages = match &self.pages {
            Pages::Host(pages) => pages.len(),
            Pages::Device(pages) => pages.len(),
        };
        num_pages * self.page_bytes()
    }

    /// Which pages these are: equal numbers for pages shared with another cache, as long as both live.
    pub fn page_ids(&self) -> impl Iterator<Item = usize> + '_ {
        let (host, device) = match &self.pages {
            Pages::Host(pages) => (pages.as_slice(), None),
            Pages::Device(pages) => (&[][..], Some(pages.ids())),
        };
        host.iter().map(|page| Arc::as_ptr(page).addr()).chain(device.into_iter().flatten())
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        2 * PAGE * self.width() * self.kv_type.bytes()
    }

    /// K·D.
    pub(super) fn width(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Page `b`.
    ///
    /// # Panics
    /// If it is on a device.
    pub(super) fn page(&self, b: usize) -> &Page {
        match &self.pages {
            Pages::Host(pages) => &pages[b],
            Pages::Device(_) => panic!("{ELSEWHERE}"),
        }
    }

    /// The pages on a device.
    ///
    /// # Panics
    /// If they are on the host.
    pub(super) fn device_pages(&self) -> &DevicePages {
        match &self.pages {
            Pages::Host(_) => panic!("{ELSEWHERE}"),
            Pages::Device(pages) => pages,
        }
    }

    /// [`KvCache::device_pages`].
    pub(super) fn device_pages_mut(&mut self) -> &mut DevicePages {
        match &mut self.pages {
            Pages::Host(_) => panic!("{ELSEWHERE}"),
            Pages::Device(pages) => pages,
        }
    }

    /// Counts positions that a kernel appends.
    pub(super) fn count(&mut self, positions: usize) {
        self.len += positions;
    }

    /// The pages from the `first` on, shared or copied.
    fn pages_on_host(&self, first: usize) -> Vec<Arc<Page>> {
        match &self.pages {
            Pages::Host(pages) => pages[first..].to_vec(),
            Pages::Device(pages) => pages.to_host(first, &self.new_page()),
        }
    }

    fn new_page(&self) -> Page {
        Page::new(self.num_kv_heads, self.head_dim, self.kv_type)
    }

    /// The page of the next position, not shared with any copy, and the position within it.
    fn next_slot(&mut self) -> (&mut Page, usize) {
        let slot = self.len % PAGE;
        let page = (slot == 0).then(|| Arc::new(self.new_page()));
        let Pages::Host(pages) = &mut self.pages else { panic!("{ELSEWHERE}") };
        pages.extend(page);
        (Arc::make_mut(pages.last_mut().expect("pushed when the last one filled up")), slot)
    }

    /// Appends one position per row of `k` and `v`, which are on the host as the pages are.
    pub(super) fn append_on_host(&mut self, k: View<'_>, v: View<'_>) {
        for row in 0..k.rows() {
            match self.next_slot() {
                (Page::F32(page), slot) => page.put(slot, k.row(row), v.row(row), |x| x),
                (Page::F16(page), slot) => page.put(slot, k.row(row), v.row(row), round_to_f16),
            }
            self.len += 1;
        }
    }

    /// Appends one position per row of `k` and `v`, both (l, K·D): [`super::append`] for one sequence.
    pub fn append(&mut self, k: View<'_>, v: View<'_>) {
        super::append(k, v, [(0..k.rows(), self)]);
    }

    /// Keys and values as plain arrays, each (len, K·D), in the type of the cache, wherever they are.
    pub fn elements(&self) -> (Elements, Elements) {
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
        let pages = self.pages_on_host(0);
        for position in 0..self.len {
            let page = typed(&pages[position / PAGE]).expect("all pages are of the type of the cache");
            page.get(position % PAGE, &mut keys, &mut values);
        }
        (keys, values)
    }

    /// Appends positions as [`KvCache::elements`] gave them, without rounding.
    ///
    /// # Panics
    /// If the types differ, or there are not whole rows, or not as many keys as values.
    pub fn append_elements(&mut self, keys: &Elements, values: &Elements) {
        if matches!(self.pages, Pages::Device(_)) {
            return self.append_elements_to_device(keys, values);
        }
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

    /// Fills the pages from the unfinished one on in a cache on the host, and moves them.
    fn append_elements_to_device(&mut self, keys: &Elements, values: &Elements) {
        let first = self.len / PAGE;
        let (pages, len) = (self.pages_on_host(first), self.len % PAGE);
        let mut tail = KvCache { pages: Pages::Host(pages), len, ..*self };
        tail.append_elements(keys, values);
        let Pages::Host(pages) = &tail.pages else { unreachable!("made on the host") };
        self.device_pages_mut().replace(first, pages);
        self.len = first * PAGE + tail.len;
    }
}

/// See [`KvType::F16`].
pub(super) fn round_to_f16(x: f32) -> u16 {
    /// Largest finite f16.
    const F16_MAX: f32 = 65504.0;
    tangelo_core::float::f32_to_f16(x.clamp(-F16_MAX, F16_MAX)) // `clamp` keeps NaN.
}
