//! Sixteen lanes as two AVX2 registers.

use super::Lanes;
use std::arch::x86_64::*;

/// Lanes 0-7 and 8-15.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(pub(crate) __m256, pub(crate) __m256);

/// All ones in the first `n` of eight lanes.
#[inline(always)]
unsafe fn mask(n: usize) -> __m256i {
    const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: 8 - n.min(8) + 8 <= 16 elements are inside the table; the caller vouches for AVX2.
    unsafe { _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - n.min(8)).cast()) }
}

/// `2^k` for integral lanes `k` in -126..=127.
#[inline(always)]
unsafe fn pow2(k: __m256i) -> __m256 {
    // SAFETY: the caller vouches for AVX2.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(k, _mm256_set1_epi32(127)))) }
}

#[inline(always)]
unsafe fn scale_pow2(x: __m256, n: __m256) -> __m256 {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let n = _mm256_cvtps_epi32(n);
        let half = _mm256_srai_epi32::<1>(n);
        _mm256_mul_ps(_mm256_mul_ps(x, pow2(half)), pow2(_mm256_sub_epi32(n, half)))
    }
}

#[inline(always)]
unsafe fn abs(x: __m256) -> __m256 {
    // SAFETY: the caller vouches for AVX2.
    unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), x) }
}

#[inline(always)]
unsafe fn select_negative(x: __m256, a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller vouches for AVX2.
    unsafe { _mm256_blendv_ps(b, a, _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_setzero_ps())) }
}

// SAFETY of all bodies: the trait's callers vouch for AVX2, FMA and the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx2 {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Avx2(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        unsafe { Avx2(_mm256_loadu_ps(src), _mm256_loadu_ps(src.add(8))) }
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const u16) -> Self {
        unsafe {
            let low = _mm256_cvtph_ps(_mm_loadu_si128(src.cast()));
            Avx2(low, _mm256_cvtph_ps(_mm_loadu_si128(src.add(8).cast())))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(src: *const u16) -> Self {
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(src.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(src.add(8).cast()));
            let (low, high) = (_mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high));
            Avx2(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        unsafe {
            _mm256_storeu_ps(dst, self.0);
            _mm256_storeu_ps(dst.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn load_first(src: *const f32, n: usize) -> Self {
        unsafe {
            let low = _mm256_maskload_ps(src, mask(n));
            let high = _mm256_maskload_ps(src.wrapping_add(8), mask(n.saturating_sub(8)));
            Avx2(low, high)
        }
    }

    #[inline(always)]
    unsafe fn store_first(self, dst: *mut f32, n: usize) {
        unsafe {
            _mm256_maskstore_ps(dst, mask(n), self.0);
            _mm256_maskstore_ps(dst.wrapping_add(8), mask(n.saturating_sub(8)), self.1);
        }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_div_ps(self.0, b.0), _mm256_div_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        unsafe { Avx2(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        unsafe { Avx2(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        unsafe { Avx2(abs(self.0), abs(self.1)) }
    }

    #[inline(always)]
    unsafe fn select_negative(self, a: Self, b: Self) -> Self {
        unsafe { Avx2(select_negative(self.0, a.0, b.0), select_negative(self.1, a.1, b.1)) }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        unsafe {
            Avx2(
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0),
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.1),
            )
        }
    }

    #[inline(always)]
    unsafe fn scale_pow2(self, n: Self) -> Self {
        unsafe { Avx2(scale_pow2(self.0, n.0), scale_pow2(self.1, n.1)) }
    }

    #[inline(always)]
    unsafe fn fold_add(self) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn fold_max(self) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
