//! On a device: block 0 of every row, then block 1, …, as kernel.cu describes.

use super::BLOCK;
use crate::cuda::{Buffer, Grid, launch};
use crate::device::DeviceView;

/// Blocks that a block of threads rounds.
const BLOCKS_PER_GRID_BLOCK: usize = 8;
/// Bytes of a block: the codes, and four words about them.
pub(crate) const BLOCK_BYTES: usize = BLOCK + 16;
/// Rows of the products for few of them.
pub(crate) const FEW: usize = 8;
/// Rows of a low tile and of a high one.
const TILES: [usize; 2] = [64, 128];

/// 8-bit activations on a device.
pub(crate) struct DeviceRows {
    /// Codes, then what belongs to them.
    pub buffer: Buffer,
    /// Rows that there is room for: all that a product may read.
    pub padded: usize,
}

/// [`super::quantise_rows`] of a matrix on a device.
pub(crate) fn quantise_rows(x: DeviceView<'_>, rows: usize, cols: usize) -> DeviceRows {
    assert!(cols.is_multiple_of(BLOCK), "quantise_rows: {cols} is not a multiple of {BLOCK}");
    let blocks = cols / BLOCK;
    let padded = match rows {
        0..=1 => rows,
        2..=FEW => FEW,
        _ if rows <= TILES[0] => TILES[0],
        _ => rows.next_multiple_of(TILES[1]),
    };
    let buffer = x.gpu.buffer(blocks * padded * BLOCK_BYTES);
    let grid = Grid::new((rows * blocks).div_ceil(BLOCKS_PER_GRID_BLOCK), 256);
    launch!(x.gpu, "quantise_rows", grid, x.address, x.stride, rows, blocks, padded, &buffer);
    DeviceRows { buffer, padded }
}
