//! On a device: a block per row.

use crate::cuda::{Grid, launch};
use crate::device::{DeviceView, Mat, Vector};

/// Threads that read and write a row; sixteen of them add up its squares.
const THREADS: u32 = 256;

pub(super) fn rms_norm(x: DeviceView<'_>, rows: usize, weight: &Vector, eps: f32) -> Mat {
    let cols = weight.len();
    let out = Mat::on_device(x.gpu, rows, cols);
    launch!(x.gpu, "rms_norm", Grid::new(rows, THREADS), x.address, x.stride, weight, &out, cols, eps);
    out
}

pub(super) fn add_rms_norm(x: DeviceView<'_>, y: &Mat, weight: &Vector, eps: f32) -> Mat {
    let (rows, cols) = (y.rows(), y.cols());
    let out = Mat::on_device(x.gpu, rows, cols);
    launch!(x.gpu, "add_rms_norm", Grid::new(rows, THREADS), x.address, y, weight, &out, cols, eps);
    out
}
