//! The rate of 8-bit arithmetic: independent chains of an instruction set's multiply-accumulate, in registers.
//!
//! Every kernel does the same number of operations in a round, with twelve or sixteen chains for the reason given in
//! `fma.rs`.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "aarch64")]
use std::arch::asm;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use std::hint::black_box;

use super::reference;
use crate::dispatch::{Impl, Simd};
use crate::lanes::LANES;

/// Operations in a round: twelve `vpdpbusd` of 512 bits or twenty-four of 256, twenty-four `vpmaddubsw` or `smmla`,
/// forty-eight `sdot`.
pub(super) const OPS_PER_ROUND: f64 = 1536.0;

/// Does a number of rounds and writes what they came to to the array, so that they cannot be left out.
pub(super) type Kernel = unsafe fn(usize, &mut [i32; LANES]);

/// Best first.
pub(super) static IMPLS: &[Impl<Kernel>] = &[
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::Avx512, run: avx512 },
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::AvxVnni, run: avx_vnni },
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::Avx2, run: avx2 },
    #[cfg(target_arch = "aarch64")]
    Impl { simd: Simd::I8mm, run: i8mm },
    #[cfg(target_arch = "aarch64")]
    Impl { simd: Simd::Neon, run: neon },
    Impl { simd: Simd::Reference, run: reference::int8 },
];

/// Twelve chains, each through the unsigned operand of the next instruction.
///
/// # Safety
/// AVX2 must be available.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2(rounds: usize, out: &mut [i32; LANES]) {
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
/// AVX-VNNI must be available.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
unsafe fn avx_vnni(rounds: usize, out: &mut [i32; LANES]) {
    const CHAINS: usize = 12;
    let (a, b) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(5)));
    let mut chains: [__m256i; CHAINS] = std::array::from_fn(|i| _mm256_set1_epi32(i as i32));
    for _ in 0..2 * rounds {
        for chain in &mut chains {
            *chain = _mm256_dpbusd_avx_epi32(*chain, a, b);
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
unsafe fn avx512(rounds: usize, out: &mut [i32; LANES]) {
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

/// Sixteen chains of one instruction (its mnemonic and the arrangements of its operands, all through inline assembly:
/// the intrinsics are not stable), each through its accumulator.
#[cfg(target_arch = "aarch64")]
macro_rules! chains {
    ($instruction:literal, $steps:expr, $out:expr) => {{
        const CHAINS: usize = 16;
        let (a, b) = (vdupq_n_s8(black_box(3)), vdupq_n_s8(black_box(5)));
        let mut chains: [int32x4_t; CHAINS] = std::array::from_fn(|i| vdupq_n_s32(i as i32));
        for _ in 0..$steps {
            for chain in &mut chains {
                // SAFETY: the instruction is of the features of the function, and touches nothing but registers.
                unsafe {
                    asm!($instruction, acc = inout(vreg) *chain, a = in(vreg) a, b = in(vreg) b,
                         options(pure, nomem, nostack, preserves_flags));
                }
            }
        }
        let total = chains.into_iter().fold(vdupq_n_s32(0), |total, chain| vaddq_s32(total, chain));
        // SAFETY: the array has room for four registers; the first quarter takes the total.
        unsafe { vst1q_s32($out.as_mut_ptr(), total) };
    }};
}

/// # Safety
/// The dot products of Armv8.4 must be available.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
unsafe fn neon(rounds: usize, out: &mut [i32; LANES]) {
    chains!("sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b", 3 * rounds, out);
}

/// # Safety
/// The 8-bit matrix products of Armv8.6 must be available.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn i8mm(rounds: usize, out: &mut [i32; LANES]) {
    // Three halves of sixteen chains; an odd number of rounds does half a step less, of thousands.
    chains!("smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b", 3 * rounds / 2, out);
}
