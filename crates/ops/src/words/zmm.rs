//! Sixteen words as one AVX-512 register; `vpdpbusd` adds four products of any codes in 32 bits.

use super::{Codes, Words, activations, unroll};
use crate::lanes::Avx512;
use crate::quant::Interleaved;
use crate::quantise_rows::{Block, Part};
use std::arch::x86_64::*;

/// Words 0-15.
#[derive(Clone, Copy)]
pub(crate) struct Zmm(__m512i);

// SAFETY of all bodies: the trait's callers vouch for AVX-512 F, BW, VNNI and the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Words for Zmm {
    type Floats = Avx512;

    #[inline(always)]
    unsafe fn load(src: *const u8) -> Self {
        unsafe { Zmm(_mm512_loadu_si512(src.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut u8) {
        unsafe { _mm512_storeu_si512(dst.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn and(self, mask: u32) -> Self {
        unsafe { Zmm(_mm512_and_si512(self.0, _mm512_set1_epi32(mask as i32))) }
    }

    #[inline(always)]
    unsafe fn or(self, b: Self) -> Self {
        unsafe { Zmm(_mm512_or_si512(self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn xor(self, mask: u32) -> Self {
        unsafe { Zmm(_mm512_xor_si512(self.0, _mm512_set1_epi32(mask as i32))) }
    }

    #[inline(always)]
    unsafe fn shift_left(self, n: usize) -> Self {
        unsafe { Zmm(_mm512_sll_epi32(self.0, _mm_cvtsi32_si128(n as i32))) }
    }

    #[inline(always)]
    unsafe fn shift_right(self, n: usize) -> Self {
        unsafe { Zmm(_mm512_srl_epi32(self.0, _mm_cvtsi32_si128(n as i32))) }
    }

    #[inline(always)]
    unsafe fn shift_right_signed(self, n: usize) -> Self {
        unsafe { Zmm(_mm512_sra_epi32(self.0, _mm_cvtsi32_si128(n as i32))) }
    }

    #[inline(always)]
    unsafe fn lookup(self, table: &[u8; 16]) -> Self {
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            Zmm(_mm512_shuffle_epi8(table, self.0))
        }
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Avx512 {
        unsafe { Avx512(_mm512_cvtepi32_ps(self.0)) }
    }

    #[inline(always)]
    unsafe fn dots<F: Interleaved, const M: usize>(
        codes: impl Codes<Self>,
        x: *const Block,
        part: Part,
    ) -> [Self; M] {
        unsafe {
            let mut n = [Zmm(_mm512_setzero_si512()); M];
            if F::FORMAT.offset > 0 {
                for i in 0..M {
                    let sum = Zmm(_mm512_set1_epi32((&*x.add(i)).sum[part as usize]));
                    let shifted = sum.shift_left(F::FORMAT.offset.trailing_zeros() as usize);
                    n[i].0 = _mm512_sub_epi32(n[i].0, shifted.0);
                }
            }
            unroll!(j in [0 1 2 3 4 5 6 7] {
                if 4 * j < F::FORMAT.group {
                    let w = codes.code(j).0;
                    for i in 0..M {
                        let x = _mm512_set1_epi32(activations(x.add(i), part.first() + 4 * j));
                        n[i].0 = _mm512_dpbusd_epi32(n[i].0, w, x);
                    }
                }
            });
            n
        }
    }
}
