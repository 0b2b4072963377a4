//! Q5_0: 32 5-bit codes with offset 16 under one f16 scale; 22 bytes.
//!
//! ```text
//! 0..2    d    f16
//! 2..6    qh   u32: bit i is bit 4 of element i
//! 6..22   qs   byte j: bits 3-0 of element j in the low nibble, of element j + 16 in the high one
//! x[i] = d · (q[i] − 16)
//! ```

use tangelo_core::DType;

use super::Format;
use super::bits::{
    f16, field, field_mut, gather_fifth_bits, join_nibbles, put_f16, split_nibbles, spread_fifth_bits,
};
use super::fit::{clip_code, clip_f16, extreme, inverse};
use super::interleaved::{Interleaved, half, move_bits, word};
use crate::words::Words;

const BYTES: usize = DType::Q5_0.block_bytes();

/// 32 5-bit codes with an offset.
pub(crate) struct Q5_0;

impl Interleaved for Q5_0 {
    const FORMAT: Format = Format {
        dtype: DType::Q5_0,
        group: 32,
        offset: 16,
        has_min: false,
        q_max: 31,
        halves: &[0],
        bit_plane: Some(2),
        unpack: reference,
        encode,
    };

    #[inline(always)]
    unsafe fn code<W: Words>(block: *const u8, _g: usize, j: usize) -> W {
        // SAFETY: the caller vouches.
        unsafe {
            let low: W = move_bits(word(block, 6 + 4 * (j % 4)), 4 * (j / 4), 0, 0x0f0f_0f0f);
            low.or(move_bits(word(block, 2), j, 4, 0x1010_1010))
        }
    }

    #[inline(always)]
    unsafe fn scale<W: Words>(block: *const u8, _g: usize) -> W::Floats {
        // SAFETY: the caller vouches.
        unsafe { half::<W>(block, 0) }
    }
}

fn reference(src: &[u8], q: &mut [u8], scale: &mut [f32], _min: &mut [f32]) {
    let blocks = src.as_chunks::<BYTES>().0;
    for ((block, q), scale) in blocks.iter().zip(q.as_chunks_mut::<32>().0).zip(scale) {
        *scale = f16(block, 0);
        split_nibbles::<16>(field(block, 6), q);
        spread_fifth_bits(u32::from_le_bytes(*field(block, 2)), q);
    }
}

/// The element of largest magnitude falls on code 0, the longer end; halves go up: the bytes of ggml's own
/// quantiser.
fn encode(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let d = clip_f16(extreme(x) / -16.0);
        let per = inverse(d);
        let q = x.map(|x| clip_code(x * per + 16.5, 31));
        put_f16(block, 0, d);
        *field_mut(block, 2) = gather_fifth_bits(&q).to_le_bytes();
        join_nibbles::<16>(&q, field_mut(block, 6));
    }
}
