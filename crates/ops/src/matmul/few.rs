//! Integer panels for a token or two: codes as unpacked, one row per register, sums added across lanes.

use super::avx2::group_sum;
use super::panel::{Panel, Piece, STEP};
use crate::lanes::LANES;
use crate::quant::Format;
use crate::quantise_rows::{BLOCK, QuantisedRows};
use std::arch::x86_64::*;

/// Σ over four neighbours of code times activation, in eight 32-bit lanes.
trait Dot {
    /// # Safety
    /// The instruction set of the implementor must be available.
    unsafe fn dot(codes: __m256i, x: __m256i) -> __m256i;
    /// Whether [`Dot::dot`] has made the codes signed, so that no offset is left to subtract.
    const SIGNED: bool = false;
}

/// `vpdpbusd`: any code.
struct Vnni;

/// `vpmaddubsw`: codes up to 63 (2 · 63 · 127 fits in 16 bits).
struct Narrow;

/// 8-bit codes, made signed and their sign moved to the activation (2 · 128 · 127 fits in 16 bits).
struct Wide;

impl Dot for Vnni {
    #[inline(always)]
    unsafe fn dot(codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller vouches for AVX-512 VNNI and VL.
        unsafe { _mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, x) }
    }
}

impl Dot for Narrow {
    #[inline(always)]
    unsafe fn dot(codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller vouches for AVX2.
        unsafe { _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1)) }
    }
}

impl Dot for Wide {
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn dot(codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller vouches for AVX2.
        unsafe {
            let signed = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
            Narrow::dot(_mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed))
        }
    }
}

/// See `panel::IntegerKernel`.
///
/// # Safety
/// AVX2 and FMA must be available.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn avx2(
    panel: &Panel,
    format: &Format,
    x: &QuantisedRows,
    piece: Piece,
    sums: &mut [[f32; LANES]],
) {
    // SAFETY: the caller vouches for AVX2; `q_max` bounds every code of the panel.
    unsafe {
        if format.q_max <= 63 {
            run::<Narrow>(panel, format, x, piece, sums);
        } else {
            run::<Wide>(panel, format, x, piece, sums);
        }
    }
}

/// See `panel::IntegerKernel`.
///
/// # Safety
/// AVX-512 F, BW, VL and VNNI must be available.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn vnni(
    panel: &Panel,
    format: &Format,
    x: &QuantisedRows,
    piece: Piece,
    sums: &mut [[f32; LANES]],
) {
    // SAFETY: the caller vouches.
    unsafe { run::<Vnni>(panel, format, x, piece, sums) }
}

/// # Safety
/// The instruction set of `D` must be available.
#[inline(always)]
unsafe fn run<D: Dot>(
    panel: &Panel,
    format: &Format,
    x: &QuantisedRows,
    piece: Piece,
    sums: &mut [[f32; LANES]],
) {
    // SAFETY: the caller vouches.
    unsafe {
        match (format.group, format.has_min) {
            (32, false) => tokens::<D, 32, false>(panel, format, x, piece, sums),
            (32, true) => tokens::<D, 32, true>(panel, format, x, piece, sums),
            (16, false) => tokens::<D, 16, false>(panel, format, x, piece, sums),
            (16, true) => tokens::<D, 16, true>(panel, format, x, piece, sums),
            _ => unreachable!("{} has groups of {}: 16 and 32 exist", format.dtype, format.group),
        }
    }
}

/// # Safety
/// The instruction set of `D` must be available.
#[inline(always)]
unsafe fn tokens<D: Dot, const GROUP: usize, const MIN: bool>(
    panel: &Panel,
    format: &Format,
    x: &QuantisedRows,
    piece: Piece,
    sums: &mut [[f32; LANES]],
) {
    assert!(piece.len <= STEP);
    let offset = if D::SIGNED { 0 } else { i32::from(format.offset) };
    for (m, sums) in piece.tokens.clone().zip(sums) {
        let codes = &x.q(m)[piece.from..piece.from + piece.len];
        // SAFETY: offsets stay within the panel (len ≤ STEP) and the piece of x; the caller vouches for the rest.
        unsafe {
            let mut s = [_mm256_loadu_ps(sums.as_ptr()), _mm256_loadu_ps(sums.as_ptr().add(8))];
            for (b, codes) in codes.as_chunks::<BLOCK>().0.iter().enumerate() {
                let (at, codes) = (piece.from + b * BLOCK, _mm256_loadu_si256(codes.as_ptr().cast()));
                let d = x.d(m)[at / BLOCK];
                for half in 0..2 {
                    let rows = panel.q.as_ptr().add(half * 8 * STEP + b * BLOCK);
                    let dots =
                        std::array::from_fn(|r| D::dot(_mm256_load_si256(rows.add(r * STEP).cast()), codes));
                    let [low, high] = add_across(dots);
                    let n = if GROUP == 32 { [_mm256_add_epi32(low, high); 2] } else { [low, high] };
                    for (part, n) in n.into_iter().enumerate().take(BLOCK / GROUP) {
                        let sum = group_sum::<GROUP>(x.sum(m), at + part * GROUP);
                        let n = _mm256_sub_epi32(n, _mm256_set1_epi32(offset * sum));
                        let lane = (b * (BLOCK / GROUP) + part) * LANES + half * 8;
                        let scale = _mm256_loadu_ps(panel.scale.as_ptr().add(lane));
                        let scale = _mm256_mul_ps(scale, _mm256_set1_ps(d));
                        s[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(n), scale, s[half]);
                        if MIN {
                            let min = _mm256_loadu_ps(panel.min.as_ptr().add(lane));
                            s[half] = _mm256_fmadd_ps(min, _mm256_set1_ps(d * sum as f32), s[half]);
                        }
                    }
                }
            }
            _mm256_storeu_ps(sums.as_mut_ptr(), s[0]);
            _mm256_storeu_ps(sums.as_mut_ptr().add(8), s[1]);
        }
    }
}

/// Sums of lanes 0-3 and of lanes 4-7 of each of eight registers, in order.
///
/// # Safety
/// AVX2 must be available.
#[inline(always)]
unsafe fn add_across(n: [__m256i; 8]) -> [__m256i; 2] {
    // SAFETY: the caller vouches.
    unsafe {
        let pairs = |i: usize| _mm256_hadd_epi32(n[i], n[i + 1]);
        let first = _mm256_hadd_epi32(pairs(0), pairs(2)); // rows 0-3, low lanes then high lanes
        let second = _mm256_hadd_epi32(pairs(4), pairs(6)); // rows 4-7
        [_mm256_permute2x128_si256::<0x20>(first, second), _mm256_permute2x128_si256::<0x31>(first, second)]
    }
}
