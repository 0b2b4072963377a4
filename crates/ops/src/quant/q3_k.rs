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

use tangelo_core::DType;

use super::Format;
use super::bits::{f16, field, field_mut, put_f16};
use super::fit::{clip_code, inverse, signed_multiples, symmetric};
use super::interleaved::{Interleaved, half, move_bits, word};
use super::q2_k::{pack_pairs, pair, unpack_pairs};
use crate::lanes::Lanes;
use crate::words::Words;

const BYTES: usize = DType::Q3K.block_bytes();
const OFFSET: u8 = 4;
const SCALE_OFFSET: u8 = 32;

/// 256 3-bit codes.
pub(crate) struct Q3K;

impl Interleaved for Q3K {
    const FORMAT: Format = Format {
        dtype: DType::Q3K,
        group: 16,
        offset: OFFSET,
        has_min: false,
        q_max: 7,
        halves: &[108],
        bit_plane: None,
        unpack: reference,
        encode,
    };

    #[inline(always)]
    unsafe fn code<W: Words>(block: *const u8, g: usize, j: usize) -> W {
        // SAFETY: the caller vouches.
        unsafe {
            let third = move_bits(word::<W>(block, 16 * (g % 2) + 4 * j), g / 2, 2, 0x0404_0404);
            pair::<W>(block, 32, g, j, 0).or(third)
        }
    }

    #[inline(always)]
    unsafe fn scale<W: Words>(block: *const u8, g: usize) -> W::Floats {
        // SAFETY: the caller vouches.
        unsafe {
            let low = move_bits(word::<W>(block, 96 + 4 * (g % 8 / 4)), 8 * (g % 4) + 4 * (g / 8), 0, 0xf);
            let high = move_bits(word::<W>(block, 104), 8 * (g % 4) + 2 * (g / 4), 4, 0x30);
            // The offset is half of what six bits hold, so taking it away flips the sign bit.
            let signed = low.or(high).xor(SCALE_OFFSET.into()).shift_left(26).shift_right_signed(26);
            half::<W>(block, 108).mul(signed.to_floats())
        }
    }
}

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

/// The scales, offset removed: −32..=31.
#[inline]
fn unpack_scales(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|g| {
        let low = packed[g % 8] >> (4 * (g / 8)) & 0xf;
        let high = packed[8 + g % 4] >> (2 * (g / 4)) & 3;
        (low | high << 4) as i8 - SCALE_OFFSET as i8
    })
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
