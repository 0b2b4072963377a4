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

use super::bits::{
    f16, field, field_mut, gather_fifth_bits, join_nibbles, put_f16, split_nibbles, spread_fifth_bits,
};
use super::fit::{clip_code, clip_f16, inverse, range};
use super::{Format, Unpack};
use crate::dispatch::{Impl, Simd};

const BYTES: usize = DType::Q5_1.block_bytes();

pub(super) static FORMAT: Format = Format {
    dtype: DType::Q5_1,
    group: 32,
    offset: 0,
    has_min: true,
    q_max: 31,
    unpack: &[Impl { simd: Simd::Reference, run: reference as Unpack }],
    encode,
};

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
