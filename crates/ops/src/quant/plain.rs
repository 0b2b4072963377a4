//! Rows of plain floats: the same entry points as the block formats, one element at a time.

use tangelo_core::DType;
use tangelo_core::float::{bf16_to_f32, f8e4m3_to_f32, f16_to_f32, f32_to_bf16, f32_to_f8e4m3, f32_to_f16};

/// Widens `src` (little-endian, `out.len()` elements); exact.
pub(super) fn decode(dtype: DType, src: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => decode_each(src, out, f32::from_le_bytes),
        DType::F16 => decode_each(src, out, |b| f16_to_f32(u16::from_le_bytes(b))),
        DType::BF16 => decode_each(src, out, |b| bf16_to_f32(u16::from_le_bytes(b))),
        DType::F8E4M3 => decode_each(src, out, |[b]| f8e4m3_to_f32(b)),
        _ => unreachable!("{dtype} has a block format"),
    }
}

/// Rounds `x` to nearest even (F8_E4M3 saturates at ±448, the others overflow to infinity).
pub(super) fn encode(dtype: DType, x: &[f32], out: &mut [u8]) {
    match dtype {
        DType::F32 => encode_each(x, out, f32::to_le_bytes),
        DType::F16 => encode_each(x, out, |x| f32_to_f16(x).to_le_bytes()),
        DType::BF16 => encode_each(x, out, |x| f32_to_bf16(x).to_le_bytes()),
        DType::F8E4M3 => encode_each(x, out, |x| [f32_to_f8e4m3(x)]),
        _ => unreachable!("{dtype} has a block format"),
    }
}

fn decode_each<const N: usize>(src: &[u8], out: &mut [f32], element: impl Fn([u8; N]) -> f32) {
    for (bytes, out) in src.as_chunks::<N>().0.iter().zip(out) {
        *out = element(*bytes);
    }
}

fn encode_each<const N: usize>(x: &[f32], out: &mut [u8], element: impl Fn(f32) -> [u8; N]) {
    for (&x, bytes) in x.iter().zip(out.as_chunks_mut::<N>().0) {
        *bytes = element(x);
    }
}
