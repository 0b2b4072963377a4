//! Integer panels with AVX-512 VNNI: `vpdpbusd` multiplies four unsigned codes with four signed activations per
//! lane and adds them in 32 bits, without saturation for any code.

use super::avx2::group_sum;
use super::panel::{Panel, Piece};
use crate::lanes::LANES;
use crate::quant::Format;
use crate::quantise_rows::QuantisedRows;
use std::arch::x86_64::*;

/// Rows of x taken together.
const ROWS: usize = 6;

/// See `panel::IntegerKernel`.
///
/// # Safety
/// AVX-512 F, BW, VL and VNNI must be available.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn integer(
    panel: &Panel,
    format: &Format,
    x: &QuantisedRows,
    piece: Piece,
    sums: &mut [[f32; LANES]],
) {
    // SAFETY: the caller vouches.
    unsafe {
        match (format.group, format.has_min) {
            (32, false) => tokens::<32, false>(panel, format, x, piece, sums),
            (32, true) => tokens::<32, true>(panel, format, x, piece, sums),
            (16, false) => tokens::<16, false>(panel, format, x, piece, sums),
            (16, true) => tokens::<16, true>(panel, format, x, piece, sums),
            _ => unreachable!("{} has groups of {}: 16 and 32 exist", format.dtype, format.group),
        }
    }
}

/// # Safety
/// As [`integer`].
#[inline(always)]
unsafe fn tokens<const GROUP: usize, const MIN: bool>(
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
            block::<GROUP, MIN, ROWS>(panel, format.offset, x, m, &piece, sums);
            m += ROWS;
        }
        while m < tokens.end {
            let sums = &mut sums[m - tokens.start..];
            block::<GROUP, MIN, 1>(panel, format.offset, x, m, &piece, sums);
            m += 1;
        }
    }
}

/// # Safety
/// As [`integer`].
#[inline(always)]
unsafe fn block<const GROUP: usize, const MIN: bool, const M: usize>(
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
        let mut s: [__m512; M] = std::array::from_fn(|i| _mm512_loadu_ps(sums[i].as_ptr()));
        for g in 0..piece.len / GROUP {
            let at = piece.from + g * GROUP;
            let sum: [i32; M] = std::array::from_fn(|i| group_sum::<GROUP>(x.sum(m + i), at));
            let mut n: [__m512i; M] = std::array::from_fn(|i| _mm512_set1_epi32(-i32::from(offset) * sum[i]));
            for k in (g * GROUP..(g + 1) * GROUP).step_by(4) {
                let w = _mm512_load_si512(panel.q.as_ptr().add(k * LANES).cast());
                for i in 0..M {
                    let x = codes[i].as_ptr().add(k).cast::<i32>().read_unaligned();
                    n[i] = _mm512_dpbusd_epi32(n[i], w, _mm512_set1_epi32(x));
                }
            }
            let scale = _mm512_loadu_ps(panel.scale.as_ptr().add(g * LANES));
            for i in 0..M {
                let d = x.d(m + i)[at / 32];
                s[i] =
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(n[i]), _mm512_mul_ps(scale, _mm512_set1_ps(d)), s[i]);
                if MIN {
                    let min = _mm512_loadu_ps(panel.min.as_ptr().add(g * LANES));
                    s[i] = _mm512_fmadd_ps(min, _mm512_set1_ps(d * sum[i] as f32), s[i]);
                }
            }
        }
        for i in 0..M {
            _mm512_storeu_ps(sums[i].as_mut_ptr(), s[i]);
        }
    }
}
