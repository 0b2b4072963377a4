//! Sixteen words as two AVX2 registers, and two ways to multiply bytes.

use super::{Codes, Words, activations, unroll};
use crate::lanes::Avx2;
use crate::quant::Interleaved;
use crate::quantise_rows::{Block, Part};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Words 0-7 and 8-15; `D` says how bytes are multiplied.
pub(crate) struct Ymm<D>(__m256i, __m256i, PhantomData<D>);

impl<D> Clone for Ymm<D> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Ymm<D> {}

/// How an instruction set multiplies codes with activations: [`Words::dots`] on halves of eight rows.
pub(crate) trait Products: Sized {
    /// See [`Words::dots`].
    ///
    /// # Safety
    /// As there.
    unsafe fn dots<F: Interleaved, const M: usize>(
        codes: impl Codes<Ymm<Self>>,
        x: *const Block,
        part: Part,
    ) -> [Ymm<Self>; M];
}

/// AVX2: `vpmaddubsw` multiplies unsigned codes with signed activations and adds pairs in 16 bits.
pub(crate) struct Maddubs;

/// AVX-VNNI: `vpdpbusd` adds four products in 32 bits.
pub(crate) struct Vnni;

/// The same operation on both halves.
macro_rules! both {
    ($words:expr, $half:ident => $op:expr) => {{
        let Ymm(first, second, _) = $words;
        let first = {
            let $half = first;
            $op
        };
        let $half = second;
        Ymm(first, $op, PhantomData)
    }};
}

// SAFETY of all bodies: the trait's callers vouch for AVX2, FMA and the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<D: Products> Words for Ymm<D> {
    type Floats = Avx2;

    #[inline(always)]
    unsafe fn load(src: *const u8) -> Self {
        unsafe { Ymm(_mm256_loadu_si256(src.cast()), _mm256_loadu_si256(src.add(32).cast()), PhantomData) }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut u8) {
        unsafe {
            _mm256_storeu_si256(dst.cast(), self.0);
            _mm256_storeu_si256(dst.add(32).cast(), self.1);
        }
    }

    #[inline(always)]
    unsafe fn and(self, mask: u32) -> Self {
        unsafe { both!(self, a => _mm256_and_si256(a, _mm256_set1_epi32(mask as i32))) }
    }

    #[inline(always)]
    unsafe fn or(self, b: Self) -> Self {
        unsafe { Ymm(_mm256_or_si256(self.0, b.0), _mm256_or_si256(self.1, b.1), PhantomData) }
    }

    #[inline(always)]
    unsafe fn xor(self, mask: u32) -> Self {
        unsafe { both!(self, a => _mm256_xor_si256(a, _mm256_set1_epi32(mask as i32))) }
    }

    #[inline(always)]
    unsafe fn shift_left(self, n: usize) -> Self {
        unsafe { both!(self, a => _mm256_sll_epi32(a, _mm_cvtsi32_si128(n as i32))) }
    }

    #[inline(always)]
    unsafe fn shift_right(self, n: usize) -> Self {
        unsafe { both!(self, a => _mm256_srl_epi32(a, _mm_cvtsi32_si128(n as i32))) }
    }

    #[inline(always)]
    unsafe fn shift_right_signed(self, n: usize) -> Self {
        unsafe { both!(self, a => _mm256_sra_epi32(a, _mm_cvtsi32_si128(n as i32))) }
    }

    #[inline(always)]
    unsafe fn lookup(self, table: &[u8; 16]) -> Self {
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            both!(self, a => _mm256_shuffle_epi8(table, a))
        }
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Avx2 {
        unsafe { Avx2(_mm256_cvtepi32_ps(self.0), _mm256_cvtepi32_ps(self.1)) }
    }

    #[inline(always)]
    unsafe fn dots<F: Interleaved, const M: usize>(
        codes: impl Codes<Self>,
        x: *const Block,
        part: Part,
    ) -> [Self; M] {
        unsafe { D::dots::<F, M>(codes, x, part) }
    }
}

impl Products for Maddubs {
    #[inline(always)]
    unsafe fn dots<F: Interleaved, const M: usize>(
        codes: impl Codes<Ymm<Self>>,
        x: *const Block,
        part: Part,
    ) -> [Ymm<Self>; M] {
        // SAFETY: the caller vouches.
        unsafe {
            if F::FORMAT.q_max <= 63 { narrow::<F, M>(codes, x, part) } else { wide::<F, M>(codes, x, part) }
        }
    }
}

/// Makes the compiler have `v` in a register here. Without it the sums of one token after the other are computed, and
/// what the tokens share is loaded anew for each; with it tokens take turns and share.
///
/// # Safety
/// AVX2 must be available.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn keep(v: &mut __m256i) {
    // SAFETY: the text is empty.
    unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) * v, options(nomem, nostack, preserves_flags)) }
}

/// What is subtracted from codes so that a whole group adds up in 16 bits: an accumulator takes half of the group's
/// products, and |code − centre| · 127 · group / 2 stays within 32,767 (31 · 127 · 16 would not, 16 · 127 · 16 does).
const fn centre(q_max: u8, group: usize) -> u32 {
    if q_max as usize * 127 * group / 2 <= 32767 { 0 } else { (q_max as u32).div_ceil(2) }
}

