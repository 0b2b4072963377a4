//! The scales of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minima in 12 bytes.
//!
//! With s0..s7 the scales and m0..m7 the minima (bits written most significant first):
//!
//! ```text
//! byte j     (j = 0..4)   s[j+4] bits 5-4, s[j] bits 5-0
//! byte 4+j                m[j+4] bits 5-4, m[j] bits 5-0
//! byte 8+j                m[j+4] bits 3-0, s[j+4] bits 3-0
//! ```

#[cfg(target_arch = "x86_64")]
use super::bits::field;

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

/// [`unpack`], four bytes at a time: what the vector decoders use.
#[inline]
#[cfg(target_arch = "x86_64")]
pub(super) fn unpack_words(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let scale = u32::from_le_bytes(*field(packed, 0));
    let min = u32::from_le_bytes(*field(packed, 4));
    let both = u32::from_le_bytes(*field(packed, 8));
    let first = |word: u32| word & 0x3f3f_3f3f;
    let second = |low: u32, word: u32| (low & 0x0f0f_0f0f) | (word >> 2 & 0x3030_3030);
    let join = |low: u32, high: u32| (u64::from(low) | u64::from(high) << 32).to_le_bytes();
    (join(first(scale), second(both, scale)), join(first(min), second(both >> 4, min)))
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
