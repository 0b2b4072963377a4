//! Sixteen 32-bit words in registers: what the integer kernels see of sixteen interleaved rows.
//!
//! A word is one lane's worth of a packed weight ([`crate::matmul::Packed`]): four 8-bit codes, eight nibbles or the
//! bits beside them, each lane belonging to another row. Formats ([`crate::quant::Interleaved`]) take codes out of
//! words, kernels multiply them with activations; both are written once over [`Words`], and an instruction set is
//! one file here.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod ymm;
#[cfg(target_arch = "x86_64")]
mod zmm;

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{Quads, Sdot, Usdot};
#[cfg(target_arch = "x86_64")]
pub(crate) use ymm::{Maddubs, Vnni, Ymm};
#[cfg(target_arch = "x86_64")]
pub(crate) use zmm::Zmm;

use crate::lanes::Lanes;
use crate::quant::Interleaved;
use crate::quantise_rows::{Block, Part};

/// Sixteen 32-bit words.
///
/// Every function is `unsafe` for one reason: the instruction set of the implementor must be available. Those taking
/// pointers also need 64 bytes readable or writable there, at any alignment.
pub(crate) trait Words: Copy {
    /// Sixteen f32 of the same instruction set.
    type Floats: Lanes;

    /// Reads sixteen words.
    unsafe fn load(src: *const u8) -> Self;
    /// Writes sixteen words.
    unsafe fn store(self, dst: *mut u8);
    /// Bits set in both `self` and `mask`, every lane having the same mask.
    unsafe fn and(self, mask: u32) -> Self;
    /// Bits set in `self` or `b`.
    unsafe fn or(self, b: Self) -> Self;
    /// Bits set in one of `self` and `mask`, every lane having the same mask.
    unsafe fn xor(self, mask: u32) -> Self;
    /// Every lane shifted to the left by `n < 32`.
    unsafe fn shift_left(self, n: usize) -> Self;
    /// Every lane shifted to the right by `n < 32`, zeros coming in.
    unsafe fn shift_right(self, n: usize) -> Self;
    /// Every lane, as a signed integer, shifted to the right by `n < 32`, its sign coming in.
    unsafe fn shift_right_signed(self, n: usize) -> Self;
    /// Every byte, which must be below 16, replaced by its entry of the table.
    unsafe fn lookup(self, table: &[u8; 16]) -> Self;
    /// Every lane, as a signed integer of at most 24 bits, as f32.
    unsafe fn to_floats(self) -> Self::Floats;

    /// For each of `M` tokens Σ (code − offset) · qx over one group, in sixteen rows, exactly.
    ///
    /// `x` is the first of `M` records that hold the group's activations as `part` of their 32.
    unsafe fn dots<F: Interleaved, const M: usize>(
        codes: impl Codes<Self>,
        x: *const Block,
        part: Part,
    ) -> [Self; M];
}

/// The codes of a group, wherever they come from.
///
/// A trait and not a closure, because a closure is compiled without the caller's instruction set unless it is inlined,
/// and only a function can insist on that.
pub(crate) trait Codes<W> {
    /// The word of codes 4j .. 4j + 4, unsigned, at most the format's `q_max`.
    ///
    /// # Safety
    /// `j` must be inside the group; the instruction set of `W` must be available.
    unsafe fn code(&self, j: usize) -> W;
}

/// Repeats a block with an index known at compile time: shift counts and addresses become constants even where the
/// compiler would rather keep a loop.
macro_rules! unroll {
    ($index:ident in [$($n:literal)*] $body:block) => { $( { let $index: usize = $n; $body } )* };
}
pub(crate) use unroll;

/// Four activations as one word.
///
/// # Safety
/// `x` must be readable, `at + 4 ≤ 32`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn activations(x: *const Block, at: usize) -> i32 {
    // SAFETY: the record is readable and `at` inside its codes, as the caller vouches.
    unsafe { (&raw const (*x).q).cast::<u8>().add(at).cast::<i32>().read_unaligned() }
}
