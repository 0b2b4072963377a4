//! Q2_K: 256 2-bit codes in groups of 16, with 4-bit scales and minima; 84 bytes.
//!
//! ```text
//! 0..16    scales   byte g: scale of group g in the low nibble, minimum in the high one
//! 16..80   qs       codes; see below
//! 80..82   d        f16, unit of the scales
//! 82..84   dmin     f16, unit of the minima
//! x[i] = d · scale[g] · q[i] − dmin · min[g],   g = i / 16
//! ```
//!
//! Element 128h + 32s + j (h < 2, s < 4, j < 32) is in bits 2s + 1 and 2s of byte 32h + j of `qs`.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use tangelo_core::DType;

use super::Format;
use super::bits::{f16, field, field_mut, put_f16};
use super::fit::{affine, clip_code, inverse, unsigned_multiples};
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::dispatch::{Impl, Simd};

const BYTES: usize = DType::Q2K.block_bytes();
const Q_MAX: u8 = 3;

pub(super) static FORMAT: Format = Format {
    dtype: DType::Q2K,
    group: 16,
    offset: 0,
    has_min: true,
    q_max: Q_MAX,
    unpack: &[
        #[cfg(target_arch = "x86_64")]
        Impl { simd: Simd::Avx2, run: avx2 },
        Impl { simd: Simd::Reference, run: reference },
    ],
    encode,
};

fn reference(src: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    let groups = scale.as_chunks_mut::<16>().0.iter_mut().zip(min.as_chunks_mut::<16>().0);
    for ((block, q), (scale, min)) in
        src.as_chunks::<BYTES>().0.iter().zip(q.as_chunks_mut::<256>().0).zip(groups)
    {
        let (d, dmin) = (f16(block, 80), f16(block, 82));
        for g in 0..16 {
            scale[g] = d * f32::from(block[g] & 0xf);
            min[g] = -(dmin * f32::from(block[g] >> 4));
        }
        unpack_pairs(field(block, 16), q);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn avx2(src: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    let groups = scale.as_chunks_mut::<16>().0.iter_mut().zip(min.as_chunks_mut::<16>().0);
    for ((block, q), (scale, min)) in
        src.as_chunks::<BYTES>().0.iter().zip(q.as_chunks_mut::<256>().0).zip(groups)
    {
        let (d, dmin) = (x86::f16(block, 80), x86::f16(block, 82));
        for half in 0..2 {
            let codes = x86::widen8(field(block, 8 * half));
            let nibble = _mm256_set1_epi32(0xf);
            x86::store_multiples(&mut scale[8 * half..], d, _mm256_and_si256(codes, nibble));
            x86::store_multiples(&mut min[8 * half..], -dmin, _mm256_srli_epi32::<4>(codes));
        }
        for g in 0..8 {
            let pairs = x86::load32(field(block, 16 + g / 4 * 32));
            x86::store32(&mut q[32 * g..], x86::move_bits(pairs, 2 * (g % 4), 0, 3));
        }
    }
}

/// The 2-bit fields of 64 bytes in the order given at the head of this file.
#[inline]
pub(super) fn unpack_pairs(packed: &[u8; 64], q: &mut [u8; 256]) {
    for (i, q) in q.iter_mut().enumerate() {
        let (h, s, j) = (i / 128, i / 32 % 4, i % 32);
        *q = packed[32 * h + j] >> (2 * s) & 3;
    }
}

/// Inverse of [`unpack_pairs`]; bits above the low two of `q` are dropped.
#[inline]
pub(super) fn pack_pairs(q: &[u8; 256], packed: &mut [u8; 64]) {
    packed.fill(0);
    for (i, q) in q.iter().enumerate() {
        let (h, s, j) = (i / 128, i / 32 % 4, i % 32);
        packed[32 * h + j] |= (q & 3) << (2 * s);
    }
}

/// Fits each group by least squares, then rounds scales and minima to 4 bits and the elements against those.
fn encode(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let groups = x.as_chunks::<16>().0;
        let (mut scale, mut min) = ([0f32; 16], [0f32; 16]);
        for g in 0..16 {
            (scale[g], min[g]) = affine(&groups[g], Q_MAX);
        }
        let (scale, min) = (unsigned_multiples(scale, 15), unsigned_multiples(min, 15));
        let mut q = [0u8; 256];
        for g in 0..16 {
            let per = inverse(scale.d * f32::from(scale.code[g]));
            let min_g = min.d * f32::from(min.code[g]);
            for (q, x) in q[16 * g..].iter_mut().zip(&groups[g]) {
                *q = clip_code((x + min_g) * per + 0.5, Q_MAX);
            }
            block[g] = scale.code[g] | (min.code[g] << 4);
        }
        pack_pairs(&q, field_mut(block, 16));
        put_f16(block, 80, scale.d);
        put_f16(block, 82, min.d);
    }
}
