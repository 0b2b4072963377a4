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

use tangelo_core::DType;

use super::Format;
use super::bits::{f16, field, field_mut, join_nibbles, put_f16, split_nibbles};
use super::fit::{clip_code, inverse, signed_multiples, symmetric};
use super::interleaved::{Interleaved, half, move_bits, word};
use super::q2_k::{pack_pairs, pair, unpack_pairs};
use crate::lanes::Lanes;
use crate::words::Words;

const BYTES: usize = DType::Q6K.block_bytes();
const OFFSET: u8 = 32;
const Q_MAX: u8 = 63;

/// 256 6-bit codes.
pub(crate) struct Q6K;

impl Interleaved for Q6K {
    const FORMAT: Format = Format {
        dtype: DType::Q6K,
        group: 16,
        offset: OFFSET,
        has_min: false,
        q_max: Q_MAX,
        halves: &[208],
        bit_plane: None,
        unpack: reference,
        encode,
    };

    #[inline(always)]
    unsafe fn code<W: Words>(block: *const u8, g: usize, j: usize) -> W {
        // SAFETY: the caller vouches.
        unsafe {
            let (h, r) = (g / 8, g % 8);
            let low: W = move_bits(word(block, 64 * h + 16 * (r % 4) + 4 * j), r / 4 * 4, 0, 0x0f0f_0f0f);
            low.or(pair(block, 128, g, j, 4))
        }
    }

    #[inline(always)]
    unsafe fn scale<W: Words>(block: *const u8, g: usize) -> W::Floats {
        // SAFETY: the caller vouches.
        unsafe {
            let signed =
                word::<W>(block, 192 + 4 * (g / 4)).shift_left(24 - 8 * (g % 4)).shift_right_signed(24);
            half::<W>(block, 208).mul(signed.to_floats())
        }
    }
}

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
