//! On a device: which kernel for how many tokens, and its grid.

use super::Packed;
use crate::cuda::{Arg, Grid};
use crate::device::{DeviceView, Mat, Vector};
use crate::quantise_rows::cuda::quantise_rows;
use tangelo_core::DType;

/// The kernels of a block format, for one token and for tiles of 8, 32 and 128.
struct Kernels {
    one: &'static str,
    tiles: [&'static str; 3],
}

macro_rules! kernels {
    ($name:literal) => {
        Kernels {
            one: concat!("matmul_one_", $name),
            tiles: [concat!("matmul_8_", $name), concat!("matmul_32_", $name), concat!("matmul_128_", $name)],
        }
    };
}

/// Outputs per block of threads and tokens per tile, as in kernel.cu.
const ROWS_OF_ONE: usize = 32;
const TILES: [(usize, usize); 3] = [(128, 8), (128, 32), (128, 128)];

fn kernels(dtype: DType) -> Option<Kernels> {
    Some(match dtype {
        DType::Q8_0 => kernels!("q8_0"),
        DType::Q4_0 => kernels!("q4_0"),
        DType::Q4_1 => kernels!("q4_1"),
        DType::Q5_0 => kernels!("q5_0"),
        DType::Q5_1 => kernels!("q5_1"),
        DType::Q2K => kernels!("q2_k"),
        DType::Q3K => kernels!("q3_k"),
        DType::Q4K => kernels!("q4_k"),
        DType::Q5K => kernels!("q5_k"),
        DType::Q6K => kernels!("q6_k"),
        DType::IQ4NL => kernels!("iq4_nl"),
        _ => return None,
    })
}

/// [`super::matmul`] of a matrix of `tokens` rows on a device.
pub(super) fn matmul(x: DeviceView<'_>, tokens: usize, w: &Packed, bias: Option<&Vector>) -> Mat {
    let Some(kernels) = kernels(w.dtype()) else { return super::cuda_dense::matmul(x, tokens, w, bias) };
    let (rows, cols) = (w.rows(), w.cols());
    let out = Mat::on_device(x.gpu, tokens, rows);
    let activations = quantise_rows(x, tokens, cols);
    let (kernel, grid) = if tokens == 1 {
        (kernels.one, Grid::new(rows.div_ceil(ROWS_OF_ONE), 288))
    } else {
        let tile = TILES.iter().position(|(_, n)| tokens <= *n).unwrap_or(TILES.len() - 1);
        let (high, wide) = TILES[tile];
        (kernels.tiles[tile], Grid::of([tokens.div_ceil(wide), rows.div_ceil(high), 1], 256))
    };
    let bias = bias.map_or(Arg::U64(0), Arg::from);
    x.gpu.launch(
        kernel,
        grid,
        &[
            w.buffer().expect("what is multiplied lies with what it is multiplied by").into(),
            rows.into(),
            cols.into(),
            (&activations.codes).into(),
            (&activations.records).into(),
            tokens.into(),
            bias,
            (&out).into(),
        ],
    );
    out
}
