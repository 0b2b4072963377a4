//! Blocks of sixteen rows side by side: the form in which weights are multiplied.
//!
//! [`crate::matmul::Packed`] keeps the bytes of a block as they are, but lets the same unit of sixteen rows lie together:
//! first the sixteen units at offset 0 (row 0's, row 1's, …), then those of the next offset. A unit is 2 bytes where the
//! block holds an f16 and 4 bytes everywhere else, so what lies at offset o of a block starts at offset 16 · o of
//! sixteen interleaved blocks, and one load takes the same unit of every row, a row per lane.
//!
//! One thing is moved: a word that holds one bit per element in natural order (the fifth bits of Q5_0 and Q5_1, see
//! [`Format::bit_plane`]) is kept with bit 4j + b at 8b + j, so that shifting it by a constant puts the bits of four
//! neighbouring elements into four bytes.

use super::Format;
use crate::lanes::Lanes;
use crate::words::Words;

/// How a format is read from interleaved blocks. Written once for all instruction sets; after inlining, shifts and
/// masks are constants.
pub(crate) trait Interleaved {
    /// What it is.
    const FORMAT: Format;

    /// The codes of elements 4j .. 4j + 4 of group `g` of each row, one per byte.
    ///
    /// # Safety
    /// `block` must be readable for sixteen blocks; the instruction set of `W` must be available.
    unsafe fn code<W: Words>(block: *const u8, g: usize, j: usize) -> W;

    /// The scale of group `g` of each row.
    ///
    /// # Safety
    /// As [`Interleaved::code`].
    unsafe fn scale<W: Words>(block: *const u8, g: usize) -> W::Floats;

    /// The minimum of group `g` of each row; only called if the format has minima.
    ///
    /// # Safety
    /// As [`Interleaved::code`].
    unsafe fn min<W: Words>(block: *const u8, g: usize) -> W::Floats {
        let _ = (block, g);
        unreachable!("{} has no minima", Self::FORMAT.dtype)
    }
}

/// The word at `offset` of each block.
///
/// # Safety
/// As [`Interleaved::code`]; a word of the block must lie there.
#[inline(always)]
pub(super) unsafe fn word<W: Words>(block: *const u8, offset: usize) -> W {
    // SAFETY: inside the sixteen blocks, as the caller vouches.
    unsafe { W::load(block.add(16 * offset)) }
}

/// The f16 at `offset` of each block.
///
/// # Safety
/// As [`Interleaved::code`]; an f16 of the block must lie there.
#[inline(always)]
pub(super) unsafe fn half<W: Words>(block: *const u8, offset: usize) -> W::Floats {
    // SAFETY: inside the sixteen blocks, as the caller vouches.
    unsafe { W::Floats::load_f16(block.add(16 * offset).cast()) }
}

/// In every byte (or word), moves the bits that start at bit `from` so that they start at bit `to`, and keeps those in
/// `mask`.
///
/// # Safety
/// The instruction set of `W` must be available.
#[inline(always)]
pub(super) unsafe fn move_bits<W: Words>(w: W, from: usize, to: usize, mask: u32) -> W {
    // SAFETY: the caller vouches.
    unsafe {
        let shifted = if from < to { w.shift_left(to - from) } else { w.shift_right(from - to) };
        shifted.and(mask)
    }
}

/// Bit 4j + b of a word to bit 8b + j (j < 8, b < 4).
#[inline]
pub(crate) fn interleave_bits(w: u32) -> u32 {
    unshuffle(unshuffle(w))
}

/// Inverse of [`interleave_bits`].
#[inline]
pub(crate) fn deinterleave_bits(w: u32) -> u32 {
    // Five rotations of the five bits of an index are none.
    unshuffle(unshuffle(unshuffle(w)))
}

/// Even bits to the lower half, odd bits to the upper one: rotates the bits of every bit's index by one.
#[inline]
fn unshuffle(w: u32) -> u32 {
    let swap = |w: u32, by: u32, mask: u32| {
        let moved = (w ^ (w >> by)) & mask;
        w ^ moved ^ (moved << by)
    };
    let w = swap(w, 1, 0x2222_2222);
    let w = swap(w, 2, 0x0c0c_0c0c);
    let w = swap(w, 4, 0x00f0_00f0);
    swap(w, 8, 0x0000_ff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_go_where_the_module_says_and_back() {
        for j in 0..8 {
            for b in 0..4 {
                assert_eq!(interleave_bits(1 << (4 * j + b)), 1 << (8 * b + j), "{j} {b}");
                assert_eq!(deinterleave_bits(1 << (8 * b + j)), 1 << (4 * j + b), "{j} {b}");
            }
        }
    }
}
