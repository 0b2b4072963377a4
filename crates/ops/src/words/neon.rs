//! Sixteen words as four NEON registers, and two instructions that add four products in 32 bits.
//!
//! Both multiply with one 4-byte element of a register, so that sixteen activations are loaded at once and none are
//! broadcast. They are written as assembly: Rust has no stable intrinsics for them.

use super::{Codes, Words, unroll};
use crate::lanes::Neon;
use crate::quant::Interleaved;
use crate::quantise_rows::{Block, Part};
use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

/// Words 0-3, 4-7, 8-11 and 12-15; `D` says how bytes are multiplied.
pub(crate) struct Quads<D>([uint32x4_t; 4], PhantomData<D>);

impl<D> Clone for Quads<D> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Quads<D> {}

/// How an instruction set multiplies codes with activations.
pub(crate) trait Products {
    /// Whether codes are taken as signed bytes.
    const SIGNED: bool;

    /// To every lane of `n`, adds the products of its four bytes of `codes` with bytes 4 `LANE` .. 4 `LANE` + 4 of `x`,
    /// which are signed.
    ///
    /// # Safety
    /// The instruction must be available.
    unsafe fn dot<const LANE: i32>(n: int32x4_t, codes: uint32x4_t, x: int8x16_t) -> int32x4_t;
}

/// Armv8.4: `sdot`, signed times signed.
pub(crate) struct Sdot;

/// Armv8.6: `usdot`, unsigned times signed.
pub(crate) struct Usdot;

/// [`Products::dot`] by the instruction of that name.
macro_rules! dot {
    ($name:literal) => {
        #[inline(always)]
        unsafe fn dot<const LANE: i32>(mut n: int32x4_t, codes: uint32x4_t, x: int8x16_t) -> int32x4_t {
            // SAFETY: the instruction works on registers only; the caller vouches that there is one.
            unsafe {
                asm!(
                    concat!($name, " {n:v}.4s, {codes:v}.16b, {x:v}.4b[{lane}]"),
                    n = inout(vreg) n,
                    codes = in(vreg) codes,
                    x = in(vreg) x,
                    lane = const LANE,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            n
        }
    };
}

impl Products for Sdot {
    const SIGNED: bool = true;
    dot!("sdot");
}

impl Products for Usdot {
    const SIGNED: bool = false;
    dot!("usdot");
}

/// [`Products::dot`] of sixteen rows, with the element of `x` chosen by a number known after inlining.
///
/// # Safety
/// The instruction of `D` must be available.
#[inline(always)]
unsafe fn dot<D: Products>(n: &mut [int32x4_t; 4], codes: Quads<D>, x: int8x16_t, lane: usize) {
    for (n, codes) in n.iter_mut().zip(codes.0) {
        // SAFETY: the caller vouches.
        *n = unsafe {
            match lane {
                0 => D::dot::<0>(*n, codes, x),
                1 => D::dot::<1>(*n, codes, x),
                2 => D::dot::<2>(*n, codes, x),
                _ => D::dot::<3>(*n, codes, x),
            }
        };
    }
}

impl<D> Quads<D> {
    #[inline(always)]
    fn map(self, f: impl Fn(uint32x4_t) -> uint32x4_t) -> Self {
        let [a, b, c, d] = self.0;
        Quads([f(a), f(b), f(c), f(d)], PhantomData)
    }
}

// SAFETY of all bodies: NEON is always there; the trait's callers vouch for the instruction of `D` and the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<D: Products> Words for Quads<D> {
    type Floats = Neon;

    #[inline(always)]
    unsafe fn load(src: *const u8) -> Self {
        let quad = |i: usize| unsafe { vreinterpretq_u32_u8(vld1q_u8(src.add(16 * i))) };
        Quads([quad(0), quad(1), quad(2), quad(3)], PhantomData)
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut u8) {
        for (i, quad) in self.0.into_iter().enumerate() {
            unsafe { vst1q_u8(dst.add(16 * i), vreinterpretq_u8_u32(quad)) };
        }
    }

    #[inline(always)]
    unsafe fn and(self, mask: u32) -> Self {
        self.map(|a| unsafe { vandq_u32(a, vdupq_n_u32(mask)) })
    }

    #[inline(always)]
    unsafe fn or(self, b: Self) -> Self {
        let ([a, c, e, g], [b, d, f, h]) = (self.0, b.0);
        unsafe { Quads([vorrq_u32(a, b), vorrq_u32(c, d), vorrq_u32(e, f), vorrq_u32(g, h)], PhantomData) }
    }

    #[inline(always)]
    unsafe fn xor(self, mask: u32) -> Self {
        self.map(|a| unsafe { veorq_u32(a, vdupq_n_u32(mask)) })
    }

    #[inline(always)]
    unsafe fn shift_left(self, n: usize) -> Self {
        self.map(|a| unsafe { vshlq_u32(a, vdupq_n_s32(n as i32)) })
    }

    // The instruction shifts to the right by a negative number.
    #[inline(always)]
    unsafe fn shift_right(self, n: usize) -> Self {
        self.map(|a| unsafe { vshlq_u32(a, vdupq_n_s32(-(n as i32))) })
    }

    #[inline(always)]
    unsafe fn shift_right_signed(self, n: usize) -> Self {
        self.map(|a| unsafe {
            vreinterpretq_u32_s32(vshlq_s32(vreinterpretq_s32_u32(a), vdupq_n_s32(-(n as i32))))
        })
    }

    #[inline(always)]
    unsafe fn lookup(self, table: &[u8; 16]) -> Self {
        unsafe {
            let table = vld1q_u8(table.as_ptr());
            self.map(|a| vreinterpretq_u32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(a))))
        }
    }

    #[inline(always)]
    unsafe fn to_floats(self) -> Neon {
        let [a, b, c, d] = self.0;
        let float = |a| unsafe { vcvtq_f32_s32(vreinterpretq_s32_u32(a)) };
        Neon([float(a), float(b), float(c), float(d)])
    }

    #[inline(always)]
    unsafe fn dots<F: Interleaved, const M: usize>(
        codes: impl Codes<Self>,
        x: *const Block,
        part: Part,
    ) -> [Self; M] {
        // As signed bytes, codes above 127 are 128 less if their highest bit is flipped; that is then the whole offset.
        let flip = D::SIGNED && F::FORMAT.q_max > 127;
        assert!(!flip || F::FORMAT.offset == 128, "{} has 8-bit codes with another offset", F::FORMAT.dtype);
        let offset = if flip { 0 } else { i32::from(F::FORMAT.offset) };
        unsafe {
            let mut n = [[vdupq_n_s32(0); 4]; M];
            let mut sixteen = [vdupq_n_s8(0); M];
            for i in 0..M {
                n[i] = [vdupq_n_s32(-offset * (&*x.add(i)).sum[part as usize]); 4];
            }
            unroll!(j in [0 1 2 3 4 5 6 7] {
                if 4 * j < F::FORMAT.group {
                    if [0, 4].contains(&j) {
                        for i in 0..M {
                            let q = (&raw const (*x.add(i)).q).cast::<i8>();
                            sixteen[i] = vld1q_s8(q.add(part.first() + 4 * j));
                        }
                    }
                    let mut w: Self = codes.code(j);
                    if flip {
                        w = w.xor(0x8080_8080);
                    }
                    for i in 0..M {
                        dot(&mut n[i], w, sixteen[i], j % 4);
                    }
                }
            });
            n.map(|n| Quads(n.map(|n| vreinterpretq_u32_s32(n)), PhantomData))
        }
    }
}
