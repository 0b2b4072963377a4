//! Sixteen lanes as four NEON registers.
//!
//! NEON is part of every aarch64 target of this program. Maximum and minimum are a comparison and a selection:
//! `fmax` and `fmaxnm` order the zeros and treat NaN by rules of their own, which are not those of [`Lanes`].

use super::{LANES, Lanes};
use std::arch::aarch64::*;
use std::arch::asm;

/// Lanes 0-3, 4-7, 8-11 and 12-15.
#[derive(Clone, Copy)]
pub(crate) struct Neon(pub(crate) [float32x4_t; 4]);

#[inline(always)]
fn map(x: Neon, f: impl Fn(float32x4_t) -> float32x4_t) -> Neon {
    let [a, b, c, d] = x.0;
    Neon([f(a), f(b), f(c), f(d)])
}

#[inline(always)]
fn zip(x: Neon, y: Neon, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Neon {
    let ([a, b, c, d], [e, g, h, i]) = (x.0, y.0);
    Neon([f(a, e), f(b, g), f(c, h), f(d, i)])
}

#[inline(always)]
fn zip3(x: Neon, y: Neon, z: Neon, f: impl Fn(float32x4_t, float32x4_t, float32x4_t) -> float32x4_t) -> Neon {
    let ([a, b, c, d], [e, g, h, i], [j, k, l, m]) = (x.0, y.0, z.0);
    Neon([f(a, e, j), f(b, g, k), f(c, h, l), f(d, i, m)])
}

/// `if a > b { a } else { b }`.
#[inline(always)]
fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: NEON is always there.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

/// `if a < b { a } else { b }`.
#[inline(always)]
fn smaller(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: NEON is always there.
    unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
}

/// `2^k` for integral lanes `k` in -126..=127.
#[inline(always)]
fn pow2(k: int32x4_t) -> float32x4_t {
    // SAFETY: NEON is always there.
    unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(k, vdupq_n_s32(127)))) }
}

#[inline(always)]
fn scale_pow2(x: float32x4_t, n: float32x4_t) -> float32x4_t {
    // SAFETY: NEON is always there.
    unsafe {
        let n = vcvtnq_s32_f32(n);
        let half = vshrq_n_s32::<1>(n);
        vmulq_f32(vmulq_f32(x, pow2(half)), pow2(vsubq_s32(n, half)))
    }
}

/// Four binary16 numbers. Assembly, because Rust's type for them is newer than the compilers this crate supports.
///
/// # Safety
/// `src` must be readable for four elements.
#[inline(always)]
unsafe fn widen(src: *const u16) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: the caller vouches for the elements; the instruction is part of NEON and works on registers only.
    unsafe {
        let half = vld1_u16(src);
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) half, options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// Four bfloat16 numbers.
///
/// # Safety
/// `src` must be readable for four elements.
#[inline(always)]
unsafe fn widen_bf16(src: *const u16) -> float32x4_t {
    // SAFETY: the caller vouches for the elements.
    unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(src)))) }
}

// SAFETY of all bodies: NEON is always there; the trait's callers vouch for the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Neon {
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Neon([vdupq_n_f32(x); 4]) }
    }

    #[inline(always)]
    unsafe fn load(src: *const f32) -> Self {
        unsafe {
            Neon([vld1q_f32(src), vld1q_f32(src.add(4)), vld1q_f32(src.add(8)), vld1q_f32(src.add(12))])
        }
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const u16) -> Self {
        unsafe { Neon([widen(src), widen(src.add(4)), widen(src.add(8)), widen(src.add(12))]) }
    }

    #[inline(always)]
    unsafe fn load_bf16(src: *const u16) -> Self {
        unsafe {
            Neon([widen_bf16(src), widen_bf16(src.add(4)), widen_bf16(src.add(8)), widen_bf16(src.add(12))])
        }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut f32) {
        let [a, b, c, d] = self.0;
        unsafe {
            vst1q_f32(dst, a);
            vst1q_f32(dst.add(4), b);
            vst1q_f32(dst.add(8), c);
            vst1q_f32(dst.add(12), d);
        }
    }

    #[inline(always)]
    unsafe fn load_first(src: *const f32, n: usize) -> Self {
        let mut lanes = [0.0f32; LANES];
        unsafe {
            std::ptr::copy_nonoverlapping(src, lanes.as_mut_ptr(), n);
            Self::load(lanes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_first(self, dst: *mut f32, n: usize) {
        let mut lanes = [0.0f32; LANES];
        unsafe {
            self.store(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), dst, n);
        }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        zip(self, b, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        zip(self, b, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        zip(self, b, |a, b| unsafe { vdivq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // The intrinsic takes the addend first.
        zip3(self, b, c, |a, b, c| unsafe { vfmaq_f32(c, a, b) })
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        zip(self, b, larger)
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        zip(self, b, smaller)
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        map(self, |a| unsafe { vabsq_f32(a) })
    }

    #[inline(always)]
    unsafe fn select_negative(self, a: Self, b: Self) -> Self {
        zip3(self, a, b, |x, a, b| unsafe { vbslq_f32(vcltzq_f32(x), a, b) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        map(self, |a| unsafe { vrndnq_f32(a) })
    }

    #[inline(always)]
    unsafe fn scale_pow2(self, n: Self) -> Self {
        zip(self, n, scale_pow2)
    }

    #[inline(always)]
    unsafe fn fold_add(self) -> f32 {
        let [a, b, c, d] = self.0;
        unsafe {
            let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vpadds_f32(two)
        }
    }

    #[inline(always)]
    unsafe fn fold_max(self) -> f32 {
        let [a, b, c, d] = self.0;
        unsafe {
            let four = larger(larger(a, c), larger(b, d));
            let two = larger(four, vextq_f32::<2>(four, four));
            vgetq_lane_f32::<0>(larger(two, vextq_f32::<1>(two, two)))
        }
    }
}
