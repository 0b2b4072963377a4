//! Rows of plain floats: the same entry points as the block formats, one element at a time.

use crate::dispatch::Simd;
use tangelo_core::DType;
use tangelo_core::float::{bf16_to_f32, f8e4m3_to_f32, f16_to_f32, f32_to_bf16, f32_to_f8e4m3, f32_to_f16};

/// Widens `src` (little-endian, `out.len()` elements); exact, so `level` only decides the speed.
pub(super) fn decode(level: Simd, dtype: DType, src: &[u8], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    let (src, out) = if level >= Simd::Avx2 && Simd::Avx2.is_available() {
        // SAFETY: AVX2 and F16C are there.
        let done = unsafe { avx2::decode_eights(dtype, src, out) };
        (&src[done * dtype.block_bytes()..], &mut out[done..])
    } else {
        (src, out)
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = level;
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

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! Eight elements at a time.

    use std::arch::x86_64::*;
    use tangelo_core::DType;

    /// Widens the whole eights at the front of a row and returns how many elements that was.
    ///
    /// # Safety
    /// AVX2 and F16C must be available.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn decode_eights(dtype: DType, src: &[u8], out: &mut [f32]) -> usize {
        match dtype {
            DType::F16 => eights(src, out, |b: &[u8; 16]| f16(b)),
            DType::BF16 => eights(src, out, |b: &[u8; 16]| bf16(b)),
            DType::F8E4M3 => eights(src, out, |b: &[u8; 8]| f8e4m3(b)),
            _ => 0,
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn eights<const N: usize>(src: &[u8], out: &mut [f32], widen: impl Fn(&[u8; N]) -> __m256) -> usize {
        let out = out.as_chunks_mut::<8>().0;
        for (bytes, out) in src.as_chunks::<N>().0.iter().zip(&mut *out) {
            // SAFETY: `out` is eight elements, at any alignment.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), widen(bytes)) };
        }
        out.len() * 8
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load16(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: the reference covers the 16 bytes, and the load need not be aligned.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn f16(bytes: &[u8; 16]) -> __m256 {
        _mm256_cvtph_ps(load16(bytes))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn bf16(bytes: &[u8; 16]) -> __m256 {
        let wide = _mm256_cvtepu16_epi32(load16(bytes));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
    }

    /// Read as f16 with its exponent field in place, an element is 2^-8 of its value (biases 15 and 7), for
    /// subnormals too; only the one NaN has to be put back.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn f8e4m3(bytes: &[u8; 8]) -> __m256 {
        let wide = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(i64::from_le_bytes(*bytes)));
        let magnitude = _mm_and_si128(wide, _mm_set1_epi16(0x7f));
        let sign = _mm_slli_epi16::<8>(_mm_xor_si128(wide, magnitude));
        let nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f));
        let half = _mm_or_si128(_mm_or_si128(sign, _mm_slli_epi16::<7>(magnitude)), nan);
        _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0))
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
