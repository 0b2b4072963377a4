//! On a device: one launch if every sequence has few tokens, the three operations otherwise.

use super::{Columns, Mixer};
use crate::causal_conv::cuda::causal_conv_silu;
use crate::cuda::{Arg, Buffer, Gpu, Grid, launch};
use crate::device::{Cx, DeviceView, Mat, View};
use crate::rms_norm_gated::rms_norm_gated;
use crate::sequences::{DeviceSequence, SEQUENCES_MAX, address, pair};
use crate::ssd::cuda::ssd;
use std::sync::OnceLock;

/// Threads of a block of the one launch, rows of its group, and tokens of a sequence (kernel.cu).
const THREADS: u32 = 256;
const ROWS: usize = 64;
const TOKENS: usize = 4;

/// How many blocks of each group of each sequence of a launch have come to their end: a word each, zero between
/// launches. Made by the first launch.
#[derive(Debug, Default)]
pub(super) struct Tickets(OnceLock<Buffer>);

impl Tickets {
    fn get(&self, gpu: &Gpu, groups: usize) -> &Buffer {
        self.0.get_or_init(|| {
            let buffer = gpu.buffer(SEQUENCES_MAX * groups * size_of::<u32>());
            buffer.zero();
            buffer
        })
    }
}

/// The kernel for a few tokens, if there is one for states of this width.
fn step_kernel(n: usize) -> Option<&'static str> {
    match n {
        64 => Some("mamba2_step_64"),
        128 => Some("mamba2_step_128"),
        256 => Some("mamba2_step_256"),
        _ => None,
    }
}

impl Mixer {
    /// `Mixer` of kernel.cu.
    fn words(&self) -> [u64; 10] {
        let (g, h) = (self.ssd.num_groups, self.ssd.num_heads());
        let mut words = [0; 10];
        words[..3].copy_from_slice(&self.conv.words());
        words[3..7].copy_from_slice(&self.ssd.words());
        words[7] = address(&self.norm);
        words[8] = u64::from(self.eps.to_bits()) | pair(0, self.inner() / h);
        words[9] = pair(self.inner() / g, g);
        words
    }
}

pub(super) fn mamba2(
    cx: &Cx,
    mixer: &Mixer,
    zxBCdt: View<'_>,
    on_device: DeviceView<'_>,
    sequences: &[DeviceSequence],
) -> Mat {
    let (gpu, l, i) = (on_device.gpu, zxBCdt.rows(), mixer.inner());
    let is_few = DeviceSequence::longest(sequences) <= TOKENS;
    if let Some(kernel) = step_kernel(mixer.state_width()).filter(|_| is_few) {
        let out = Mat::on_device(gpu, l, i);
        step(kernel, mixer, on_device, sequences, &out);
        return out;
    }
    let Columns { z, xBC, dt } = mixer.columns();
    let (z, xBC_in, dt) = (zxBCdt.slice_cols(z), zxBCdt.slice_cols(xBC), zxBCdt.slice_cols(dt));
    let (xBC, y) = (Mat::on_device(gpu, l, mixer.conv.channels()), Mat::on_device(gpu, l, i));
    if let Some(xBC_in) = xBC_in.device() {
        causal_conv_silu(xBC_in, &mixer.conv, sequences, &xBC);
    }
    ssd(&mixer.ssd, mixer.input(xBC.view(), dt), sequences, &y);
    rms_norm_gated(cx, y.view(), z, &mixer.norm, mixer.ssd.num_groups, mixer.eps)
}

fn step(
    kernel: &'static str,
    mixer: &Mixer,
    zxBCdt: DeviceView<'_>,
    sequences: &[DeviceSequence],
    out: &Mat,
) {
    let groups = mixer.ssd.num_groups;
    let slices = (mixer.inner() / groups).div_ceil(ROWS);
    let tickets = mixer.tickets.get(zxBCdt.gpu, groups);
    for some in sequences.chunks(SEQUENCES_MAX) {
        launch!(
            zxBCdt.gpu,
            kernel,
            Grid::of([groups * slices, some.len(), 1], THREADS),
            Arg::Words(&DeviceSequence::words(some)),
            Arg::Words(&mixer.words()),
            zxBCdt.address,
            zxBCdt.stride,
            out,
            tickets
        );
    }
}
