//! Sixteen lanes as an array: for kernels whose definition is the kernel itself.

use super::reference::fold;
use super::{LANES, Lanes};

/// One element per lane.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Plain {
        Plain(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, b: Plain, f: impl Fn(f32, f32) -> f32) -> Plain {
        Plain(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

// SAFETY of all bodies: the trait's callers vouch for the pointers; no instruction set is needed.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Plain {
    unsafe fn splat(x: f32) -> Self {
        Plain([x; LANES])
    }

    unsafe fn load(src: *const f32) -> Self {
        unsafe { Plain(src.cast::<[f32; LANES]>().read_unaligned()) }
    }

    unsafe fn store(self, dst: *mut f32) {
        unsafe { dst.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }

    unsafe fn load_first(src: *const f32, n: usize) -> Self {
        unsafe { Plain(std::array::from_fn(|i| if i < n { src.add(i).read() } else { 0.0 })) }
    }

    unsafe fn store_first(self, dst: *mut f32, n: usize) {
        unsafe { self.0[..n].iter().enumerate().for_each(|(i, x)| dst.add(i).write(*x)) }
    }

    unsafe fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }

    unsafe fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }

    unsafe fn div(self, b: Self) -> Self {
        self.zip(b, |a, b| a / b)
    }

    unsafe fn fma(self, b: Self, c: Self) -> Self {
        Plain(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }

    unsafe fn max(self, b: Self) -> Self {
        self.zip(b, |a, b| if a > b { a } else { b })
    }

    unsafe fn min(self, b: Self) -> Self {
        self.zip(b, |a, b| if a < b { a } else { b })
    }

    unsafe fn abs(self) -> Self {
        self.map(f32::abs)
    }

    unsafe fn select_negative(self, a: Self, b: Self) -> Self {
        Plain(std::array::from_fn(|i| if self.0[i] < 0.0 { a.0[i] } else { b.0[i] }))
    }

    unsafe fn round(self) -> Self {
        self.map(f32::round_ties_even)
    }

    unsafe fn scale_pow2(self, n: Self) -> Self {
        self.zip(n, crate::math::scale_pow2)
    }

    unsafe fn fold_add(self) -> f32 {
        fold(self.0, |a, b| a + b)
    }

    unsafe fn fold_max(self) -> f32 {
        fold(self.0, |a, b| if a > b { a } else { b })
    }
}
