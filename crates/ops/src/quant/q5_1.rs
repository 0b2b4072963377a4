//! Q5_1: 32 5-bit codes under one f16 scale, above one f16 minimum; 24 bytes.
//!
//! ```text
//! 0..2    d    f16
//! 2..4    m    f16
//! 4..8    qh   u32: bit i is bit 4 of element i
//! 8..24   qs   byte j: bits 3-0 of element j in the low nibble, of element j + 16 in the high one
//! x[i] = d · q[i] + m
//! ```

use tangelo_core::DType;

use super::Format;
use super::bits::{
    f16, field, field_mut, gather_fifth_bits, join_nibbles, put_f16, split_nibbles, spread_fifth_bits,
};
use super::fit::{clip_code, clip_f16, inverse, range};
use super::interleaved::{Interleaved, half, move_bits, word};
use crate::words::Words;

const BYTES: usize = DType::Q5_1.block_bytes();

/// 32 5-bit codes above a minimum.
pub(crate) struct Q5_1;

impl Interleaved for Q5_1 {
    const FORMAT: Format = Format {
        dtype: DType::Q5_1,
        group: 32,
        offset: 0,
        has_min: true,
        q_max: 31,
        halves: &[0, 2],
        bit_plane: Some(4),
        unpack: reference,
        encode,
    };

    #[inline(always)]
    unsafe fn code<W: Words>(block: *const u8, _g: usize, j: usize) -> W {
        // SAFETY: the caller vouches.
        unsafe {
            let low: W = move_bits(word(block, 8 + 4 * (j % 4)), 4 * (j / 4), 0, 0x0f0f_0f0f);
            low.or(move_bits(word(block, 4), j, 4, 0x1010_1010))
        }
    }

    #[inline(always)]
    unsafe fn scale<W: Words>(block: *const u8, _g: usize) -> W::Floats {
        // SAFETY: the caller vouches.
        unsafe { half::<W>(block, 0) }
    }

    #[inline(always)]
    unsafe fn min<W: Words>(block: *const u8, _g: usize) -> W::Floats {
        // SAFETY: the caller vouches.
        unsafe { half::<W>(block, 2) }
    }
}

fn reference(src: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    let blocks = src.as_chunks::<BYTES>().0;
    for (((block, q), scale), min) in blocks.iter().zip(q.as_chunks_mut::<32>().0).zip(scale).zip(min) {
        *scale = f16(block, 0);
        *min = f16(block, 2);
        split_nibbles::<16>(field(block, 8), q);
        spread_fifth_bits(u32::from_le_bytes(*field(block, 4)), q);
    }
}

/// From the minimum to the maximum in 31 equal steps; halves go up: the bytes of ggml's own quantiser.
fn encode(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let (lo, hi) = range(x);
        let d = clip_f16((hi - lo) / 31.0);
        let m = clip_f16(lo);
        let per = inverse(d);
        let q = x.map(|x| clip_code((x - m) * per + 0.5, 31));
        put_f16(block, 0, d);
        put_f16(block, 2, m);
        *field_mut(block, 4) = gather_fifth_bits(&q).to_le_bytes();
        join_nibbles::<16>(&q, field_mut(block, 8));
    }
}
