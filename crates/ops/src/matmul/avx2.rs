//! Integer panels with AVX2: `vpmaddubsw` multiplies unsigned weights with signed activations and adds pairs
//! in 16 bits.
//!
//! Codes of up to 63 leave room to add several such pairs before widening: n pairs of codes up to q_max stay within
//! n · 2 · q_max · 127, which must not exceed 32,767. 8-bit codes do not fit at all; those are made signed, and the sign
//! is moved to the activation (|w| ≤ 128, |x| ≤ 127: 2 · 128 · 127 fits).

use super::panel::{Panel, Piece};
use crate::lanes::{LANES, transpose_8x8};
use crate::quant::Format;
use crate::quantise_rows::QuantisedRows;
use std::arch::x86_64::*;

/// Rows of x taken together.
const ROWS: usize = 2;

/// See `panel::IntegerKernel`.
///
/// # Safety
/// AVX2 and FMA must be available.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn integer(
    panel: &Panel,
    format: &Format,
    x: &QuantisedRows,
    piece: Piece,
    sums: &mut [[f32; LANES]],
) {
    // SAFETY: the caller vouches for AVX2; `q_max` bounds every code of the panel.
    unsafe {
        match (format.group, format.has_min, format.q_max) {
            (32, false, ..=15) => tokens::<32, false, 8>(panel, format, x, piece, sums),
            (32, true, ..=15) => tokens::<32, true, 8>(panel, format, x, piece, sums),
            (32, false, ..=31) => tokens::<32, false, 4>(panel, format, x, piece, sums),
            (32, true, ..=31) => tokens::<32, true, 4>(panel, format, x, piece, sums),
            (16, false, ..=31) => tokens::<16, false, 4>(panel, format, x, piece, sums),
            (16, true, ..=31) => tokens::<16, true, 4>(panel, format, x, piece, sums),
            (16, false, ..=63) => tokens::<16, false, 2>(panel, format, x, piece, sums),
            (32, false, _) => tokens::<32, false, 0>(panel, format, x, piece, sums),
            _ => unreachable!("{} has no kernel: groups and code ranges are listed above", format.dtype),
        }
    }
}

/// `FOLD`: products added in 16 bits before widening; 0 for 8-bit codes.
///
/// # Safety
/// AVX2 and FMA must be available; `FOLD · 2 · q_max · 127 ≤ 32767`.
#[inline(always)]
unsafe fn tokens<const GROUP: usize, const MIN: bool, const FOLD: usize>(
    panel: &Panel,
    format: &Format,
    x: &QuantisedRows,
    piece: Piece,
    sums: &mut [[f32; LANES]],
) {
    let tokens = piece.tokens.clone();
    let mut m = tokens.start;
    // SAFETY: the caller vouches.
    unsafe {
        while m + ROWS <= tokens.end {
            let sums = &mut sums[m - tokens.start..];
            block::<GROUP, MIN, FOLD, ROWS>(panel, format.offset, x, m, &piece, sums);
            m += ROWS;
        }
        while m < tokens.end {
            let sums = &mut sums[m - tokens.start..];
            block::<GROUP, MIN, FOLD, 1>(panel, format.offset, x, m, &piece, sums);
            m += 1;
        }
    }
}

