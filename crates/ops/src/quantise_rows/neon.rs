//! A block of 32 as eight registers.

use super::{BLOCK, Block, TINY};
use std::arch::aarch64::*;

/// See [`super`].
///
/// # Safety
/// NEON must be available, and records `out`, `out + stride`, … writable, one per 32 elements.
#[target_feature(enable = "neon")]
pub unsafe fn row(x: &[f32], out: *mut Block, stride: usize) {
    for (b, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
        // SAFETY: the chunk has 32 elements; the caller vouches for the record.
        unsafe {
            let v: [float32x4_t; 8] = std::array::from_fn(|i| vld1q_f32(x.as_ptr().add(4 * i)));
            let largest = largest_magnitude(v);
            let block = if (TINY..f32::INFINITY).contains(&largest) {
                with_sums(round(v, 127.0 / largest), largest / 127.0)
            } else {
                with_sums([vdupq_n_s8(0); 2], if largest < TINY { 0.0 } else { f32::NAN })
            };
            out.add(b * stride).write(block);
        }
    }
}

/// The largest magnitude, NaN above all.
#[inline]
#[target_feature(enable = "neon")]
fn largest_magnitude(v: [float32x4_t; 8]) -> f32 {
    let mut most = vdupq_n_u32(0);
    for x in v {
        most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(x)));
    }
    f32::from_bits(vmaxvq_u32(most))
}

/// Codes in element order, rounded to nearest even.
#[inline]
#[target_feature(enable = "neon")]
fn round(v: [float32x4_t; 8], inverse: f32) -> [int8x16_t; 2] {
    let mut halves = [vdupq_n_s8(0); 2];
    for (half, v) in halves.iter_mut().zip(v.as_chunks::<4>().0) {
        let [a, b, c, d] = *v;
        let low = vcombine_s16(code(a, inverse), code(b, inverse));
        let high = vcombine_s16(code(c, inverse), code(d, inverse));
        *half = vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));
    }
    halves
}

/// Four codes.
#[inline]
#[target_feature(enable = "neon")]
fn code(x: float32x4_t, inverse: f32) -> int16x4_t {
    vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(x, inverse)))
}

/// A record and its sums.
#[inline]
#[target_feature(enable = "neon")]
fn with_sums(codes: [int8x16_t; 2], d: f32) -> Block {
    let (first, second) = (fold(codes[0]), fold(codes[1]));
    // Sums of sixteen codes fit in 16 bits: add pairs as pairs.
    let all = vadd_s16(first, second);
    let pairs = [first, second, all].map(|pair| vget_lane_s32::<0>(vreinterpret_s32_s16(pair)));
    let sum = pairs.map(|pair| i32::from(pair as i16) + (pair >> 16));
    let mut q = [0; BLOCK];
    // SAFETY: the array has 32 bytes.
    unsafe {
        vst1q_s8(q.as_mut_ptr(), codes[0]);
        vst1q_s8(q.as_mut_ptr().add(BLOCK / 2), codes[1]);
    }
    Block { q, d, d_sum: d * sum[2] as f32, sum, pairs }
}

/// Lane 0: Σ of the codes with i mod 4 < 2; lane 1: of the others.
#[inline]
#[target_feature(enable = "neon")]
fn fold(codes: int8x16_t) -> int16x4_t {
    let twos = vpaddlq_s8(codes);
    let fours = vadd_s16(vget_low_s16(twos), vget_high_s16(twos));
    vadd_s16(fours, vext_s16::<2>(fours, fours))
}
