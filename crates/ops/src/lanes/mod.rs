//! Sixteen f32 lanes: the unit in which the order of arithmetic of this crate is written.
//!
//! Every sum in a contract is one of two kinds. An *ordered* sum has one accumulator per output element and
//! goes through its terms in order. A *laned* sum ([`reference::sum_lanes`]) has sixteen accumulators, term `i`
//! goes to lane `i mod 16`, and the lanes are folded as a tree: 16 → 8 → 4 → 2 → 1, lane `i` taking lane
//! `i + width / 2`. Sixteen lanes are one AVX-512 register, two of AVX2 or four of NEON, so each instruction
//! set computes the same bits at full speed.
//!
//! Kernels whose body is the same for all instruction sets are written once over `Lanes`; those that need
//! integer dot products have a file per set. Multiply-adds are fused everywhere.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;
pub mod reference;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use plain::Plain;

/// Number of lanes.
pub const LANES: usize = 16;

/// Sixteen f32 values in registers.
///
/// Every function is `unsafe` for one reason: the instruction set of the implementor must be available.
/// Those taking pointers also need `LANES` (or `n`) readable or writable elements there, at any alignment.
pub(crate) trait Lanes: Copy {
    /// Whether there are registers for two dozen values; else for a dozen at least, unless it is arrays.
    const IS_WIDE: bool = false;
    /// `x` in all lanes.
    unsafe fn splat(x: f32) -> Self;
    /// Reads 16 elements.
    unsafe fn load(src: *const f32) -> Self;
    /// Reads the bits of 16 binary16 numbers and widens them, exactly.
    #[inline(always)]
    unsafe fn load_f16(src: *const u16) -> Self {
        // SAFETY: the caller vouches for sixteen elements and the instruction set.
        unsafe {
            let mut wide = [0.0; LANES];
            wide.iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = tangelo_core::float::f16_to_f32(src.add(i).read_unaligned()));
            Self::load(wide.as_ptr())
        }
    }
    /// Reads the bits of 16 bfloat16 numbers and widens them, exactly.
    #[inline(always)]
    unsafe fn load_bf16(src: *const u16) -> Self {
        // SAFETY: the caller vouches for sixteen elements and the instruction set.
        unsafe {
            let mut wide = [0.0; LANES];
            for (i, x) in wide.iter_mut().enumerate() {
                *x = f32::from_bits(u32::from(src.add(i).read_unaligned()) << 16);
            }
            Self::load(wide.as_ptr())
        }
    }
    /// Asks for the cache line at `src`, which need not be readable.
    #[inline(always)]
    fn prefetch<T>(src: *const T) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE is part of every x86-64 target, and a prefetch cannot fault.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(src.cast());
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: a prefetch cannot fault and changes nothing that can be seen.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) src, options(readonly, nostack, preserves_flags));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = src;
    }
    /// Writes 16 elements.
    unsafe fn store(self, dst: *mut f32);
    /// Reads `n < 16` elements; the other lanes are `+0.0`.
    unsafe fn load_first(src: *const f32, n: usize) -> Self;
    /// Writes the first `n < 16` lanes.
    unsafe fn store_first(self, dst: *mut f32, n: usize);
    /// `self + b`.
    unsafe fn add(self, b: Self) -> Self;
    /// `self * b`.
    unsafe fn mul(self, b: Self) -> Self;
    /// `self / b`.
    unsafe fn div(self, b: Self) -> Self;
    /// `self * b + c`, rounded once.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// `if self > b { self } else { b }`.
    unsafe fn max(self, b: Self) -> Self;
    /// `if self < b { self } else { b }`.
    unsafe fn min(self, b: Self) -> Self;
    /// Absolute value.
    unsafe fn abs(self) -> Self;
    /// `if self < 0 { a } else { b }`.
    unsafe fn select_negative(self, a: Self, b: Self) -> Self;
    /// Nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// `self * 2^n` for integral `n` in -252..=254, as `(self * 2^(n >> 1)) * 2^(n - (n >> 1))`.
    unsafe fn scale_pow2(self, n: Self) -> Self;
    /// The laned sum's tree.
    unsafe fn fold_add(self) -> f32;
    /// Maximum of the lanes by [`Lanes::max`], folded as the same tree.
    unsafe fn fold_max(self) -> f32;
}

/// Reads up to 16 elements starting at `at`; lanes past the end of `src` are `+0.0`.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
pub(crate) unsafe fn load_at<V: Lanes>(src: &[f32], at: usize) -> V {
    let rest = &src[at..];
    // SAFETY: `rest` holds the elements that are read; the caller vouches for the instruction set.
    unsafe {
        if rest.len() >= LANES { V::load(rest.as_ptr()) } else { V::load_first(rest.as_ptr(), rest.len()) }
    }
}

/// Writes up to 16 elements starting at `at`; lanes past the end of `dst` are dropped.
///
/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
pub(crate) unsafe fn store_at<V: Lanes>(value: V, dst: &mut [f32], at: usize) {
    let rest = &mut dst[at..];
    // SAFETY: `rest` holds the elements that are written; the caller vouches for the instruction set.
    unsafe {
        if rest.len() >= LANES {
            value.store(rest.as_mut_ptr());
        } else {
            value.store_first(rest.as_mut_ptr(), rest.len());
        }
    }
}

/// Instantiates a kernel written over [`Lanes`] for every instruction set, and lists the instances best first
/// with the reference last:
/// `over_lanes! { pub(crate) static IMPLS: Kernel = kernel(a: A, b: B), reference::run }` where `kernel<V: Lanes>`
/// is an `#[inline(always)] unsafe fn`.
macro_rules! over_lanes {
    ($(#[$meta:meta])* $vis:vis static $impls:ident : $kernel:ty =
     $generic:ident ( $($arg:ident : $ty:ty),* $(,)? ), $reference:path) => {
        $(#[$meta])*
        $vis static $impls: &[$crate::dispatch::Impl<$kernel>] = {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: the features above are those `Simd::Avx512` stands for.
                unsafe { $generic::<$crate::lanes::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: the features above are those `Simd::Avx2` stands for.
                unsafe { $generic::<$crate::lanes::Avx2>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            unsafe fn neon($($arg: $ty),*) {
                // SAFETY: the feature above is part of what `Simd::Neon` stands for.
                unsafe { $generic::<$crate::lanes::Neon>($($arg),*) }
            }
            &[
                #[cfg(target_arch = "x86_64")]
                $crate::dispatch::Impl { simd: $crate::dispatch::Simd::Avx512, run: avx512 },
                #[cfg(target_arch = "x86_64")]
                $crate::dispatch::Impl { simd: $crate::dispatch::Simd::Avx2, run: avx2 },
                #[cfg(target_arch = "aarch64")]
                $crate::dispatch::Impl { simd: $crate::dispatch::Simd::Neon, run: neon },
                $crate::dispatch::Impl { simd: $crate::dispatch::Simd::Reference, run: $reference },
            ]
        };
    };
}
pub(crate) use over_lanes;
