//! On a device: a block per row.

use crate::cuda::{Buffer, Grid, launch};
use crate::device::Mat;
use tangelo_core::DType;

const THREADS: u32 = 256;

pub(super) fn embed(table: &Buffer, dtype: DType, cols: usize, scale: f32, ids: &[u32]) -> Mat {
    let gpu = table.gpu();
    let out = Mat::on_device(gpu, ids.len(), cols);
    let list = gpu.buffer(size_of_val(ids));
    // At the start of a step nothing is recorded yet, so that this does not end the recording.
    list.write(0, ids);
    launch!(gpu, kernel(dtype), Grid::new(ids.len(), THREADS), table, &list, &out, cols, scale);
    out
}

fn kernel(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "embed_f32",
        DType::F16 => "embed_f16",
        DType::BF16 => "embed_bf16",
        DType::F8E4M3 => "embed_f8e4m3",
        DType::Q8_0 => "embed_q8_0",
        DType::Q4_0 => "embed_q4_0",
        DType::Q4_1 => "embed_q4_1",
        DType::Q5_0 => "embed_q5_0",
        DType::Q5_1 => "embed_q5_1",
        DType::Q2K => "embed_q2_k",
        DType::Q3K => "embed_q3_k",
        DType::Q4K => "embed_q4_k",
        DType::Q5K => "embed_q5_k",
        DType::Q6K => "embed_q6_k",
        DType::IQ4NL => "embed_iq4_nl",
    }
}
