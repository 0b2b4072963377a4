//! Sixteen lanes as one AVX-512 register.

use super::Lanes;
use std::arch::x86_64::*;

/// Lanes 0-15.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(crate) __m512);

/// The first `n < 16` lanes.
#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    (1u16 << n) - 1
}

/// `2^k` for integral lanes `k` in -126..=127.
#[inline(always)]
unsafe fn pow2(k: __m512i) -> __m512 {
    // SAFETY: the caller vouches for AVX-512.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(k, _mm512_set1_epi32(127)))) }
}

/// The upper eight lanes.
#[inline(always)]
unsafe fn upper(x: __m512) -> __m256 {
    // SAFETY: the caller vouches for AVX-512.
    unsafe { _mm512_extractf32x8_ps::<1>(x) }
}

// SAFETY of all bodies: the trait's callers vouch for AVX-512 and the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx512 {
    const IS_WIDE: bool = true;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Avx512(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        unsafe { Avx512(_mm512_loadu_ps(src)) }
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const u16) -> Self {
        unsafe { Avx512(_mm512_cvtph_ps(_mm256_loadu_si256(src.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_bf16(src: *const u16) -> Self {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(src.cast()));
            Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        unsafe { _mm512_storeu_ps(dst, self.0) }
    }

    #[inline(always)]
    unsafe fn load_first(src: *const f32, n: usize) -> Self {
        unsafe { Avx512(_mm512_maskz_loadu_ps(mask(n), src)) }
    }

    #[inline(always)]
    unsafe fn store_first(self, dst: *mut f32, n: usize) {
        unsafe { _mm512_mask_storeu_ps(dst, mask(n), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        unsafe { Avx512(_mm512_add_ps(self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        unsafe { Avx512(_mm512_mul_ps(self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        unsafe { Avx512(_mm512_div_ps(self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        unsafe { Avx512(_mm512_fmadd_ps(self.0, b.0, c.0)) }
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        unsafe { Avx512(_mm512_max_ps(self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        unsafe { Avx512(_mm512_min_ps(self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        unsafe { Avx512(_mm512_abs_ps(self.0)) }
    }

    #[inline(always)]
    unsafe fn select_negative(self, a: Self, b: Self) -> Self {
        unsafe {
            let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_setzero_ps());
            Avx512(_mm512_mask_blend_ps(negative, b.0, a.0))
        }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        unsafe { Avx512(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)) }
    }

    #[inline(always)]
    unsafe fn scale_pow2(self, n: Self) -> Self {
        unsafe {
            let n = _mm512_cvtps_epi32(n.0);
            let half = _mm512_srai_epi32::<1>(n);
            let first = _mm512_mul_ps(self.0, pow2(half));
            Avx512(_mm512_mul_ps(first, pow2(_mm512_sub_epi32(n, half))))
        }
    }

    #[inline(always)]
    unsafe fn fold_add(self) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), upper(self.0));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn fold_max(self) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(_mm512_castps512_ps256(self.0), upper(self.0));
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
