//! On a device: codes and records apart, so that both are read in whole words.

use super::BLOCK;
use crate::cuda::{Buffer, Grid, launch};
use crate::device::DeviceView;

/// Blocks that a block of threads rounds.
const BLOCKS_PER_GRID_BLOCK: usize = 8;
/// Bytes of the record of a block.
const RECORD_BYTES: usize = 16;

/// 8-bit activations on a device.
pub(crate) struct DeviceRows {
    /// (rows, cols) signed bytes.
    pub codes: Buffer,
    /// (rows, cols / 32) records: d, d · sum, the sums of both halves.
    pub records: Buffer,
}

/// [`super::quantise_rows`] of a matrix on a device.
pub(crate) fn quantise_rows(x: DeviceView<'_>, rows: usize, cols: usize) -> DeviceRows {
    assert!(cols.is_multiple_of(BLOCK), "quantise_rows: {cols} is not a multiple of {BLOCK}");
    let blocks = rows * (cols / BLOCK);
    let codes = x.gpu.buffer(rows * cols);
    let records = x.gpu.buffer(blocks * RECORD_BYTES);
    let grid = Grid::new(blocks.div_ceil(BLOCKS_PER_GRID_BLOCK), 256);
    launch!(x.gpu, "quantise_rows", grid, x.address, x.stride, rows, cols, &codes, &records);
    DeviceRows { codes, records }
}
