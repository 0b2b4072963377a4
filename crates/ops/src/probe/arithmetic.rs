//! Rates of arithmetic: independent chains of one instruction, in registers.
//!
//! A chain is as fast as the latency of its instruction (four or five cycles), so there must be at least
//! latency × throughput of them: eight on the x86-64 processors of today. There are twelve where the registers
//! suffice.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::hint::black_box;

use super::reference;
use crate::dispatch::{Impl, Simd};
use crate::lanes::{LANES, Lanes, over_lanes};

/// Multiply-adds of sixteen lanes in a round.
pub(super) const FMAS_PER_ROUND: usize = 12;
/// f32 operations in a round.
pub(super) const FLOPS_PER_ROUND: f64 = (FMAS_PER_ROUND * LANES * 2) as f64;
/// 8-bit operations in a round: twelve `vpdpbusd` or twenty-four `vpmaddubsw`.
pub(super) const INT8_OPS_PER_ROUND: f64 = 1536.0;

/// Does a number of rounds and adds what they came to to the array, so that they cannot be left out.
pub(super) type Fma = unsafe fn(usize, &mut [f32; LANES]);
/// As [`Fma`], on integers.
pub(super) type Int8 = unsafe fn(usize, &mut [i32; LANES]);

over_lanes! {
    /// Rounds of fused multiply-adds.
    pub(super) static FMA: Fma = fma(rounds: usize, out: &mut [f32; LANES]), reference::fma
}

/// Rounds of products of 8-bit integers.
pub(super) static INT8: &[Impl<Int8>] = &[
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::Avx512, run: int8_avx512 },
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::Avx2, run: int8_avx2 },
    Impl { simd: Simd::Reference, run: reference::int8 },
];

/// Sixteen lanes are one register, two or four, and the narrower ones are not more numerous: as many chains as fit.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn fma<V: Lanes>(rounds: usize, out: &mut [f32; LANES]) {
    const WIDEST: usize = 64;
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        if align_of::<V>() == WIDEST {
            fma_chains::<V, FMAS_PER_ROUND>(rounds, out);
        } else {
            fma_chains::<V, { FMAS_PER_ROUND / 2 }>(2 * rounds, out);
        }
    }
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn fma_chains<V: Lanes, const CHAINS: usize>(steps: usize, out: &mut [f32; LANES]) {
    // SAFETY: `out` has sixteen elements; the caller vouches for the instruction set.
    unsafe {
        // Chains tend to 2, whatever they start from, and never to a denormal number.
        let (a, b) = (V::splat(black_box(0.5)), V::splat(black_box(1.0)));
        let mut chains: [V; CHAINS] = std::array::from_fn(|i| V::splat(i as f32));
        for _ in 0..steps {
            for chain in &mut chains {
                *chain = chain.fma(a, b);
            }
        }
        let total = chains.into_iter().fold(V::load(out.as_ptr()), |total, chain| total.add(chain));
        total.store(out.as_mut_ptr());
    }
}

/// Twelve chains, each through the unsigned operand of the next instruction.
///
/// # Safety
/// AVX2 must be available.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn int8_avx2(rounds: usize, out: &mut [i32; LANES]) {
    const CHAINS: usize = 12;
    let b = _mm256_set1_epi8(black_box(3));
    let mut chains: [__m256i; CHAINS] = std::array::from_fn(|i| _mm256_set1_epi8(i as i8 + 1));
    for _ in 0..2 * rounds {
        for chain in &mut chains {
            *chain = _mm256_maddubs_epi16(*chain, b);
        }
    }
    let total =
        chains.into_iter().fold(_mm256_setzero_si256(), |total, chain| _mm256_add_epi32(total, chain));
    // SAFETY: the array has room for two registers; the first half takes the total.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), total) };
}

/// Twelve chains, each through its accumulator.
///
/// # Safety
/// AVX-512 with VNNI must be available.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn int8_avx512(rounds: usize, out: &mut [i32; LANES]) {
    const CHAINS: usize = 12;
    let (a, b) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(5)));
    let mut chains: [__m512i; CHAINS] = std::array::from_fn(|i| _mm512_set1_epi32(i as i32));
    for _ in 0..rounds {
        for chain in &mut chains {
            *chain = _mm512_dpbusd_epi32(*chain, a, b);
        }
    }
    let total =
        chains.into_iter().fold(_mm512_setzero_si512(), |total, chain| _mm512_add_epi32(total, chain));
    // SAFETY: the array is as large as the register.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), total) };
}
