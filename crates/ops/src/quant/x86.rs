//! What the AVX2 decoders share: loads, stores and moves of bit fields, as safe functions on arrays.
//!
//! A decoder here is the reference with its inner loops over 16 or 32 elements replaced by one register each;
//! it walks the same blocks in the same way.

use std::arch::x86_64::*;

use super::bits::field;

/// 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load16(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference covers the 16 bytes, and the load need not be aligned.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes, and the load need not be aligned.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// 32 codes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store32(q: &mut [u8], v: __m256i) {
    let q = q.first_chunk_mut::<32>().expect("a group of 32 elements");
    // SAFETY: the reference covers the 32 bytes, and the store need not be aligned.
    unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), v) }
}

/// Eight bytes as 32-bit integers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn widen8(bytes: &[u8; 8]) -> __m256i {
    _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*bytes)))
}

/// Eight signed bytes as 32-bit integers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn widen8_signed(bytes: &[u8; 8]) -> __m256i {
    _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*bytes)))
}

/// Eight scales or minima: `unit` times each of eight 32-bit integers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_multiples(out: &mut [f32], unit: f32, codes: __m256i) {
    let out = out.first_chunk_mut::<8>().expect("eight groups");
    let v = _mm256_mul_ps(_mm256_set1_ps(unit), _mm256_cvtepi32_ps(codes));
    // SAFETY: the reference covers the eight elements, and the store need not be aligned.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
}

/// The little-endian f16 at offset `at`; F16C widens exactly, as `tangelo_core::float` does.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn f16(block: &[u8], at: usize) -> f32 {
    let bits = u16::from_le_bytes(*field(block, at));
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
}

/// In every byte, moves the bits that start at bit `from` so that they start at bit `to`, and keeps those in
/// `mask`. With constant arguments this is at most one shift and one AND.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn move_bits(v: __m256i, from: usize, to: usize, mask: u8) -> __m256i {
    // There is no shift of bytes. One of 16-bit words moves bits between neighbouring bytes, but never into
    // `mask`, as the field lies within one byte before and after.
    let by = _mm_cvtsi32_si128(from.abs_diff(to) as i32);
    let shifted = if from < to { _mm256_sll_epi16(v, by) } else { _mm256_srl_epi16(v, by) };
    _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
}

/// 16 bytes to 32 nibbles: byte j gives elements j (its low nibble) and j + 16.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn split_nibbles(packed: &[u8; 16]) -> __m256i {
    let low = load16(packed);
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(low), low);
    _mm256_and_si256(both, _mm256_set1_epi8(0xf))
}

/// 32 bytes to the low nibbles of all, then the high nibbles of all.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn split_nibbles_wide(packed: &[u8; 32]) -> [__m256i; 2] {
    let v = load32(packed);
    [move_bits(v, 0, 0, 0xf), move_bits(v, 4, 0, 0xf)]
}

/// 16 in every byte whose bit of `fifth` is set, 0 in the others.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn spread_fifth_bits(fifth: u32) -> __m256i {
    // Byte i gets byte i / 8 of `fifth`, within each half of the register.
    let source = _mm256_set_epi64x(
        0x0303_0303_0303_0303,
        0x0202_0202_0202_0202,
        0x0101_0101_0101_0101,
        0x0000_0000_0000_0000,
    );
    let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(fifth as i32), source);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(0x10))
}
