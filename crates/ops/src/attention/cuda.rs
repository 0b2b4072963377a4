//! On a device: pages, what kernels are told of them, and which kernels run.
//!
//! A page has the layout of [`super::page`], in a buffer of its own. A *table* per cache holds its length and the
//! addresses of its pages (`Cache` of cache.cuh): kernels look them up, so that the launches of a step of decoding are those
//! of the step before, and can be one graph. The host adds the address of a page before it is needed, once in 64 tokens.
//!
//! Few tokens are served page by page at the same time (pages.cu), for which what each page comes to is kept in memory;
//! many tokens are served in tiles that go through the pages in order and keep it in registers (tiles.cu).

use super::cache::{KvCache, KvType, PAGE};
use super::page::Page;
use crate::cuda::{Arg, Buffer, Gpu, Grid, Plain, launch};
use crate::device::{DeviceView, Mat};
use crate::sequences::{SEQUENCES_MAX, pair};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Threads of every block.
const THREADS: u32 = 128;
/// 64-bit words of a `CachedSequence` of cache.cuh.
const SEQUENCE_WORDS: usize = 3;
/// Words of the smallest table: what memory is given out in, 31 pages.
const TABLE_WORDS_MIN: usize = 32;
/// Most tokens of a sequence that are served page by page. The keys and values of a page are then read a few times, while
/// tiles of so few tokens would leave most of the device idle.
const FEW_TOKENS: usize = 16;
/// Bytes for what pages come to. A launch takes fewer tokens if they need more, but at least one.
const PARTIALS_BYTES: usize = 64 << 20;
/// Widest head for which there are tiles.
const TILE_DIM_MAX: usize = 256;
/// Pages of a block of pages.cu, and columns of a block that combines.
const PAGES_PER_BLOCK: usize = 4;
const COLUMNS_PER_BLOCK: usize = 32;

/// Pages on a device. A copy shares them, and has a table of its own.
#[derive(Debug)]
pub(super) struct DevicePages {
    gpu: Gpu,
    pages: Vec<Arc<Buffer>>,
    /// Made when it is first asked for. Right at any point of the stream.
    table: OnceLock<Buffer>,
}

impl Clone for DevicePages {
    fn clone(&self) -> DevicePages {
        DevicePages::new(&self.gpu, self.pages.clone())
    }
}

impl DevicePages {
    fn new(gpu: &Gpu, pages: Vec<Arc<Buffer>>) -> DevicePages {
        DevicePages { gpu: gpu.clone(), pages, table: OnceLock::new() }
    }

    pub(super) fn from_host(gpu: &Gpu, pages: &[Arc<Page>]) -> DevicePages {
        DevicePages::new(gpu, pages.iter().map(|page| Arc::new(to_device(gpu, page))).collect())
    }

    /// See `KvCache::page_ids`.
    pub(super) fn ids(&self) -> impl Iterator<Item = usize> + '_ {
        self.pages.iter().map(|page| Arc::as_ptr(page).addr())
    }

    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    /// A copy of the pages from the `first` on; `blank` is a page to be filled.
    pub(super) fn to_host(&self, first: usize, blank: &Page) -> Vec<Arc<Page>> {
        self.pages[first..].iter().map(|buffer| Arc::new(to_host(buffer, blank.clone()))).collect()
    }

    /// Copies of these pages instead of all from the `first` on.
    pub(super) fn replace(&mut self, first: usize, pages: &[Arc<Page>]) {
        self.pages.truncate(first);
        self.pages.extend(pages.iter().map(|page| Arc::new(to_device(&self.gpu, page))));
        self.table.take();
    }

    /// Makes room for positions `len..end`, on pages that no copy shares.
    fn reserve(&mut self, len: usize, end: usize, page_bytes: usize) {
        let unfinished = (end > len && !len.is_multiple_of(PAGE)).then_some(len / PAGE);
        let shared = unfinished.filter(|&b| Arc::strong_count(&self.pages[b]) > 1);
        if let Some(b) = shared {
            Arc::make_mut(&mut self.pages[b]);
        }
        let changed = shared.unwrap_or(self.pages.len());
        while self.pages.len() < end.div_ceil(PAGE) {
            self.pages.push(Arc::new(self.gpu.buffer(page_bytes)));
        }
        if changed == self.pages.len() {
            return;
        }
        let bytes = size_of::<u64>() * (1 + self.pages.len());
        // A table that is too small is forgotten, and one of twice the size made when it is asked for.
        if let Some(table) = self.table.take().filter(|table| table.len() >= bytes) {
            // Launches that have been recorded do not look at pages beyond those they were launched with, and copying a
            // page has ended recording.
            let addresses: Vec<u64> = self.addresses(changed).collect();
            table.write_ahead(size_of::<u64>() * (1 + changed), &addresses);
            self.table = OnceLock::from(table);
        }
    }

    fn addresses(&self, first: usize) -> impl Iterator<Item = u64> {
        self.pages[first..].iter().map(|page| page.address())
    }

    /// Address of the table of a cache of `len` positions.
    fn table(&self, len: usize) -> u64 {
        let make = || {
            let words: Vec<u64> = std::iter::once(len as u64).chain(self.addresses(0)).collect();
            let capacity = words.len().next_power_of_two().max(TABLE_WORDS_MIN);
            let table = self.gpu.buffer(size_of::<u64>() * capacity);
            table.write(0, &words);
            table
        };
        self.table.get_or_init(make).address()
    }
}

