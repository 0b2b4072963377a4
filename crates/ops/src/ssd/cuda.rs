//! On a device: the state in registers for common shapes, in memory for any other.

use super::{Ssd, SsdInput};
use crate::cuda::{Arg, Grid, launch};
use crate::device::{DeviceView, Mat, View};
use crate::sequences::{DeviceSequence, SEQUENCES_MAX, address, pair, pair_of_floats};

/// Threads of a block, sixteen to a row of the state.
const THREADS: usize = 128;
/// Half-warps of a block.
const HALVES: usize = THREADS / 16;

/// A kernel that keeps the state in registers, and the rows of a half-warp (`Plan` of kernel.cu).
fn in_registers(n: usize) -> Option<(&'static str, usize)> {
    match n {
        64 => Some(("ssd_64", 8)),
        128 => Some(("ssd_128", 8)),
        256 => Some(("ssd_256", 4)),
        _ => None,
    }
}

impl Ssd {
    /// `Ssd` of `mamba.cuh`.
    pub(crate) fn words(&self) -> [u64; 4] {
        let (low, high) = self.dt_limit;
        [address(&self.A), address(&self.D), address(&self.dt_bias), pair_of_floats(low, high)]
    }
}

pub(crate) fn ssd(ssd: &Ssd, input: SsdInput<'_>, sequences: &[DeviceSequence], y: &Mat) {
    let [x, dt, b, c] = [input.x, input.dt, input.B, input.C].map(on_device);
    let (inner, n) = (input.x.cols(), input.B.cols() / ssd.num_groups);
    let (p, group_rows) = (inner / ssd.num_heads(), inner / ssd.num_groups);
    let input =
        [x.address, dt.address, b.address, c.address, pair(x.stride, dt.stride), pair(b.stride, c.stride)];
    let is_aligned = |v: &DeviceView<'_>| v.address.is_multiple_of(16) && v.stride.is_multiple_of(4);
    let fast = in_registers(n).filter(|&(_, r)| p.is_multiple_of(r) && [x, b, c].iter().all(is_aligned));
    for some in sequences.chunks(SEQUENCES_MAX) {
        let (words, ssd) = (DeviceSequence::words(some), ssd.words());
        let (sequences, ssd, input) = (Arg::Words(&words), Arg::Words(&ssd), Arg::Words(&input));
        let grid = |blocks| Grid::of([blocks, some.len(), 1], THREADS as u32);
        if let Some((name, rows)) = fast {
            let grid = grid(inner / group_rows * group_rows.div_ceil(HALVES * rows));
            launch!(x.gpu, name, grid, sequences, ssd, input, y, inner, p, group_rows);
        } else {
            let grid = grid(inner.div_ceil(HALVES));
            launch!(x.gpu, "ssd_any", grid, sequences, ssd, input, y, inner, p, group_rows, n, inner);
        }
    }
}

fn on_device(view: View<'_>) -> DeviceView<'_> {
    view.device().expect("the inputs of a recurrence lie in one place")
}
