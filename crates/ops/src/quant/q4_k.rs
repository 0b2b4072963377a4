//! Q4_K: 256 4-bit codes in groups of 32, with 6-bit scales and minima; 144 bytes.
//!
//! ```text
//! 0..2      d        f16, unit of the scales
//! 2..4      dmin     f16, unit of the minima
//! 4..16     scales   8 × 6-bit scales and minima, packed as in k_scales.rs
//! 16..144   qs       byte 32p + j (p < 4, j < 32): element 64p + j in the low nibble, element
//!                    64p + 32 + j in the high one
//! x[i] = d · scale[g] · q[i] − dmin · min[g],   g = i / 32
//! ```

use tangelo_core::DType;

use super::bits::{f16, field, field_mut, join_nibbles, put_f16, split_nibbles};
use super::fit::{affine, clip_code, inverse, unsigned_multiples};
use super::interleaved::{Interleaved, move_bits, word};
use super::{Format, k_scales};
use crate::words::Words;

const BYTES: usize = DType::Q4K.block_bytes();
const Q_MAX: u8 = 15;

/// 256 4-bit codes.
pub(crate) struct Q4K;

impl Interleaved for Q4K {
    const FORMAT: Format = Format {
        dtype: DType::Q4K,
        group: 32,
        offset: 0,
        has_min: true,
        q_max: Q_MAX,
        halves: &[0, 2],
        bit_plane: None,
        unpack: reference,
        encode,
    };

    #[inline(always)]
    unsafe fn code<W: Words>(block: *const u8, g: usize, j: usize) -> W {
        // SAFETY: the caller vouches.
        unsafe { move_bits(word(block, 16 + 32 * (g / 2) + 4 * j), 4 * (g % 2), 0, 0x0f0f_0f0f) }
    }

    #[inline(always)]
    unsafe fn scale<W: Words>(block: *const u8, g: usize) -> W::Floats {
        // SAFETY: the caller vouches.
        unsafe { k_scales::scale::<W>(block, g) }
    }

    #[inline(always)]
    unsafe fn min<W: Words>(block: *const u8, g: usize) -> W::Floats {
        // SAFETY: the caller vouches.
        unsafe { k_scales::min::<W>(block, g) }
    }
}

fn reference(src: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    let groups = scale.as_chunks_mut::<8>().0.iter_mut().zip(min.as_chunks_mut::<8>().0);
    for ((block, q), (scale, min)) in
        src.as_chunks::<BYTES>().0.iter().zip(q.as_chunks_mut::<256>().0).zip(groups)
    {
        unpack_header(field(block, 0), scale, min);
        for p in 0..4 {
            split_nibbles::<32>(field(block, 16 + 32 * p), &mut q[64 * p..64 * p + 64]);
        }
    }
}

/// Scales and minima from the first 16 bytes, which Q5_K shares.
#[inline]
pub(super) fn unpack_header(header: &[u8; 16], scale: &mut [f32; 8], min: &mut [f32; 8]) {
    let (d, dmin) = (f16(header, 0), f16(header, 2));
    let (scale_codes, min_codes) = k_scales::unpack(field(header, 4));
    for g in 0..8 {
        scale[g] = d * f32::from(scale_codes[g]);
        min[g] = -(dmin * f32::from(min_codes[g]));
    }
}

/// Fits each group by least squares, writes the first 16 bytes with scales and minima rounded to 6 bits, and
/// returns the elements rounded against those, 0..=`q_max`. Shared with Q5_K.
pub(super) fn encode_groups(x: &[f32; 256], q_max: u8, header: &mut [u8; 16]) -> [u8; 256] {
    let groups = x.as_chunks::<32>().0;
    let (mut scale, mut min) = ([0f32; 8], [0f32; 8]);
    for g in 0..8 {
        (scale[g], min[g]) = affine(&groups[g], q_max);
    }
    let (scale, min) = (unsigned_multiples(scale, 63), unsigned_multiples(min, 63));
    let mut q = [0u8; 256];
    for g in 0..8 {
        let per = inverse(scale.d * f32::from(scale.code[g]));
        let min_g = min.d * f32::from(min.code[g]);
        for (q, x) in q[32 * g..].iter_mut().zip(&groups[g]) {
            *q = clip_code((x + min_g) * per + 0.5, q_max);
        }
    }
    put_f16(header, 0, scale.d);
    put_f16(header, 2, min.d);
    *field_mut(header, 4) = k_scales::pack(scale.code, min.code);
    q
}

fn encode(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let q = encode_groups(x, Q_MAX, field_mut(block, 0));
        for p in 0..4 {
            join_nibbles::<32>(&q[64 * p..64 * p + 64], field_mut(block, 16 + 32 * p));
        }
    }
}
