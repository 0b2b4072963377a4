//! Q5_K: 256 5-bit codes in groups of 32, with 6-bit scales and minima; 176 bytes.
//!
//! ```text
//! 0..2      d        f16, unit of the scales
//! 2..4      dmin     f16, unit of the minima
//! 4..16     scales   8 × 6-bit scales and minima, packed as in k_scales.rs
//! 16..48    qh       bit g of byte j: bit 4 of element 32g + j
//! 48..176   qs       byte 32p + j (p < 4, j < 32): bits 3-0 of element 64p + j in the low nibble, of element
//!                    64p + 32 + j in the high one
//! x[i] = d · scale[g] · q[i] − dmin · min[g],   g = i / 32
//! ```

use tangelo_core::DType;

use super::bits::{field, field_mut, join_nibbles, split_nibbles};
use super::interleaved::{Interleaved, move_bits, word};
use super::q4_k::{encode_groups, unpack_header};
use super::{Format, k_scales};
use crate::words::Words;

const BYTES: usize = DType::Q5K.block_bytes();
const Q_MAX: u8 = 31;

/// 256 5-bit codes.
pub(crate) struct Q5K;

impl Interleaved for Q5K {
    const FORMAT: Format = Format {
        dtype: DType::Q5K,
        group: 32,
        offset: 0,
        has_min: true,
        q_max: Q_MAX,
        halves: &[0, 2],
        bit_plane: None,
        unpack: reference,
        encode,
    };

    #[inline(always)]
    unsafe fn code<W: Words>(block: *const u8, g: usize, j: usize) -> W {
        // SAFETY: the caller vouches.
        unsafe {
            let low: W = move_bits(word(block, 48 + 32 * (g / 2) + 4 * j), 4 * (g % 2), 0, 0x0f0f_0f0f);
            low.or(move_bits(word(block, 16 + 4 * j), g, 4, 0x1010_1010))
        }
    }

    #[inline(always)]
    unsafe fn scale<W: Words>(block: *const u8, g: usize) -> W::Floats {
        // SAFETY: the caller vouches.
        unsafe { k_scales::scale::<W>(block, g) }
    }

    #[inline(always)]
    unsafe fn min<W: Words>(block: *const u8, g: usize) -> W::Floats {
        // SAFETY: the caller vouches.
        unsafe { k_scales::min::<W>(block, g) }
    }
}

fn reference(src: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]) {
    let groups = scale.as_chunks_mut::<8>().0.iter_mut().zip(min.as_chunks_mut::<8>().0);
    for ((block, q), (scale, min)) in
        src.as_chunks::<BYTES>().0.iter().zip(q.as_chunks_mut::<256>().0).zip(groups)
    {
        unpack_header(field(block, 0), scale, min);
        for p in 0..4 {
            split_nibbles::<32>(field(block, 48 + 32 * p), &mut q[64 * p..64 * p + 64]);
        }
        let qh = field::<32>(block, 16);
        for (i, q) in q.iter_mut().enumerate() {
            *q |= (qh[i % 32] >> (i / 32) & 1) << 4;
        }
    }
}

fn encode(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let q = encode_groups(x, Q_MAX, field_mut(block, 0));
        let qh = field_mut::<32>(block, 16);
        qh.fill(0);
        for (i, q) in q.iter().enumerate() {
            qh[i % 32] |= (q >> 4) << (i / 32);
        }
        for p in 0..4 {
            join_nibbles::<32>(&q[64 * p..64 * p + 64], field_mut(block, 48 + 32 * p));
        }
    }
}
