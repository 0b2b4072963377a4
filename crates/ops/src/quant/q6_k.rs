//! Q6_K: 256 6-bit codes with offset 32 in groups of 16, with signed 8-bit scales; 210 bytes.
//!
//! ```text
//! 0..128     ql       bits 3-0 of the codes; see below
//! 128..192   qh       bits 5-4 of the codes, packed as in Q2_K
//! 192..208   scales   16 × i8
//! 208..210   d        f16, unit of the scales
//! x[i] = d · scale[g] · (q[i] − 32),   g = i / 16
//! ```
//!
//! Byte 64h + j of `ql` (h < 2, j < 64) holds element 128h + j in its low nibble and 128h + 64 + j in its
//! high one.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use tangelo_core::DType;

use super::Format;
use super::bits::{f16, field, field_mut, join_nibbles, put_f16, split_nibbles};
use super::fit::{clip_code, inverse, signed_multiples, symmetric};
use super::q2_k::{pack_pairs, unpack_pairs};
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::dispatch::{Impl, Simd};

const BYTES: usize = DType::Q6K.block_bytes();
const OFFSET: u8 = 32;
const Q_MAX: u8 = 63;

pub(super) static FORMAT: Format = Format {
    dtype: DType::Q6K,
    group: 16,
    offset: OFFSET,
    has_min: false,
    q_max: Q_MAX,
    unpack: &[
        #[cfg(target_arch = "x86_64")]
        Impl { simd: Simd::Avx2, run: avx2 },
        Impl { simd: Simd::Reference, run: reference },
    ],
    encode,
};

fn reference(src: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let scales = scale.as_chunks_mut::<16>().0;
    for ((block, q), scale) in src.as_chunks::<BYTES>().0.iter().zip(q.as_chunks_mut::<256>().0).zip(scales) {
        let d = f16(block, 208);
        for (scale, &code) in scale.iter_mut().zip(&block[192..]) {
            *scale = d * f32::from(code as i8);
        }
        unpack_pairs(field(block, 128), q);
        let mut low = [0u8; 256];
        for h in 0..2 {
            split_nibbles::<64>(field(block, 64 * h), &mut low[128 * h..128 * h + 128]);
        }
        for (q, low) in q.iter_mut().zip(low) {
            *q = *q << 4 | low;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn avx2(src: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let scales = scale.as_chunks_mut::<16>().0;
    for ((block, q), scale) in src.as_chunks::<BYTES>().0.iter().zip(q.as_chunks_mut::<256>().0).zip(scales) {
        let d = x86::f16(block, 208);
        for half in 0..2 {
            let codes = x86::widen8_signed(field(block, 192 + 8 * half));
            x86::store_multiples(&mut scale[8 * half..], d, codes);
        }
        for h in 0..2 {
            let upper = x86::load32(field(block, 128 + 32 * h));
            for s in 0..4 {
                let nibbles = x86::load32(field(block, 64 * h + s % 2 * 32));
                let low = x86::move_bits(nibbles, s / 2 * 4, 0, 0xf);
                let code = _mm256_or_si256(low, x86::move_bits(upper, 2 * s, 4, 0x30));
                x86::store32(&mut q[128 * h + 32 * s..], code);
            }
        }
    }
}

/// Fits each group by least squares, then rounds scales to 8 bits and the elements against those.
fn encode(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let groups = x.as_chunks::<16>().0;
        let scale = signed_multiples::<16>(std::array::from_fn(|g| symmetric(&groups[g], OFFSET)), 128);
        let mut q = [0u8; 256];
        for g in 0..16 {
            let per = inverse(scale.d * f32::from(scale.code[g]));
            for (q, x) in q[16 * g..].iter_mut().zip(&groups[g]) {
                *q = clip_code(x * per + (f32::from(OFFSET) + 0.5), Q_MAX);
            }
        }
        for h in 0..2 {
            join_nibbles::<64>(&q[128 * h..128 * h + 128], field_mut(block, 64 * h));
        }
        pack_pairs(&q.map(|q| q >> 4), field_mut(block, 128));
        *field_mut(block, 192) = scale.code.map(|code| code as u8);
        put_f16(block, 208, scale.d);
    }
}
