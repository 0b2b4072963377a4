//! On a device: a block per row and group.

use crate::cuda::{Grid, launch};
use crate::device::{DeviceView, Mat, Vector};

/// Threads that gate and scale a group; sixteen of them add up its squares.
const THREADS: u32 = 256;

pub(super) fn rms_norm_gated(
    y: DeviceView<'_>,
    z: DeviceView<'_>,
    rows: usize,
    weight: &Vector,
    num_groups: usize,
    eps: f32,
) -> Mat {
    let out = Mat::on_device(y.gpu, rows, weight.len());
    let (grid, width) = (Grid::new(rows * num_groups, THREADS), weight.len() / num_groups);
    launch!(
        y.gpu,
        "rms_norm_gated",
        grid,
        y.address,
        y.stride,
        z.address,
        z.stride,
        weight,
        &out,
        width,
        num_groups,
        eps
    );
    out
}
