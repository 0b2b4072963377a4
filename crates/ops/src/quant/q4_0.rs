//! Q4_0: 32 4-bit codes with offset 8 under one f16 scale; 18 bytes.
//!
//! ```text
//! 0..2    d    f16
//! 2..18   qs   byte j: element j in the low nibble, element j + 16 in the high one
//! x[i] = d · (q[i] − 8)
//! ```

use tangelo_core::DType;

use super::Format;
use super::bits::{f16, field, field_mut, join_nibbles, put_f16, split_nibbles};
use super::fit::{clip_code, clip_f16, extreme, inverse};
use super::interleaved::{Interleaved, half, move_bits, word};
use crate::words::Words;

const BYTES: usize = DType::Q4_0.block_bytes();

/// 32 4-bit codes with an offset.
pub(crate) struct Q4_0;

impl Interleaved for Q4_0 {
    const FORMAT: Format = Format {
        dtype: DType::Q4_0,
        group: 32,
        offset: 8,
        has_min: false,
        q_max: 15,
        halves: &[0],
        bit_plane: None,
        unpack: reference,
        encode,
    };

    #[inline(always)]
    unsafe fn code<W: Words>(block: *const u8, _g: usize, j: usize) -> W {
        // SAFETY: the caller vouches.
        unsafe { move_bits(word(block, 2 + 4 * (j % 4)), 4 * (j / 4), 0, 0x0f0f_0f0f) }
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
        split_nibbles::<16>(field(block, 2), q);
    }
}

/// The element of largest magnitude falls on code 0, the longer end; halves go up: the bytes of ggml's own
/// quantiser.
fn encode(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let d = clip_f16(extreme(x) / -8.0);
        let per = inverse(d);
        let q = x.map(|x| clip_code(x * per + 8.5, 15));
        put_f16(block, 0, d);
        join_nibbles::<16>(&q, field_mut(block, 2));
    }
}
