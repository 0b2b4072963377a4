//! Q8_0: 32 signed bytes under one f16 scale; 34 bytes.
//!
//! ```text
//! 0..2    d    f16
//! 2..34   qs   32 × i8, natural order
//! x[i] = d · qs[i]
//! ```
//!
//! Unpacked with offset 128, so a code is the byte with its sign bit flipped.

use tangelo_core::DType;

use super::Format;
use super::bits::{f16, field, put_f16};
use super::fit::{clip_f16, inverse};
use super::interleaved::{Interleaved, half, word};
use crate::words::Words;

const BYTES: usize = DType::Q8_0.block_bytes();

/// 32 signed bytes.
pub(crate) struct Q8_0;

impl Interleaved for Q8_0 {
    const FORMAT: Format = Format {
        dtype: DType::Q8_0,
        group: 32,
        offset: 128,
        has_min: false,
        q_max: 255,
        halves: &[0],
        bit_plane: None,
        unpack: reference,
        encode,
    };

    #[inline(always)]
    unsafe fn code<W: Words>(block: *const u8, _g: usize, j: usize) -> W {
        // SAFETY: the caller vouches.
        unsafe { word::<W>(block, 2 + 4 * j).xor(0x8080_8080) }
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
        for (q, byte) in q.iter_mut().zip(field::<32>(block, 2)) {
            *q = byte ^ 0x80;
        }
    }
}

/// d = max |x| / 127, halves away from zero: the bytes of ggml's own quantiser.
fn encode(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let max = x.iter().fold(0f32, |max, x| max.max(x.abs()));
        let d = clip_f16(max / 127.0);
        let per = inverse(d);
        put_f16(block, 0, d);
        for (&x, byte) in x.iter().zip(&mut block[2..]) {
            // Just below a half, so that the sum does not round up to one for a number just below a half.
            const HALF: f32 = 0.5f32.next_down();
            let v = x * per;
            *byte = ((v + HALF.copysign(v)) as i8).max(-127) as u8;
        }
    }
}