/// # Safety
/// As [`tokens`].
#[inline(always)]
unsafe fn block<const GROUP: usize, const MIN: bool, const FOLD: usize, const M: usize>(
    panel: &Panel,
    offset: u8,
    x: &QuantisedRows,
    m: usize,
    piece: &Piece,
    sums: &mut [[f32; LANES]],
) {
    assert!(piece.len <= super::panel::STEP && sums.len() >= M);
    let codes: [&[i8]; M] = std::array::from_fn(|i| &x.q(m + i)[piece.from..piece.from + piece.len]);
    // SAFETY: every offset below stays within the panel (len ≤ STEP) and the pieces of x; the caller vouches
    // for the rest.
    unsafe {
        let mut s: [[__m256; 2]; M] = std::array::from_fn(|i| {
            [_mm256_loadu_ps(sums[i].as_ptr()), _mm256_loadu_ps(sums[i].as_ptr().add(8))]
        });
        for g in 0..piece.len / GROUP {
            let at = piece.from + g * GROUP;
            let sum: [i32; M] = std::array::from_fn(|i| group_sum::<GROUP>(x.sum(m + i), at));
            let n = dot::<GROUP, FOLD, M>(panel, offset, &codes, g * GROUP, sum);
            for i in 0..M {
                let d = x.d(m + i)[at / 32];
                for half in 0..2 {
                    let lane = g * LANES + half * 8;
                    let scale = _mm256_loadu_ps(panel.scale.as_ptr().add(lane));
                    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(d));
                    s[i][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(n[i][half]), scale, s[i][half]);
                    if MIN {
                        let min = _mm256_loadu_ps(panel.min.as_ptr().add(lane));
                        s[i][half] = _mm256_fmadd_ps(min, _mm256_set1_ps(d * sum[i] as f32), s[i][half]);
                    }
                }
            }
        }
        for i in 0..M {
            _mm256_storeu_ps(sums[i].as_mut_ptr(), s[i][0]);
            _mm256_storeu_ps(sums[i].as_mut_ptr().add(8), s[i][1]);
        }
    }
}

/// Σ qx over the group starting at element `at`.
#[inline(always)]
pub(super) fn group_sum<const GROUP: usize>(sums: &[i32], at: usize) -> i32 {
    if GROUP == 16 { sums[at / 16] } else { sums[at / 16] + sums[at / 16 + 1] }
}

/// Σ (qw − offset) · qx over the group starting at `k`, for sixteen rows in two registers.
///
/// # Safety
/// As [`tokens`].
#[inline(always)]
unsafe fn dot<const GROUP: usize, const FOLD: usize, const M: usize>(
    panel: &Panel,
    offset: u8,
    codes: &[&[i8]; M],
    k: usize,
    sum: [i32; M],
) -> [[__m256i; 2]; M] {
    // SAFETY: the caller vouches.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let bias = if FOLD == 0 { 0 } else { i32::from(offset) };
        let mut n: [[__m256i; 2]; M] = std::array::from_fn(|i| [_mm256_set1_epi32(-bias * sum[i]); 2]);
        let fold = if FOLD == 0 { 1 } else { FOLD };
        for k in (k..k + GROUP).step_by(4 * fold) {
            let mut pairs = [[_mm256_setzero_si256(); 2]; M];
            for k in (k..k + 4 * fold).step_by(4) {
                let w = panel.q.as_ptr().add(k * LANES);
                let w = [_mm256_load_si256(w.cast()), _mm256_load_si256(w.add(32).cast())];
                for i in 0..M {
                    let x = _mm256_set1_epi32(codes[i].as_ptr().add(k).cast::<i32>().read_unaligned());
                    for half in 0..2 {
                        pairs[i][half] = _mm256_add_epi16(pairs[i][half], multiply::<FOLD>(w[half], x));
                    }
                }
            }
            for i in 0..M {
                for half in 0..2 {
                    n[i][half] = _mm256_add_epi32(n[i][half], _mm256_madd_epi16(pairs[i][half], ones));
                }
            }
        }
        n
    }
}

/// Products of four codes and four activations per 32-bit lane, added in pairs.
///
/// # Safety
/// AVX2 must be available.
#[inline(always)]
unsafe fn multiply<const FOLD: usize>(w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the caller vouches.
    unsafe {
        if FOLD == 0 {
            let signed = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
            _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed))
        } else {
            _mm256_maddubs_epi16(w, x)
        }
    }
}

/// See `panel::Transpose`.
///
/// # Safety
/// AVX2 must be available; `rows` must hold 16 rows of `stride ≥ n` elements, `out` room for n · 16, n a
/// multiple of 8.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn transpose(rows: *const u32, stride: usize, n: usize, out: *mut u32) {
    for k in (0..n).step_by(8) {
        for half in 0..2 {
            // SAFETY: eight rows from 8 · half, eight elements from k, both in range as the caller vouches.
            unsafe {
                let block: [__m256; 8] =
                    std::array::from_fn(|r| _mm256_loadu_ps(rows.add((half * 8 + r) * stride + k).cast()));
                for (i, column) in transpose_8x8(block).into_iter().enumerate() {
                    _mm256_storeu_ps(out.add((k + i) * LANES + half * 8).cast(), column);
                }
            }
        }
    }
}
