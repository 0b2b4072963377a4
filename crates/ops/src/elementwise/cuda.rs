//! On a device: a thread per element.

use super::Target;
use crate::cuda::{Arg, Buffer, Grid, launch};
use crate::device::{DeviceView, Mat};

const THREADS: u32 = 256;
/// Row numbers that are passed by value, so that a recorded step needs no copy for them.
const FEW: usize = 32;
/// Most rows of a launch: the second dimension of a grid.
const ROWS_MAX: usize = 65535;

pub(super) fn relu2(x: &Buffer, count: usize) {
    launch!(x.gpu(), "relu2", blocks(count), x, count);
}

pub(super) fn add(x: &Buffer, y: &Mat, count: usize) {
    launch!(x.gpu(), "add", blocks(count), x, y, count);
}

pub(super) fn add_scaled_rows(x: &Mat, targets: &[Target], y: DeviceView<'_>) {
    let cols = x.cols();
    let words: Vec<u32> = targets.iter().flat_map(|t| [t.row as u32, t.weight.to_bits()]).collect();
    for (i, words) in words.chunks(2 * ROWS_MAX).enumerate() {
        let list = y.gpu.buffer(size_of_val(words));
        list.write(0, words);
        let from = y.address + (i * ROWS_MAX * y.stride * size_of::<f32>()) as u64;
        launch!(y.gpu, "add_scaled_rows", row_blocks(words.len() / 2, cols), x, &list, from, y.stride, cols);
    }
}

pub(super) fn gather_rows(x: DeviceView<'_>, cols: usize, rows: impl Iterator<Item = usize>) -> Mat {
    let rows: Vec<u32> = rows.map(|row| row as u32).collect();
    let out = Mat::on_device(x.gpu, rows.len(), cols);
    let to = out.buffer().expect("made on the device").address();
    if rows.len() <= FEW {
        let mut words = [0; FEW / 2];
        for (i, &row) in rows.iter().enumerate() {
            words[i / 2] |= u64::from(row) << (32 * (i % 2));
        }
        let (grid, few) = (row_blocks(rows.len(), cols), Arg::Words(&words));
        launch!(x.gpu, "gather_few_rows", grid, x.address, x.stride, few, to, cols);
        return out;
    }
    for (i, rows) in rows.chunks(ROWS_MAX).enumerate() {
        let list = x.gpu.buffer(size_of_val(rows));
        list.write(0, rows);
        let to = to + (i * ROWS_MAX * cols * size_of::<f32>()) as u64;
        launch!(x.gpu, "gather_rows", row_blocks(rows.len(), cols), x.address, x.stride, &list, to, cols);
    }
    out
}

fn blocks(count: usize) -> Grid {
    Grid::new(count.div_ceil(THREADS as usize), THREADS)
}

fn row_blocks(rows: usize, cols: usize) -> Grid {
    Grid::of([cols.div_ceil(THREADS as usize), rows, 1], THREADS)
}
