//! A block of 32 as four registers.

use super::{BLOCK, Block, TINY};
use std::arch::x86_64::*;

/// See [`super`].
///
/// # Safety
/// AVX2 must be available, and records `out`, `out + stride`, … writable, one per 32 elements.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn row(x: &[f32], out: *mut Block, stride: usize) {
    for (b, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
        // SAFETY: the chunk has 32 elements; the caller vouches for the record.
        unsafe {
            let v = [0, 8, 16, 24].map(|at| _mm256_loadu_ps(x.as_ptr().add(at)));
            let largest = largest_magnitude(v);
            let block = if (TINY..f32::INFINITY).contains(&largest) {
                with_sums(round(v, 127.0 / largest), largest / 127.0)
            } else {
                with_sums(_mm256_setzero_si256(), if largest < TINY { 0.0 } else { f32::NAN })
            };
            out.add(b * stride).write(block);
        }
    }
}

/// The largest magnitude, NaN above all.
#[inline]
#[target_feature(enable = "avx2")]
fn largest_magnitude(v: [__m256; 4]) -> f32 {
    let magnitude = |x| _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(i32::MAX));
    let low = _mm256_max_epu32(magnitude(v[0]), magnitude(v[1]));
    let high = _mm256_max_epu32(magnitude(v[2]), magnitude(v[3]));
    let eight = _mm256_max_epu32(low, high);
    let four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
    let two = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));
    let one = _mm_max_epu32(two, _mm_shuffle_epi32::<1>(two));
    f32::from_bits(_mm_cvtsi128_si32(one) as u32)
}

/// Codes in element order. Conversion rounds to nearest even, the default of the control register.
#[inline]
#[target_feature(enable = "avx2")]
fn round(v: [__m256; 4], inverse: f32) -> __m256i {
    let inverse = _mm256_set1_ps(inverse);
    let code = |x| _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse));
    let low = _mm256_packs_epi32(code(v[0]), code(v[1]));
    let high = _mm256_packs_epi32(code(v[2]), code(v[3]));
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); // undoes the interleaving of the packs
    _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order)
}

/// A record and its sums.
#[inline]
#[target_feature(enable = "avx2")]
fn with_sums(codes: __m256i, d: f32) -> Block {
    let twos = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
    // Sums of sixteen codes fit in 16 bits: add words, then pairs of words, within each half.
    let fours = _mm256_add_epi16(twos, _mm256_shuffle_epi32::<0b1011_0001>(twos));
    let halves = _mm256_add_epi16(fours, _mm256_shuffle_epi32::<0b0100_1110>(fours));
    let all = _mm_add_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
    let pairs =
        [_mm256_extract_epi32::<0>(halves), _mm256_extract_epi32::<4>(halves), _mm_cvtsi128_si32(all)];
    let sum = pairs.map(|pair| i32::from(pair as i16) + (pair >> 16));
    let mut q = [0; BLOCK];
    // SAFETY: the array has 32 bytes.
    unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), codes) };
    Block { q, d, d_sum: d * sum[2] as f32, sum, pairs }
}