fn to_device(gpu: &Gpu, page: &Page) -> Buffer {
    /// A buffer with these elements.
    fn copied<E: Plain>(gpu: &Gpu, data: &[E]) -> Buffer {
        let buffer = gpu.buffer(size_of_val(data));
        buffer.write(0, data);
        buffer
    }
    match page {
        Page::F32(page) => copied(gpu, page.data()),
        Page::F16(page) => copied(gpu, page.data()),
    }
}

/// `page` with the contents of the buffer.
fn to_host(buffer: &Buffer, mut page: Page) -> Page {
    match &mut page {
        Page::F32(page) => buffer.read(0, page.data_mut()),
        Page::F16(page) => buffer.read(0, page.data_mut()),
    }
    page
}

/// Rows of one sequence, as kernels are given them.
#[derive(Clone, Debug)]
struct Sequence {
    table: u64,
    rows: Range<usize>,
    /// Positions after those of the rows.
    behind: usize,
    /// Positions in all.
    len: usize,
}

impl Sequence {
    /// Its rows, at most `count` at a time.
    fn slices(&self, count: usize) -> impl Iterator<Item = Sequence> {
        self.rows.clone().step_by(count).map(move |start| {
            let end = self.rows.end.min(start + count);
            Sequence { rows: start..end, behind: self.behind + self.rows.end - end, ..*self }
        })
    }
}

/// `CachedSequences` of cache.cuh. What is not used is zero, so that equal batches make equal arguments.
fn words(sequences: &[Sequence]) -> [u64; SEQUENCES_MAX * SEQUENCE_WORDS] {
    let mut words = [0; SEQUENCES_MAX * SEQUENCE_WORDS];
    for (words, s) in words.chunks_exact_mut(SEQUENCE_WORDS).zip(sequences) {
        words.copy_from_slice(&[s.table, pair(s.rows.start, s.rows.len()), pair(s.behind, 0)]);
    }
    words
}

fn longest(sequences: &[Sequence]) -> usize {
    sequences.iter().map(|s| s.rows.len()).max().unwrap_or(0)
}

/// [`super::append`].
pub(super) fn append(k: DeviceView<'_>, v: DeviceView<'_>, mut sequences: Vec<(Range<usize>, &mut KvCache)>) {
    for some in sequences.chunks_mut(SEQUENCES_MAX) {
        let (kv_heads, dim, kv_type) = (some[0].1.num_kv_heads(), some[0].1.head_dim(), some[0].1.kv_type());
        let grown: Vec<Sequence> = some.iter_mut().map(|(rows, cache)| grow(rows, cache)).collect();
        let name = match kv_type {
            KvType::F32 => "attention_append_f32",
            KvType::F16 => "attention_append_f16",
        };
        // Strips of sixteen positions that so many rows can touch.
        let strips = (longest(&grown) + 14) / 16 + 1;
        let grid = Grid::of([strips, kv_heads, some.len()], THREADS);
        let words = words(&grown);
        launch!(k.gpu, name, grid, Arg::Words(&words), k.address, k.stride, v.address, v.stride, dim);
    }
}

/// Gives a cache room for rows that a kernel is about to append.
fn grow(rows: &Range<usize>, cache: &mut KvCache) -> Sequence {
    let (bytes, len) = (cache.page_bytes(), cache.len());
    let pages = cache.device_pages_mut();
    pages.reserve(len, len + rows.len(), bytes);
    let table = pages.table(len);
    cache.count(rows.len());
    Sequence { table, rows: rows.clone(), behind: 0, len: len + rows.len() }
}

/// H, K, D, and the type of the caches.
#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    kv_type: KvType,
}

/// [`super::attention`] of a matrix of `rows` rows, `cols` wide.
pub(super) fn attention<'a>(
    q: DeviceView<'_>,
    [rows, cols]: [usize; 2],
    sequences: impl Iterator<Item = (Range<usize>, &'a KvCache)>,
) -> Mat {
    let out = Mat::on_device(q.gpu, rows, cols);
    let (mut few, mut many, mut shape) = (Vec::new(), Vec::new(), None);
    for (rows, cache) in sequences.filter(|(rows, _)| !rows.is_empty()) {
        let (kv_heads, dim, kv_type) = (cache.num_kv_heads(), cache.head_dim(), cache.kv_type());
        shape = Some(Shape { heads: cols / dim, kv_heads, dim, kv_type });
        let (table, len) = (cache.device_pages().table(cache.len()), cache.len());
        let is_few = rows.len() <= FEW_TOKENS || dim > TILE_DIM_MAX;
        if is_few { &mut few } else { &mut many }.push(Sequence { table, rows, behind: 0, len });
    }
    if let Some(shape) = shape {
        by_pages(q, &shape, &few, &out);
        by_tiles(q, &shape, &many, &out);
    }
    out
}

