//! The scales of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minima in 12 bytes.
//!
//! With s0..s7 the scales and m0..m7 the minima (bits written most significant first):
//!
//! ```text
//! byte j     (j = 0..4)   s[j+4] bits 5-4, s[j] bits 5-0
//! byte 4+j                m[j+4] bits 5-4, m[j] bits 5-0
//! byte 8+j                m[j+4] bits 3-0, s[j+4] bits 3-0
//! ```

use super::interleaved::{half, move_bits, word};
use crate::lanes::Lanes;
use crate::words::Words;

/// The scales and the minima, each 0..=63.
#[inline]
pub(super) fn unpack(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scale, mut min) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scale[j] = packed[j] & 0x3f;
        min[j] = packed[4 + j] & 0x3f;
        scale[j + 4] = (packed[8 + j] & 0xf) | (packed[j] >> 6 << 4);
        min[j + 4] = (packed[8 + j] >> 4) | (packed[4 + j] >> 6 << 4);
    }
    (scale, min)
}

/// Scale `g` of each row of interleaved blocks of Q4_K or Q5_K.
///
/// # Safety
/// As `Interleaved::code`.
#[inline(always)]
pub(super) unsafe fn scale<W: Words>(block: *const u8, g: usize) -> W::Floats {
    // SAFETY: the caller vouches.
    unsafe { half::<W>(block, 0).mul(code::<W>(block, 0, g).to_floats()) }
}

/// Minimum `g` of each row, likewise.
///
/// # Safety
/// As [`scale`].
#[inline(always)]
pub(super) unsafe fn min<W: Words>(block: *const u8, g: usize) -> W::Floats {
    // SAFETY: the caller vouches.
    unsafe { half::<W>(block, 2).mul(code::<W>(block, 1, g).to_floats()).mul(W::Floats::splat(-1.0)) }
}

/// Scale (`which` = 0) or minimum (1) `g` of each row.
///
/// # Safety
/// As [`scale`].
#[inline(always)]
unsafe fn code<W: Words>(block: *const u8, which: usize, g: usize) -> W {
    // SAFETY: the caller vouches.
    unsafe {
        let own: W = word(block, 4 + 4 * which);
        if g < 4 {
            return move_bits(own, 8 * g, 0, 0x3f);
        }
        let low = move_bits(word::<W>(block, 12), 8 * (g - 4) + 4 * which, 0, 0xf);
        low.or(move_bits(own, 8 * (g - 4) + 6, 4, 0x30))
    }
}

/// Inverse of [`unpack`] for values 0..=63.
#[inline]
pub(super) fn pack(scale: [u8; 8], min: [u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        packed[j] = scale[j] | (scale[j + 4] >> 4 << 6);
        packed[4 + j] = min[j] | (min[j + 4] >> 4 << 6);
        packed[8 + j] = (scale[j + 4] & 0xf) | (min[j + 4] << 4);
    }
    packed
}
