//! Rounding activations to 8 bits per block of 32, for the integer matmul.
//!
//! ```text
//! M = max |x|;  d = M / 127;  q[i] = round(x[i] · (127 / M)), ties to even
//! ```
//! A block whose M is below 2⁻¹⁰⁰ is zero (d = 0, q = 0). A block with an infinity or NaN has d = NaN, q = 0, so
//! that the row's results are NaN rather than plausible numbers.
//!
//! A block is one record of 64 bytes ([`Block`]) that also holds what the kernels need of its sums. Rows lie in tiles
//! as high as a kernel's: block 0 of every row of the tile, then block 1, … so that a kernel reads one stream. The last
//! tile is filled up with rows of zeros.

#[cfg(target_arch = "x86_64")]
mod avx2;
pub(crate) mod cuda;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::device::{Cx, Mat, View};
use crate::dispatch::{Impl, Simd};

/// Elements that share a scale.
pub const BLOCK: usize = 32;
/// Below this a block counts as zero (its reciprocal would overflow).
pub(crate) const TINY: f32 = f32::from_bits((127 - 100) << 23);

/// A part of a block, as an index of its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Elements 0..16.
    First,
    /// Elements 16..32.
    Second,
    /// All.
    Whole,
}

impl Part {
    /// The part that elements `at .. at + group` of a row are of their block.
    #[inline(always)]
    pub(crate) fn of(at: usize, group: usize) -> Part {
        match (group, at % BLOCK) {
            (BLOCK, _) => Part::Whole,
            (_, 0) => Part::First,
            _ => Part::Second,
        }
    }

    /// Its first element.
    #[inline(always)]
    pub(crate) fn first(self) -> usize {
        if self == Part::Second { BLOCK / 2 } else { 0 }
    }
}

/// 32 rounded activations.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// The codes.
    pub q: [i8; BLOCK],
    /// Their scale.
    pub d: f32,
    /// d · f32(Σ q) over all.
    pub d_sum: f32,
    /// Σ q over the first half, the second half and all.
    pub sum: [i32; 3],
    /// The same, but in the two 16-bit halves of a word: Σ of the elements with i mod 4 < 2 in the lower one, of the
    /// others in the upper one.
    pub pairs: [i32; 3],
}

impl Block {
    /// Of zeros.
    pub(crate) const ZERO: Block = Block { q: [0; BLOCK], d: 0.0, d_sum: 0.0, sum: [0; 3], pairs: [0; 3] };
}

/// f32 elements that a record takes the place of.
const RECORD: usize = size_of::<Block>() / size_of::<f32>();

/// Rows of 8-bit activations.
#[derive(Debug)]
pub struct QuantisedRows {
    rows: usize,
    /// Blocks per row.
    blocks: usize,
    /// Rows per tile.
    tile: usize,
    /// Recycled memory for the records.
    memory: Mat,
}

impl QuantisedRows {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Where the record of block `b` of row `row` lies; those of the next rows of the tile follow it, and block b + 1
    /// of the same row lies a tile's height further.
    fn index(&self, row: usize, b: usize) -> usize {
        let tile = row / self.tile * self.tile;
        tile * self.blocks + b * self.tile + (row - tile)
    }

    /// All records, in the order that [`QuantisedRows::index`] describes.
    fn records(&self) -> &[Block] {
        let (data, rows) = (self.memory.data(), self.rows.next_multiple_of(self.tile));
        // SAFETY: the matrix holds rows · blocks records' worth of f32; a record is plain data, every bit pattern of
        // which is valid, and no more aligned than f32.
        unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), rows * self.blocks) }
    }

    /// The record of block `b` of row `row`.
    pub fn block(&self, row: usize, b: usize) -> &Block {
        assert!(row < self.rows && b < self.blocks, "block {b} of row {row}");
        &self.records()[self.index(row, b)]
    }

    /// The records from block `b` of row `row` on.
    pub(crate) fn stream(&self, row: usize, b: usize) -> &[Block] {
        &self.records()[self.index(row, b)..]
    }
}

/// One row: `out[b · stride]` from elements 32b .. 32b + 32.
type Kernel = unsafe fn(x: &[f32], out: *mut Block, stride: usize);

/// Best first. AVX-512 would change nothing: the pass is limited by memory.
pub(crate) static IMPLS: &[Impl<Kernel>] = &[
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::Avx2, run: avx2::row },
    #[cfg(target_arch = "aarch64")]
    Impl { simd: Simd::Neon, run: neon::row },
    Impl { simd: Simd::Reference, run: reference::row },
];

/// Records that are worth a thread's while.
const GRAIN: usize = 256;

/// Rounds every row of `x` (l, k), for kernels that take `tile` rows at once.
///
/// # Panics
/// If k is not a multiple of 32.
pub fn quantise_rows(cx: &Cx, x: View<'_>, tile: usize) -> QuantisedRows {
    let (rows, cols) = (x.rows(), x.cols());
    assert!(cols.is_multiple_of(BLOCK), "quantise_rows: {cols} is not a multiple of {BLOCK}");
    let (blocks, padded) = (cols / BLOCK, rows.next_multiple_of(tile));
    let mut out = QuantisedRows { rows, blocks, tile, memory: cx.mat(padded, blocks * RECORD) };
    let kernel = cx.choose(IMPLS);
    let records = Records(out.memory.data_mut().as_mut_ptr().cast());
    cx.run_ranges(padded, GRAIN.div_ceil(blocks.max(1)), &|part| {
        for row in part {
            // SAFETY: `choose` returns what this machine can run. The records first, first + tile height, … are those
            // of this row, inside the memory, and a row belongs to one part.
            unsafe {
                let first = records.at(out.index(row, 0));
                if row < rows {
                    kernel(x.row(row), first, tile);
                } else {
                    (0..blocks).for_each(|b| first.add(b * tile).write(Block::ZERO));
                }
            }
        }
    });
    out
}

/// Memory that several threads write, each its own records.
struct Records(*mut Block);

// SAFETY: the only access is through `at`, whose callers write disjoint records.
unsafe impl Sync for Records {}

impl Records {
    fn at(&self, index: usize) -> *mut Block {
        self.0.wrapping_add(index)
    }
}