/// All pages at the same time.
fn by_pages(q: DeviceView<'_>, shape: &Shape, sequences: &[Sequence], out: &Mat) {
    let Some(longest_cache) = sequences.iter().map(|s| s.len).max() else { return };
    // Rounded up, so that grids and addresses change rarely.
    let capacity = longest_cache.div_ceil(PAGE).next_power_of_two().max(PAGES_PER_BLOCK);
    let width = shape.dim.next_multiple_of(COLUMNS_PER_BLOCK);
    let floats_per_token = shape.heads * capacity * (2 + width);
    let tokens_per_launch = (PARTIALS_BYTES / size_of::<f32>() / floats_per_token).max(1);
    let tokens = longest(sequences).min(FEW_TOKENS).min(tokens_per_launch);
    let slices: Vec<Sequence> = sequences.iter().flat_map(|s| s.slices(tokens)).collect();
    for some in slices.chunks((tokens_per_launch / tokens).min(SEQUENCES_MAX)) {
        let queries = some.len() * tokens * shape.heads;
        let memory = q.gpu.buffer(size_of::<f32>() * queries * capacity * (2 + width));
        let [m, z, o] =
            [0, 1, 2].map(|i| memory.address() + (i * queries * capacity * size_of::<f32>()) as u64);
        let partials = [m, z, o, pair(capacity, tokens)];
        let (words, partials) = (words(some), Arg::Words(&partials));
        let words = Arg::Words(&words);

        let rows = tokens * (shape.heads / shape.kv_heads);
        let (name, rows_per_pass) = pages_kernel(rows, shape.kv_type);
        let passes = shape.kv_heads * rows.div_ceil(rows_per_pass);
        let grid = Grid::of([capacity / PAGES_PER_BLOCK, passes, some.len()], THREADS);
        let (heads, kv_heads, dim) = (shape.heads, shape.kv_heads, shape.dim);
        launch!(q.gpu, name, grid, words, q.address, q.stride, heads, kv_heads, dim, shape.scale(), partials);
        let grid = Grid::of([width / COLUMNS_PER_BLOCK, tokens * heads, some.len()], THREADS);
        launch!(q.gpu, "attention_combine", grid, words, partials, out, heads, dim);
    }
}

/// The kernel that takes `rows` queries through a page with the least waste, and how many it takes at a time.
fn pages_kernel(rows: usize, kv_type: KvType) -> (&'static str, usize) {
    match (rows, kv_type) {
        (..=2, KvType::F32) => ("attention_pages_2_f32", 2),
        (3..=4, KvType::F32) => ("attention_pages_4_f32", 4),
        (5, KvType::F32) => ("attention_pages_5_f32", 5),
        (6.., KvType::F32) => ("attention_pages_8_f32", 8),
        (..=2, KvType::F16) => ("attention_pages_2_f16", 2),
        (3..=4, KvType::F16) => ("attention_pages_4_f16", 4),
        (5, KvType::F16) => ("attention_pages_5_f16", 5),
        (6.., KvType::F16) => ("attention_pages_8_f16", 8),
    }
}

/// Tiles of queries, each through all pages.
fn by_tiles(q: DeviceView<'_>, shape: &Shape, sequences: &[Sequence], out: &Mat) {
    // Rows of a tile and floats of a query in shared memory, by the width of a head.
    let (name, rows, pitch) = match (shape.dim, shape.kv_type) {
        (..=64, KvType::F32) => ("attention_tiles_64_f32", 64, 68),
        (..=128, KvType::F32) => ("attention_tiles_128_f32", 64, 132),
        (_, KvType::F32) => ("attention_tiles_256_f32", 32, 260),
        (..=64, KvType::F16) => ("attention_tiles_64_f16", 64, 68),
        (..=128, KvType::F16) => ("attention_tiles_128_f16", 64, 132),
        (_, KvType::F16) => ("attention_tiles_256_f16", 32, 260),
    };
    // `Tile::Shared` of tiles.cu: queries, weights, a part of a page, seven numbers per row.
    let shared = size_of::<f32>() * (rows * pitch + rows * (PAGE + 4) + 4 * (PAGE * 16 + 16) + 7 * rows);
    let per_kv_head = shape.heads / shape.kv_heads;
    for some in sequences.chunks(SEQUENCES_MAX) {
        let tiles = (longest(some) * per_kv_head).div_ceil(rows);
        let grid = Grid::of([tiles, shape.kv_heads, some.len()], THREADS).with_shared(shared);
        let words = words(some);
        let (dim, scale) = (shape.dim, shape.scale());
        launch!(q.gpu, name, grid, Arg::Words(&words), q.address, q.stride, per_kv_head, dim, scale, out);
    }
}

impl Shape {
    fn scale(&self) -> f32 {
        super::scale(self.dim)
    }
}
