//! Reading and writing the fields that several block formats share.

use tangelo_core::float::{f16_to_f32, f32_to_f16};

/// The `N` bytes of `block` from offset `at`.
#[inline]
pub(super) fn field<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..].first_chunk().expect("the field lies inside the block")
}

/// The `N` bytes of `block` from offset `at`, to be written.
#[inline]
pub(super) fn field_mut<const N: usize>(block: &mut [u8], at: usize) -> &mut [u8; N] {
    block[at..].first_chunk_mut().expect("the field lies inside the block")
}

/// The little-endian f16 at offset `at`.
#[inline]
pub(super) fn f16(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes(*field(block, at)))
}

/// Writes `x` as a little-endian f16 at offset `at`.
#[inline]
pub(super) fn put_f16(block: &mut [u8], at: usize, x: f32) {
    *field_mut(block, at) = f32_to_f16(x).to_le_bytes();
}

/// Splits `N` bytes into low and high nibbles: byte j holds elements j and j + N.
#[inline]
pub(super) fn split_nibbles<const N: usize>(packed: &[u8; N], q: &mut [u8]) {
    let (low, high) = q.split_at_mut(N);
    for j in 0..N {
        low[j] = packed[j] & 0xf;
        high[j] = packed[j] >> 4;
    }
}

/// Inverse of [`split_nibbles`]; bits above the low four of `q` are dropped.
#[inline]
pub(super) fn join_nibbles<const N: usize>(q: &[u8], packed: &mut [u8; N]) {
    let (low, high) = q.split_at(N);
    for j in 0..N {
        packed[j] = (low[j] & 0xf) | (high[j] << 4);
    }
}

/// ORs bit i of `fifth` into bit 4 of `q[i]`.
#[inline]
pub(super) fn spread_fifth_bits(fifth: u32, q: &mut [u8; 32]) {
    for (i, q) in q.iter_mut().enumerate() {
        *q |= ((fifth >> i & 1) << 4) as u8;
    }
}

/// Bit 4 of every `q[i]`, as bit i.
#[inline]
pub(super) fn gather_fifth_bits(q: &[u8; 32]) -> u32 {
    q.iter().enumerate().fold(0, |bits, (i, &q)| bits | u32::from(q >> 4 & 1) << i)
}
