//! The rate of f32 arithmetic: independent chains of fused multiply-adds, in registers.
//!
//! A chain is as fast as the latency of its instruction (four or five cycles), so there must be at least
//! latency × throughput of them: eight on the x86-64 processors of today, sixteen on Apple's. There are at least twelve.

use std::hint::black_box;

use super::reference;
use crate::lanes::{LANES, Lanes, over_lanes};

/// Multiply-adds of sixteen lanes in a round.
pub(super) const FMAS_PER_ROUND: usize = 12;
/// Operations in a round.
pub(super) const OPS_PER_ROUND: f64 = (FMAS_PER_ROUND * LANES * 2) as f64;

/// Does a number of rounds and adds what they came to to the array, so that they cannot be left out.
pub(super) type Kernel = unsafe fn(usize, &mut [f32; LANES]);

over_lanes! {
    /// Rounds of fused multiply-adds.
    pub(super) static IMPLS: Kernel = fma(rounds: usize, out: &mut [f32; LANES]), reference::fma
}

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
