//! Plain floats on a device: F32 and F16 with the bits of the host (dense.cu), BF16 and F8 on tensor cores (dense_mma.cu).

use super::Packed;
use super::cuda::output;
use super::packed::DEVICE_STEP;
use crate::cuda::{Arg, Buffer, Grid, launch};
use crate::device::{DeviceView, Mat, Vector};
use crate::lanes::LANES;
use tangelo_core::DType;

/// Tokens of a block of threads that takes one panel; rows and tokens of one that takes a tile.
const FEW: usize = 8;
const TILE: usize = 64;
/// For up to so many tokens a panel is taken by several blocks, all but the first of which find it in the cache; more fill
/// at least half a tile.
const FEW_MAX: usize = 32;
/// Bytes of an element of x in three parts.
const PARTS_BYTES: usize = 6;

/// [`super::matmul`] of a matrix of `tokens` rows on a device.
pub(super) fn matmul(x: DeviceView<'_>, tokens: usize, w: &Packed, bias: Option<&Vector>) -> Mat {
    let y = Mat::on_device(x.gpu, tokens, w.rows());
    if tokens == 0 {
        return y;
    }
    let weight = w.buffer().expect("what is multiplied lies with what it is multiplied by");
    let product = Product { x, tokens, w, weight, output: output(&y, w, bias) };
    match w.dtype() {
        DType::F32 => product.as_chains(["dense_few_f32", "dense_tile_f32"]),
        DType::F16 => product.as_chains(["dense_few_f16", "dense_tile_f16"]),
        DType::BF16 => product.of_parts("dense_split_bf16", ["dense_few_bf16", "dense_tile_bf16"]),
        DType::F8E4M3 => product.of_parts("dense_split_f8", ["dense_few_f8", "dense_tile_f8"]),
        dtype => unreachable!("{dtype} has a block format"),
    }
    y
}

struct Product<'a> {
    x: DeviceView<'a>,
    tokens: usize,
    w: &'a Packed,
    weight: &'a Buffer,
    output: [u64; 4],
}

impl Product<'_> {
    /// The kernel for few tokens or that for many, each with its number of threads, and its grid.
    fn choose(&self, [few, many]: [(&'static str, u32); 2]) -> (&'static str, Grid) {
        let (m, n) = (self.tokens, self.w.rows());
        if m <= FEW_MAX {
            (few.0, Grid::of([m.div_ceil(FEW), self.w.panels(), 1], few.1))
        } else {
            (many.0, Grid::of([n.div_ceil(TILE), m.div_ceil(TILE), 1], many.1))
        }
    }

    /// A chain of multiply-adds per output.
    fn as_chains(&self, [few, many]: [&'static str; 2]) {
        let Product { x, w, weight, .. } = *self;
        let (kernel, grid) = self.choose([(few, 128), (many, 128)]);
        let words = w.panel_bytes() / (LANES * size_of::<u32>());
        let output = Arg::Words(&self.output);
        launch!(x.gpu, kernel, grid, x.address, x.stride, weight, w.cols(), words, output);
    }

    /// On tensor cores, with x in three parts.
    fn of_parts(&self, split: &'static str, [few, many]: [&'static str; 2]) {
        let Product { x, tokens, w, weight, .. } = *self;
        let steps = w.cols().div_ceil(DEVICE_STEP);
        let parts = x.gpu.buffer(tokens * steps * DEVICE_STEP * PARTS_BYTES);
        let threads = tokens * steps * DEVICE_STEP / 4;
        let cut = Grid::new(threads.div_ceil(256), 256);
        launch!(x.gpu, split, cut, x.address, x.stride, tokens, w.cols(), steps, &parts);
        let (kernel, grid) = self.choose([(few, 256), (many, 128)]);
        launch!(x.gpu, kernel, grid, &parts, weight, steps, Arg::Words(&self.output));
    }
}
