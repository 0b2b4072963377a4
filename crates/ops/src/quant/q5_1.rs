//! Q5_1: 32 5-bit codes under one f16 scale, above one f16 minimum; 24 bytes.
//!
//! ```text
//! 0..2    d    f16
//! 2..4    m    f16
//! 4..8    qh   u32: bit i is bit 4 of element i
//! 8..24   qs   byte j: bits 3-0 of element j in the low nibble, of element j + 16 in the high one
//! x[i] = d · q[i] + m
//! ```

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use tangelo_core::DType;

use super::Format;
use super::bits::{
    f16, field, field_mut, gather_fifth_bits, join_nibbles, put_f16, split_nibbles, spread_fifth_bits,
};
use super::fit::{clip_code, clip_f16, inverse, range};
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::dispatch::{Impl, Simd};

const BYTES: usize = DType::Q5_1.block_bytes();

pub(super) static FORMAT: Format = Format {
    dtype: DType::Q5_1,
    group: 32,
    offset: 0,
    has_min: true,
    q_max: 31,
    unpack: &[
        #[cfg(target_arch = "x86_64")]
        Impl { simd: Simd::Avx2, run: avx2 },
        Impl { simd: Simd::Reference, run: reference },
    ],
    encode,
};

fn reference(src: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    let blocks = src.as_chunks::<BYTES>().0;
    for (((block, q), scale), min) in blocks.iter().zip(q.as_chunks_mut::<32>().0).zip(scale).zip(min) {
        *scale = f16(block, 0);
        *min = f16(block, 2);
        split_nibbles::<16>(field(block, 8), q);
        spread_fifth_bits(u32::from_le_bytes(*field(block, 4)), q);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn avx2(src: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    let blocks = src.as_chunks::<BYTES>().0;
    for (((block, q), scale), min) in blocks.iter().zip(q.as_chunks_mut::<32>().0).zip(scale).zip(min) {
        *scale = x86::f16(block, 0);
        *min = x86::f16(block, 2);
        let fifth = x86::spread_fifth_bits(u32::from_le_bytes(*field(block, 4)));
        x86::store32(q, _mm256_or_si256(x86::split_nibbles(field(block, 8)), fifth));
    }
}

/// From the minimum to the maximum in 31 equal steps; halves go up: the bytes of ggml's own quantiser.
fn encode(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let (lo, hi) = range(x);
        let d = clip_f16((hi - lo) / 31.0);
        let m = clip_f16(lo);
        let per = inverse(d);
        let q = x.map(|x| clip_code((x - m) * per + 0.5, 31));
        put_f16(block, 0, d);
        put_f16(block, 2, m);
        *field_mut(block, 4) = gather_fifth_bits(&q).to_le_bytes();
        join_nibbles::<16>(&q, field_mut(block, 8));
    }
}
