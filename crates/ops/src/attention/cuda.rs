//! On a device: headers of caches, appending, and which kernels attend.

use super::cache::{KvCache, KvType, PAGE};
use crate::cuda::{Arg, Buffer, Gpu, Grid, launch};
use crate::device::{DeviceView, Mat};
use crate::sequences::{SEQUENCES_MAX, pair};
use std::ops::Range;

/// Words of a header before the addresses of pages: the length, and a ticket.
const HEADER_WORDS: usize = 2;
/// Pages that a header has room for at first.
const PAGES_FIRST: usize = 64;
/// Rows (token, head) of a tile, and columns of outputs that the tiles are made for.
const TILE_ROWS: usize = 64;
const TILE_DIMS: [usize; 2] = [64, 128];
/// Widest head, as in kernel.cu.
const DIM_MAX: usize = 256;
/// Most tokens of a sequence whose pages are computed at the same time, if what they leave takes at most so many bytes.
const FEW_TOKENS: usize = 16;
const SCRATCH_BYTES_MAX: usize = 64 << 20;

/// What kernels read of a cache: its length, which appending advances, and where its pages are.
#[derive(Debug)]
pub(super) struct Header {
    buffer: Buffer,
    /// The addresses as they were written last.
    pages: Vec<u64>,
}

impl Header {
    /// Brings a header up to date: `len` positions, pages at `pages`. Only what differs is written, so that a step of
    /// decoding writes nothing but the address of a new page.
    pub(super) fn update(header: &mut Option<Header>, gpu: &Gpu, len: usize, pages: &[u64]) {
        let known = header.take().filter(|h| h.capacity() >= pages.len());
        let header = header.insert(known.unwrap_or_else(|| Header::new(gpu, len, pages.len())));
        for (i, &page) in pages.iter().enumerate() {
            if header.pages.get(i) != Some(&page) {
                // No launch of this step has looked at this entry: a sequence is appended to once.
                header.buffer.write_ahead((HEADER_WORDS + i) * size_of::<u64>(), &[page]);
            }
        }
        header.pages.clear();
        header.pages.extend_from_slice(pages);
    }

    fn new(gpu: &Gpu, len: usize, pages: usize) -> Header {
        let capacity = pages.next_power_of_two().max(PAGES_FIRST);
        let buffer = gpu.buffer((HEADER_WORDS + capacity) * size_of::<u64>());
        buffer.write(0, &[len as u64, 0]);
        Header { buffer, pages: Vec::with_capacity(capacity) }
    }

    fn capacity(&self) -> usize {
        self.buffer.len() / size_of::<u64>() - HEADER_WORDS
    }

    fn address(&self) -> u64 {
        self.buffer.address()
    }
}

/// `Shape` of kernel.cu.
fn shape(cache: &KvCache, heads: usize) -> [u64; 2] {
    let scale = 1.0 / (cache.head_dim() as f32).sqrt();
    let dim = u64::try_from(cache.head_dim()).expect("a width");
    [pair(heads, cache.num_kv_heads()), dim | u64::from(scale.to_bits()) << 32]
}

/// The kernel of a family for the type of a cache.
macro_rules! of_type {
    ($kv_type:expr, $name:literal) => {
        match $kv_type {
            KvType::F32 => concat!($name, "_f32"),
            KvType::F16 => concat!($name, "_f16"),
        }
    };
}

/// Writes `rows` rows of keys and values behind the last position; the pages are there.
pub(super) fn append(cache: &KvCache, header: &Header, k: DeviceView<'_>, v: DeviceView<'_>, rows: usize) {
    launch!(
        k.gpu,
        of_type!(cache.kv_type(), "attention_append"),
        Grid::new(rows, 256),
        header.address(),
        Arg::Words(&shape(cache, cache.num_kv_heads())),
        k.address,
        k.stride,
        v.address,
        v.stride
    );
}

/// [`super::attention`] of a matrix of `l` rows and `width` columns on a device.
pub(super) fn attention(
    q: DeviceView<'_>,
    l: usize,
    width: usize,
    sequences: &[(Range<usize>, &KvCache)],
) -> Mat {
    let out = Mat::on_device(q.gpu, l, width);
    let waiting: Vec<_> = sequences.iter().filter(|(rows, _)| !rows.is_empty()).collect();
    for batch in waiting.chunks(SEQUENCES_MAX) {
        attend(q, l, width, batch, &out);
    }
    out
}

fn attend(q: DeviceView<'_>, l: usize, width: usize, batch: &[&(Range<usize>, &KvCache)], out: &Mat) {
    let cache = batch[0].1;
    let (dim, kv_heads, heads) = (cache.head_dim(), cache.num_kv_heads(), width / cache.head_dim());
    let group = heads / kv_heads;
    assert!(dim <= DIM_MAX, "attention: heads of {dim}, at most {DIM_MAX} on a device");
    let mut words = [0; 2 * SEQUENCES_MAX];
    for (words, (rows, cache)) in words.chunks_exact_mut(2).zip(batch) {
        let header = cache.header().expect("the rows have been appended");
        words.copy_from_slice(&[header.address(), pair(rows.start, rows.len())]);
    }
    let shape = shape(cache, heads);
    let most_rows = batch.iter().map(|(rows, _)| rows.len()).max().unwrap_or(0);
    let pages = batch.iter().map(|(_, cache)| cache.len().div_ceil(PAGE)).max().unwrap_or(0);
    // Grids that grow in powers of two change a graph seldom; blocks without a page end at once.
    let pages = pages.next_power_of_two();
    let scratch_bytes = l * heads * pages * (dim + 2) * size_of::<f32>();
    let tile = TILE_DIMS.iter().position(|wide| dim <= *wide).filter(|_| group <= TILE_ROWS);
    let is_few = most_rows <= FEW_TOKENS && scratch_bytes <= SCRATCH_BYTES_MAX;
    if let Some(tile) = tile.filter(|_| !is_few && most_rows > 1) {
        let kernel = match tile {
            0 => of_type!(cache.kv_type(), "attention_tile_64"),
            _ => of_type!(cache.kv_type(), "attention_tile_128"),
        };
        let shared = (dim * TILE_ROWS + PAGE * TILE_ROWS + PAGE * TILE_DIMS[tile]) * size_of::<f32>();
        let grid = Grid::of([most_rows.div_ceil(TILE_ROWS / group), kv_heads, batch.len()], 256);
        let (sequences, shape) = (Arg::Words(&words), Arg::Words(&shape));
        launch!(q.gpu, kernel, grid.with_shared(shared), sequences, shape, q.address, q.stride, out);
        return;
    }
    let outputs = q.gpu.buffer(l * heads * pages * dim * size_of::<f32>());
    let sums = q.gpu.buffer(l * heads * pages * 2 * size_of::<f32>());
    let rows = batch.len() * most_rows;
    launch!(
        q.gpu,
        of_type!(cache.kv_type(), "attention_pages"),
        Grid::of([pages, kv_heads, rows], 128),
        Arg::Words(&words),
        Arg::Words(&shape),
        most_rows,
        pages,
        q.address,
        q.stride,
        &outputs,
        &sums
    );
    launch!(
        q.gpu,
        "attention_combine",
        Grid::of([heads, rows, 1], 128),
        Arg::Words(&words),
        Arg::Words(&shape),
        most_rows,
        pages,
        &outputs,
        &sums,
        out
    );
}
