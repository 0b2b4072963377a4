//! On a device: a thread per channel and tile of tokens.

use super::Conv;
use crate::cuda::{Arg, Grid, launch};
use crate::device::{DeviceView, Mat};
use crate::sequences::{DeviceSequence, SEQUENCES_MAX, address, pair};

/// Neighbouring channels.
const THREADS: usize = 256;
/// Tokens of a tile; more if the state is longer, as the kernel demands.
const TOKENS: usize = 16;

impl Conv {
    /// `Conv` of `mamba.cuh`.
    pub(crate) fn words(&self) -> [u64; 3] {
        [address(&self.weight), address(&self.bias), pair(self.channels(), self.taps())]
    }
}

pub(crate) fn causal_conv_silu(x: DeviceView<'_>, conv: &Conv, sequences: &[DeviceSequence], out: &Mat) {
    let (c, tile) = (conv.channels(), TOKENS.max(conv.taps() - 1));
    for some in sequences.chunks(SEQUENCES_MAX) {
        let tiles = DeviceSequence::longest(some).div_ceil(tile);
        launch!(
            x.gpu,
            "causal_conv",
            Grid::of([c.div_ceil(THREADS), tiles, some.len()], THREADS as u32),
            Arg::Words(&DeviceSequence::words(some)),
            Arg::Words(&conv.words()),
            x.address,
            x.stride,
            out,
            c,
            tile
        );
    }
}
