//! Q3_K: 256 3-bit codes with offset 4 in groups of 16, with 6-bit scales; 110 bytes.
//!
//! ```text
//! 0..32      hmask    bit s of byte j: bit 2 of element 32s + j
//! 32..96     qs       bits 1-0 of the codes, packed as in Q2_K
//! 96..108    scales   16 × 6 bit with offset 32; see below
//! 108..110   d        f16, unit of the scales
//! x[i] = d · (scale[g] − 32) · (q[i] − 4),   g = i / 16
//! ```
//!
//! Scale g has its low four bits in byte g % 8 of `scales` (low nibble for g < 8, high one for the rest) and
//! its upper two in bits 2k + 1 and 2k of byte 8 + g % 4, where k = g / 4.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use tangelo_core::DType;

use super::Format;
use super::bits::{f16, field, field_mut, put_f16};
use super::fit::{clip_code, inverse, signed_multiples, symmetric};
use super::q2_k::{pack_pairs, unpack_pairs};
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::dispatch::{Impl, Simd};

const BYTES: usize = DType::Q3K.block_bytes();
const OFFSET: u8 = 4;
const SCALE_OFFSET: u8 = 32;

pub(super) static FORMAT: Format = Format {
    dtype: DType::Q3K,
    group: 16,
    offset: OFFSET,
    has_min: false,
    q_max: 7,
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
        let d = f16(block, 108);
        for (scale, code) in scale.iter_mut().zip(unpack_scales(field(block, 96))) {
            *scale = d * f32::from(code);
        }
        unpack_pairs(field(block, 32), q);
        for (i, q) in q.iter_mut().enumerate() {
            *q |= (block[i % 32] >> (i / 32) & 1) << 2;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn avx2(src: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let scales = scale.as_chunks_mut::<16>().0;
    for ((block, q), scale) in src.as_chunks::<BYTES>().0.iter().zip(q.as_chunks_mut::<256>().0).zip(scales) {
        let d = x86::f16(block, 108);
        for (half, codes) in unpack_scale_words(field(block, 96)).iter().enumerate() {
            let offset = _mm256_set1_epi32(i32::from(SCALE_OFFSET));
            x86::store_multiples(&mut scale[8 * half..], d, _mm256_sub_epi32(x86::widen8(codes), offset));
        }
        let hmask = x86::load32(field(block, 0));
        for g in 0..8 {
            let pairs = x86::load32(field(block, 32 + g / 4 * 32));
            let low = x86::move_bits(pairs, 2 * (g % 4), 0, 3);
            x86::store32(&mut q[32 * g..], _mm256_or_si256(low, x86::move_bits(hmask, g, 2, 4)));
        }
    }
}

/// The scales, offset removed: −32..=31.
#[inline]
fn unpack_scales(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|g| {
        let low = packed[g % 8] >> (4 * (g / 8)) & 0xf;
        let high = packed[8 + g % 4] >> (2 * (g / 4)) & 3;
        (low | high << 4) as i8 - SCALE_OFFSET as i8
    })
}

/// The scales with their offset, 0..=63: those of groups 0..8, then of 8..16; eight bytes at a time.
#[cfg(target_arch = "x86_64")]
#[inline]
fn unpack_scale_words(packed: &[u8; 12]) -> [[u8; 8]; 2] {
    let low = u64::from_le_bytes(*field(packed, 0));
    let high = u64::from(u32::from_le_bytes(*field(packed, 8)));
    // For each half, the two rounds of four upper bits side by side.
    let (high_first, high_second) = (high | high << 30, high >> 4 | high << 26);
    let join = |low: u64, high: u64| {
        (low & 0x0f0f_0f0f_0f0f_0f0f | (high & 0x0303_0303_0303_0303) << 4).to_le_bytes()
    };
    [join(low, high_first), join(low >> 4, high_second)]
}

/// Inverse of [`unpack_scales`].
fn pack_scales(scales: [i8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for (g, scale) in scales.into_iter().enumerate() {
        let code = (scale + SCALE_OFFSET as i8) as u8;
        packed[g % 8] |= (code & 0xf) << (4 * (g / 8));
        packed[8 + g % 4] |= (code >> 4) << (2 * (g / 4));
    }
    packed
}

/// Fits each group by least squares, then rounds scales to 6 bits and the elements against those.
fn encode(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let groups = x.as_chunks::<16>().0;
        let scale =
            signed_multiples::<16>(std::array::from_fn(|g| symmetric(&groups[g], OFFSET)), SCALE_OFFSET);
        let mut q = [0u8; 256];
        for g in 0..16 {
            let per = inverse(scale.d * f32::from(scale.code[g]));
            for (q, x) in q[16 * g..].iter_mut().zip(&groups[g]) {
                *q = clip_code(x * per + (f32::from(OFFSET) + 0.5), 2 * OFFSET - 1);
            }
        }
        let hmask = field_mut::<32>(block, 0);
        hmask.fill(0);
        for (i, q) in q.iter().enumerate() {
            hmask[i % 32] |= (q >> 2) << (i / 32);
        }
        pack_pairs(&q, field_mut(block, 32));
        *field_mut(block, 96) = pack_scales(scale.code);
        put_f16(block, 108, scale.d);
    }
}
