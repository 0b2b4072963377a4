//! On a device: which kernel for how many tokens, and its grid.

use super::Packed;
use crate::cuda::{Arg, Buffer, Grid, launch};
use crate::device::{DeviceView, Mat, Vector};
use crate::lanes::LANES;
use crate::quant::{self, Format};
use crate::quantise_rows::BLOCK;
use crate::quantise_rows::cuda::{BLOCK_BYTES, FEW, quantise_rows};
use tangelo_core::DType;

/// The kernels of a block format (kernel.cu): for one token, for up to eight, and in low and high tiles.
struct Kernels {
    one: &'static str,
    eight: &'static str,
    low: &'static str,
    /// Of the usual formats.
    high: Option<&'static str>,
}

macro_rules! kernels {
    ($name:literal, high) => {
        Kernels { high: Some(concat!("matmul_high_", $name)), ..kernels!($name) }
    };
    ($name:literal) => {
        Kernels {
            one: concat!("matmul_one_", $name),
            eight: concat!("matmul_eight_", $name),
            low: concat!("matmul_low_", $name),
            high: None,
        }
    };
}

fn kernels(dtype: DType) -> Kernels {
    match dtype {
        DType::Q8_0 => kernels!("q8_0", high),
        DType::Q4_0 => kernels!("q4_0", high),
        DType::Q4_1 => kernels!("q4_1"),
        DType::Q5_0 => kernels!("q5_0", high),
        DType::Q5_1 => kernels!("q5_1"),
        DType::Q2K => kernels!("q2_k"),
        DType::Q3K => kernels!("q3_k"),
        DType::Q4K => kernels!("q4_k", high),
        DType::Q5K => kernels!("q5_k"),
        DType::Q6K => kernels!("q6_k", high),
        DType::IQ4NL => kernels!("iq4_nl"),
        DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 => unreachable!("{dtype} has no blocks"),
    }
}

/// Threads, outputs and tokens of a low and of a high tile (tile.cuh).
const LOW: (u32, usize, usize) = (128, 32, 64);
const HIGH: (u32, usize, usize) = (256, 128, 128);
/// Threads of the kernels for few tokens (few.cuh).
const FEW_THREADS: u32 = 288;

/// [`super::matmul`] of a matrix of `tokens` rows on a device.
pub(super) fn matmul(x: DeviceView<'_>, tokens: usize, w: &Packed, bias: Option<&Vector>) -> Mat {
    let Some(format) = quant::format(w.dtype()) else {
        return super::cuda_dense::matmul(x, tokens, w, bias);
    };
    let y = Mat::on_device(x.gpu, tokens, w.rows());
    if tokens == 0 {
        return y;
    }
    let (kernel, grid) = choose(format, tokens, w, x.gpu.properties().multiprocessors as usize);
    let rounded = quantise_rows(x, tokens, w.cols());
    let weight = w.buffer().expect("what is multiplied lies with what it is multiplied by");
    let output = output(&y, w, bias);
    let units = w.cols() / BLOCK;
    launch!(x.gpu, kernel, grid, weight, &rounded.buffer, rounded.padded, units, Arg::Words(&output));
    y
}

/// The kernel for so many tokens, and its grid.
fn choose(format: &Format, tokens: usize, w: &Packed, multiprocessors: usize) -> (&'static str, Grid) {
    let kernels = kernels(format.dtype);
    let few = |n| Grid::new(w.panels(), FEW_THREADS).with_shared(shared_of_few(format, n));
    let tiles = |(threads, high, wide): (u32, usize, usize)| {
        Grid::of([tokens.div_ceil(wide), w.rows().div_ceil(high), 1], threads)
    };
    // A high tile takes half as many instructions per product as a low one, once there are enough for all.
    let high = tiles(HIGH);
    let is_full = high.blocks.iter().map(|n| *n as usize).product::<usize>() >= multiprocessors;
    match tokens {
        1 => (kernels.one, few(1)),
        2..=FEW => (kernels.eight, few(FEW)),
        _ => match kernels.high.filter(|_| tokens > LOW.2 && is_full) {
            Some(kernel) => (kernel, high),
            None => (kernels.low, tiles(LOW)),
        },
    }
}

/// Bytes of shared memory of the kernels for `n` tokens: `Few` of few.cuh.
fn shared_of_few(format: &Format, n: usize) -> usize {
    let (units, stages, lanes, columns): (usize, usize, usize, usize) =
        if n == 1 { (32, 3, 8, 1) } else { (8, 4, 32, 2) };
    let weights = units * BLOCK / format.dtype.block_len() * LANES * format.dtype.block_bytes();
    let groups = units * BLOCK / format.group;
    let minima = if format.has_min { 2 + columns } else { 0 };
    let terms = (4 * columns + minima).next_multiple_of(4) * size_of::<f32>();
    stages * (weights + units * n * BLOCK_BYTES) + 2 * groups * lanes * terms
}

/// `Output` of output.cuh.
pub(super) fn output(y: &Mat, w: &Packed, bias: Option<&Vector>) -> [u64; 4] {
    let address = |buffer: Option<&Buffer>| buffer.expect("operands are on the device").address();
    let sizes = y.rows() as u64 | (y.cols() as u64) << 32;
    let bias = bias.map_or(0, |bias| address(bias.buffer()));
    [address(y.buffer()), bias, sizes, u64::from(w.scale().to_bits())]
}