/// Codes of up to 63: pairs (at most 2 · 63 · 127) do not saturate, and their sum is right modulo 2^16 however far it
/// strays on the way, so that once the centre is taken away it is right.
///
/// # Safety
/// As [`Words::dots`].
#[inline(always)]
unsafe fn narrow<F: Interleaved, const M: usize>(
    codes: impl Codes<Ymm<Maddubs>>,
    x: *const Block,
    part: Part,
) -> [Ymm<Maddubs>; M] {
    let (group, offset) = (F::FORMAT.group, i32::from(F::FORMAT.offset));
    let centre = const { centre(F::FORMAT.q_max, F::FORMAT.group) };
    // SAFETY: the caller vouches.
    unsafe {
        let mut pairs = [[_mm256_setzero_si256(); 2]; M];
        unroll!(j in [0 1 2 3 4 5 6 7] {
            if 4 * j < group {
                let w = codes.code(j);
                for i in 0..M {
                    let x = _mm256_set1_epi32(activations(x.add(i), part.first() + 4 * j));
                    pairs[i][0] = _mm256_add_epi16(pairs[i][0], _mm256_maddubs_epi16(w.0, x));
                    pairs[i][1] = _mm256_add_epi16(pairs[i][1], _mm256_maddubs_epi16(w.1, x));
                    if M > 1 {
                        keep(&mut pairs[i][0]);
                        keep(&mut pairs[i][1]);
                    }
                }
            }
        });
        let mut n = [Ymm(_mm256_setzero_si256(), _mm256_setzero_si256(), PhantomData); M];
        for i in 0..M {
            let block = &*x.add(i);
            let [mut low, mut high] = pairs[i];
            if centre > 0 {
                let sums = _mm256_set1_epi32(block.pairs[part as usize]);
                let sums = _mm256_sll_epi16(sums, _mm_cvtsi32_si128(centre.trailing_zeros() as i32));
                (low, high) = (_mm256_sub_epi16(low, sums), _mm256_sub_epi16(high, sums));
            }
            let ones = _mm256_set1_epi16(1);
            (low, high) = (_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones));
            if centre as i32 != offset {
                let rest = _mm256_set1_epi32((centre as i32 - offset) * block.sum[part as usize]);
                (low, high) = (_mm256_add_epi32(low, rest), _mm256_add_epi32(high, rest));
            }
            n[i] = Ymm(low, high, PhantomData);
        }
        n
    }
}

/// 8-bit codes with offset 128 are made signed and their sign moved to the activation (2 · 128 · 127 fits in 16 bits).
///
/// # Safety
/// As [`Words::dots`].
#[inline(always)]
unsafe fn wide<F: Interleaved, const M: usize>(
    codes: impl Codes<Ymm<Maddubs>>,
    x: *const Block,
    part: Part,
) -> [Ymm<Maddubs>; M] {
    assert!(F::FORMAT.offset == 128, "{} has 8-bit codes with another offset", F::FORMAT.dtype);
    // SAFETY: the caller vouches.
    unsafe {
        let mut n = [Ymm(_mm256_setzero_si256(), _mm256_setzero_si256(), PhantomData); M];
        unroll!(j in [0 1 2 3 4 5 6 7] {
            if 4 * j < F::FORMAT.group {
                let signed = codes.code(j).xor(0x8080_8080);
                let magnitude: Ymm<Maddubs> = both!(signed, w => _mm256_abs_epi8(w));
                let ones = _mm256_set1_epi16(1);
                for i in 0..M {
                    let x = _mm256_set1_epi32(activations(x.add(i), part.first() + 4 * j));
                    let low = _mm256_maddubs_epi16(magnitude.0, _mm256_sign_epi8(x, signed.0));
                    let high = _mm256_maddubs_epi16(magnitude.1, _mm256_sign_epi8(x, signed.1));
                    n[i].0 = _mm256_add_epi32(n[i].0, _mm256_madd_epi16(low, ones));
                    n[i].1 = _mm256_add_epi32(n[i].1, _mm256_madd_epi16(high, ones));
                    if M > 1 {
                        keep(&mut n[i].0);
                        keep(&mut n[i].1);
                    }
                }
            }
        });
        n
    }
}

impl Products for Vnni {
    #[inline(always)]
    unsafe fn dots<F: Interleaved, const M: usize>(
        codes: impl Codes<Ymm<Self>>,
        x: *const Block,
        part: Part,
    ) -> [Ymm<Self>; M] {
        // SAFETY: the caller vouches.
        unsafe {
            let mut n = [Ymm(_mm256_setzero_si256(), _mm256_setzero_si256(), PhantomData); M];
            for i in 0..M {
                let rest = _mm256_set1_epi32(-i32::from(F::FORMAT.offset) * (&*x.add(i)).sum[part as usize]);
                n[i] = Ymm(rest, rest, PhantomData);
            }
            unroll!(j in [0 1 2 3 4 5 6 7] {
                if 4 * j < F::FORMAT.group {
                    let w = codes.code(j);
                    for i in 0..M {
                        let x = _mm256_set1_epi32(activations(x.add(i), part.first() + 4 * j));
                        n[i].0 = _mm256_dpbusd_avx_epi32(n[i].0, w.0, x);
                        n[i].1 = _mm256_dpbusd_avx_epi32(n[i].1, w.1, x);
                    }
                }
            });
            n
        }
    }
}
