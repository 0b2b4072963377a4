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

use tangelo_core::DType;

use super::Format;
use super::bits::{f16, field, field_mut, put_f16};
use super::fit::{affine, clip_code, inverse, unsigned_multiples};
use super::interleaved::{Interleaved, half, move_bits, word};
use crate::lanes::Lanes;
use crate::words::Words;

const BYTES: usize = DType::Q2K.block_bytes();
const Q_MAX: u8 = 3;

/// 256 2-bit codes.
pub(crate) struct Q2K;

impl Interleaved for Q2K {
    const FORMAT: Format = Format {
        dtype: DType::Q2K,
        group: 16,
        offset: 0,
        has_min: true,
        q_max: Q_MAX,
        halves: &[80, 82],
        bit_plane: None,
        unpack: reference,
        encode,
    };

    #[inline(always)]
    unsafe fn code<W: Words>(block: *const u8, g: usize, j: usize) -> W {
        // SAFETY: the caller vouches.
        unsafe { pair(block, 16, g, j, 0) }
    }

    #[inline(always)]
    unsafe fn scale<W: Words>(block: *const u8, g: usize) -> W::Floats {
        // SAFETY: the caller vouches.
        unsafe {
            half::<W>(block, 80)
                .mul(move_bits(word::<W>(block, 4 * (g / 4)), 8 * (g % 4), 0, 0xf).to_floats())
        }
    }

    #[inline(always)]
    unsafe fn min<W: Words>(block: *const u8, g: usize) -> W::Floats {
        // SAFETY: the caller vouches.
        unsafe {
            let code = move_bits(word::<W>(block, 4 * (g / 4)), 8 * (g % 4) + 4, 0, 0xf).to_floats();
            half::<W>(block, 82).mul(code).mul(W::Floats::splat(-1.0))
        }
    }
}

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

/// The 2-bit fields of elements 4j .. 4j + 4 of group `g`, moved to bit `to` of each byte; the 64 bytes that hold such
/// fields start at `offset`. Shared with Q3_K and Q6_K.
///
/// # Safety
/// As `Interleaved::code`.
#[inline(always)]
pub(super) unsafe fn pair<W: Words>(block: *const u8, offset: usize, g: usize, j: usize, to: usize) -> W {
    // SAFETY: the caller vouches.
    unsafe {
        let fields = word(block, offset + 32 * (g / 8) + 16 * (g % 2) + 4 * j);
        move_bits(fields, 2 * (g % 8 / 2), to, 0x0303_0303 << to)
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
