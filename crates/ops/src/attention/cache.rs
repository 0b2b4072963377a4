//! Keys and values of one attention layer of one sequence, in pages of 64 positions.
//!
//! A full page never changes, so copies of a cache share pages: copying a sequence costs a pointer per page,
//! and appending to a shared, unfinished page copies that page first.

use crate::device::View;
use std::sync::Arc;

/// Positions per page, and per block of the softmax.
pub const PAGE: usize = 64;

/// Keys are stored transposed, so that positions lie in the lanes while a score is summed in the order of d.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// (K, D, 64).
    keys: Vec<f32>,
    /// (K, 64, D).
    values: Vec<f32>,
}

impl Page {
    /// (D, 64).
    pub(super) fn keys(&self, kv_head: usize, head_dim: usize) -> &[f32] {
        &self.keys[kv_head * head_dim * PAGE..][..head_dim * PAGE]
    }

    /// (64, D).
    pub(super) fn values(&self, kv_head: usize, head_dim: usize) -> &[f32] {
        &self.values[kv_head * head_dim * PAGE..][..head_dim * PAGE]
    }
}

/// The cache. Cloning shares all pages.
#[derive(Clone, Debug)]
pub struct KvCache {
    pages: Vec<Arc<Page>>,
    len: usize,
    num_kv_heads: usize,
    head_dim: usize,
}

impl KvCache {
    /// An empty cache.
    pub fn new(num_kv_heads: usize, head_dim: usize) -> KvCache {
        KvCache { pages: Vec::new(), len: 0, num_kv_heads, head_dim }
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

    /// Bytes of the pages, shared or not.
    pub fn bytes(&self) -> usize {
        self.pages.len() * Self::bytes_per_page(self.num_kv_heads, self.head_dim)
    }

    /// Bytes of one page: 64 positions of keys and values in f32.
    pub fn bytes_per_page(num_kv_heads: usize, head_dim: usize) -> usize {
        2 * PAGE * num_kv_heads * head_dim * size_of::<f32>()
    }

    pub(super) fn page(&self, block: usize) -> &Page {
        &self.pages[block]
    }

    /// Appends one position per row of `k` and `v`, both (l, K·D).
    ///
    /// # Panics
    /// If the shapes do not agree.
    pub fn append(&mut self, k: View<'_>, v: View<'_>) {
        let width = self.num_kv_heads * self.head_dim;
        assert!(k.cols() == width && v.cols() == width && k.rows() == v.rows(), "append: shapes of k and v");
        for row in 0..k.rows() {
            let slot = self.len % PAGE;
            if slot == 0 {
                let zeros = vec![0.0; width * PAGE];
                self.pages.push(Arc::new(Page { keys: zeros.clone(), values: zeros }));
            }
            let page = Arc::make_mut(self.pages.last_mut().expect("pushed when the last one filled up"));
            for (at, k) in k.row(row).iter().enumerate() {
                page.keys[at * PAGE + slot] = *k;
            }
            for (head, v) in v.row(row).chunks_exact(self.head_dim).enumerate() {
                page.values[(head * PAGE + slot) * self.head_dim..][..self.head_dim].copy_from_slice(v);
            }
            self.len += 1;
        }
    }

    /// Keys and values as plain arrays, each (len, K·D): what [`KvCache::append`] was given.
    pub fn rows(&self) -> (Vec<f32>, Vec<f32>) {
        let width = self.num_kv_heads * self.head_dim;
        let mut keys = Vec::with_capacity(self.len * width);
        let mut values = Vec::with_capacity(self.len * width);
        for position in 0..self.len {
            let (page, slot) = (&self.pages[position / PAGE], position % PAGE);
            keys.extend((0..width).map(|at| page.keys[at * PAGE + slot]));
            for head in 0..self.num_kv_heads {
                let at = (head * PAGE + slot) * self.head_dim;
                values.extend_from_slice(&page.values[at..at + self.head_dim]);
            }
        }
        (keys, values)
    }
}
