//! IQ4_NL: 32 4-bit indices into a fixed table of 16 unevenly spaced levels, under one f16 scale; 18 bytes.
//!
//! ```text
//! 0..2    d    f16
//! 2..18   qs   byte j: index of element j in the low nibble, of element j + 16 in the high one
//! x[i] = d · LEVELS[index[i]]
//! ```
//!
//! Unpacked with offset 128, so that the code of an element is its level plus 128.

use tangelo_core::DType;

use super::Format;
use super::bits::{f16, field, field_mut, join_nibbles, put_f16, split_nibbles};
use super::fit::{extreme, inverse, round_f16};
use super::interleaved::{Interleaved, half, move_bits, word};
use crate::words::Words;

const BYTES: usize = DType::IQ4NL.block_bytes();

/// The levels of ggml's `kvalues_iq4nl`: closer together near zero, where weights are frequent.
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// LEVELS[index] + 128.
const CODES: [u8; 16] = {
    let mut codes = [0; 16];
    let mut i = 0;
    while i < 16 {
        codes[i] = (LEVELS[i] as u8) ^ 0x80;
        i += 1;
    }
    codes
};

/// 32 indices into [`LEVELS`].
pub(crate) struct Iq4Nl;

impl Interleaved for Iq4Nl {
    const FORMAT: Format = Format {
        dtype: DType::IQ4NL,
        group: 32,
        offset: 128,
        has_min: false,
        q_max: CODES[15],
        halves: &[0],
        bit_plane: None,
        unpack: reference,
        encode,
    };

    #[inline(always)]
    unsafe fn code<W: Words>(block: *const u8, _g: usize, j: usize) -> W {
        // SAFETY: the caller vouches.
        unsafe {
            let index: W = move_bits(word(block, 2 + 4 * (j % 4)), 4 * (j / 4), 0, 0x0f0f_0f0f);
            index.lookup(&CODES)
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
        split_nibbles::<16>(field(block, 2), q);
        for q in q {
            *q = CODES[usize::from(*q)];
        }
    }
}

/// Starts with the element of largest magnitude on the longer end (−127), then takes the least-squares scale
/// for the indices found and looks the nearest levels up again.
fn encode(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let start = extreme(x) / f32::from(LEVELS[0]);
        let (mut ll, mut lx) = (0f32, 0f32);
        for (x, index) in x.iter().zip(nearest_levels(x, start)) {
            let level = f32::from(LEVELS[usize::from(index)]);
            ll += level * level;
            lx += level * x;
        }
        let fitted = lx / ll;
        let d = round_f16(if fitted.is_finite() { fitted } else { start });
        put_f16(block, 0, d);
        join_nibbles::<16>(&nearest_levels(x, d), field_mut(block, 2));
    }
}

/// Indices of the levels nearest to `x / d`: how many midpoints between neighbouring levels lie at or below
/// each. Element by element inside, so that the compiler compares several at once.
fn nearest_levels(x: &[f32; 32], d: f32) -> [u8; 32] {
    let per = inverse(d);
    let v = x.map(|x| x * per);
    let mut index = [0u32; 32];
    for pair in LEVELS.windows(2) {
        let midpoint = (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
        for (index, v) in index.iter_mut().zip(v) {
            *index += u32::from(v >= midpoint);
        }
    }
    index.map(|index| index as u8)
}
