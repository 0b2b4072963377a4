//! The integer kernels, once per instruction set and format.
//!
//! Written over [`Words`] and [`Interleaved`]; what is specific is which instructions multiply bytes (`words/`), where
//! a code lies in a block (`quant/`), and how many tokens share a panel's loads (the table at the end).

use super::integer::{GROUPS, STEP};
use crate::dispatch::{Impl, Simd};
use crate::lanes::{LANES, Lanes};
use crate::quant::*;
use crate::quantise_rows::{BLOCK, Block, Part};
use crate::words::{Codes, Words, unroll};
use std::marker::PhantomData;
use tangelo_core::DType;

/// Sixteen rows over at most [`STEP`] elements, unpacked.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// (k / 4, 16, 4): codes.
    pub q: [u8; STEP * LANES],
    /// (group, 16).
    pub scale: [f32; GROUPS * LANES],
    /// (group, 16).
    pub min: [f32; GROUPS * LANES],
}

/// Adds the products of a few tokens and some panels, straight from their `blocks` interleaved blocks, to the sums
/// (panel, token); the panels lie `stride` bytes apart, and `x` holds the tokens' records, for every block of 32 one after
/// the other.
///
/// Panels are read side by side, as several streams: memory answers those faster than one after the other.
pub(super) type Direct =
    unsafe fn(panels: *const u8, stride: usize, blocks: usize, x: *const Block, sums: &mut [[f32; LANES]]);

/// Most tokens of a [`Direct`] kernel.
pub(super) const DIRECT_MAX: usize = 4;

/// Unpacks `blocks` interleaved blocks, of together at most [`STEP`] elements.
pub(super) type Unpack = unsafe fn(src: *const u8, blocks: usize, panel: &mut Panel);

/// Adds the products of an unpacked panel of `len` elements and a tile of tokens to their sums; `x` as above. Meanwhile the
/// memory of `ahead` is asked for.
pub(super) type Multiply =
    unsafe fn(panel: &Panel, len: usize, x: *const Block, sums: &mut [[f32; LANES]], ahead: &[u8]);

/// The kernels of one format and instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// For one token and for [`DIRECT_MAX`].
    pub direct: [(usize, Direct); 2],
    pub unpack: Unpack,
    /// Tokens of a tile, and the kernel for it.
    pub multiply: (usize, Multiply),
}

/// The kernels for a block format, best first; empty where an architecture has none yet.
pub(super) fn kernels(dtype: DType) -> &'static [Impl<Kernels>] {
    macro_rules! pick {
        ($($format:ident),*) => {
            match dtype {
                $(dtype if dtype == <$format as Interleaved>::FORMAT.dtype => table::<$format>(),)*
                _ => &[],
            }
        };
    }
    for_formats!(pick)
}

/// Group `1` of the interleaved block at `0`.
struct Stored<F>(*const u8, usize, PhantomData<F>);

impl<W: Words, F: Interleaved> Codes<W> for Stored<F> {
    #[inline(always)]
    unsafe fn code(&self, j: usize) -> W {
        // SAFETY: the caller vouches; the block is readable for as long as this is used.
        unsafe { F::code(self.0, self.1, j) }
    }
}

/// The codes of a group in a panel.
struct Unpacked(*const u8);

impl<W: Words> Codes<W> for Unpacked {
    #[inline(always)]
    unsafe fn code(&self, j: usize) -> W {
        // SAFETY: as above.
        unsafe { W::load(self.0.add(4 * j * LANES)) }
    }
}

/// Repeats a block for every group `$g` of a block of `$format`, eight at a time: which bits a group has is then known at
/// compile time, as every format repeats itself after eight groups at most.
macro_rules! for_groups {
    ($format:ty, $g:ident, $body:block) => {{
        let groups = <$format>::FORMAT.dtype.block_len() / <$format>::FORMAT.group;
        for eight in 0..groups.div_ceil(8) {
            unroll!(i in [0 1 2 3 4 5 6 7] {
                if i < groups {
                    let $g = 8 * eight + i;
                    $body
                }
            });
        }
    }};
}

/// # Safety
/// The instruction set of `W` must be available; every panel must hold `blocks` interleaved blocks and `x` `M`
/// records for every 32 of their elements; `sums` holds `M` for every panel.
#[inline(always)]
unsafe fn direct<W: Words, F: Interleaved, const M: usize>(
    panels: *const u8,
    stride: usize,
    blocks: usize,
    x: *const Block,
    sums: &mut [[f32; LANES]],
) {
    let (group, len) = (F::FORMAT.group, F::FORMAT.dtype.block_len());
    // SAFETY: every block and record below is one of those the caller vouches for.
    unsafe {
        for b in 0..blocks {
            let block = panels.add(b * LANES * F::FORMAT.dtype.block_bytes());
            let x = x.add(b * len / BLOCK * M);
            for_groups!(F, g, {
                let (x, part) = (x.add(g * group / BLOCK * M), Part::of(g * group, group));
                for (p, sums) in sums.as_chunks_mut::<M>().0.iter_mut().enumerate() {
                    let block = block.add(p * stride);
                    if group < BLOCK {
                        // Fields that lie apart are read side by side, which no prefetcher sees through.
                        let bytes = LANES * F::FORMAT.dtype.block_bytes();
                        let share = bytes / (len / group);
                        for at in (g * share..(g + 1) * share).step_by(64) {
                            W::Floats::prefetch(block.wrapping_add(bytes + at));
                        }
                    }
                    let n = W::dots::<F, M>(Stored::<F>(block, g, PhantomData), x, part);
                    let min = if F::FORMAT.has_min { F::min::<W>(block, g) } else { W::Floats::splat(0.0) };
                    let mut s = load::<W, M>(sums);
                    accumulate::<W, F, M>(&mut s, n, F::scale::<W>(block, g), min, x, part);
                    store::<W, M>(&s, sums);
                }
            });
        }
    }
}

/// # Safety
/// The instruction set of `W` must be available.
#[inline(always)]
unsafe fn load<W: Words, const M: usize>(sums: &[[f32; LANES]; M]) -> [W::Floats; M] {
    // SAFETY: every sum has sixteen elements; the caller vouches.
    unsafe {
        let mut s = [W::Floats::splat(0.0); M];
        for i in 0..M {
            s[i] = W::Floats::load(sums[i].as_ptr());
        }
        s
    }
}

/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn store<W: Words, const M: usize>(s: &[W::Floats; M], sums: &mut [[f32; LANES]; M]) {
    for i in 0..M {
        // SAFETY: as above.
        unsafe { s[i].store(sums[i].as_mut_ptr()) };
    }
}

/// One group's share of every sum, in the order of the contract.
///
/// # Safety
/// As [`Words::dots`].
#[inline(always)]
unsafe fn accumulate<W: Words, F: Interleaved, const M: usize>(
    s: &mut [W::Floats; M],
    n: [W; M],
    scale: W::Floats,
    min: W::Floats,
    x: *const Block,
    part: Part,
) {
    // SAFETY: the caller vouches.
    unsafe {
        for i in 0..M {
            let x = &*x.add(i);
            s[i] = n[i].to_floats().fma(scale.mul(W::Floats::splat(x.d)), s[i]);
            if F::FORMAT.has_min {
                let d_sum = if part == Part::Whole { x.d_sum } else { x.d * x.sum[part as usize] as f32 };
                s[i] = min.fma(W::Floats::splat(d_sum), s[i]);
            }
        }
    }
}

/// # Safety
/// The instruction set of `W` must be available; `src` must hold `blocks` interleaved blocks of together at most
/// [`STEP`] elements.
#[inline(always)]
unsafe fn unpack<W: Words, F: Interleaved>(src: *const u8, blocks: usize, panel: &mut Panel) {
    let (group, len) = (F::FORMAT.group, F::FORMAT.dtype.block_len());
    assert!(blocks * len <= STEP);
    for b in 0..blocks {
        // SAFETY: the caller vouches for the block; the panel has room for STEP elements and their groups.
        unsafe {
            let block = src.add(b * LANES * F::FORMAT.dtype.block_bytes());
            let q = panel.q.as_mut_ptr().add(b * len * LANES);
            let lane = b * (len / group) * LANES;
            let (scale, min) = (panel.scale.as_mut_ptr().add(lane), panel.min.as_mut_ptr().add(lane));
            for_groups!(F, g, {
                for j in 0..group / 4 {
                    F::code::<W>(block, g, j).store(q.add((g * group + 4 * j) * LANES));
                }
                F::scale::<W>(block, g).store(scale.add(g * LANES));
                if F::FORMAT.has_min {
                    F::min::<W>(block, g).store(min.add(g * LANES));
                }
            });
        }
    }
}

/// # Safety
/// The instruction set of `W` must be available; the panel must hold `len` elements, and `x` `M` records for every 32 of
/// them.
#[inline(always)]
unsafe fn multiply<W: Words, F: Interleaved, const M: usize>(
    panel: &Panel,
    len: usize,
    x: *const Block,
    sums: &mut [[f32; LANES]],
    ahead: &[u8],
) {
    assert!(len <= STEP);
    let sums = sums.first_chunk_mut::<M>().expect("a sum for every token of the tile");
    let group = F::FORMAT.group;
    let mut ahead = ahead.chunks(ahead.len().div_ceil(len / group).max(1));
    // SAFETY: groups lie inside the panel (len ≤ STEP) and the records are those the caller vouches for.
    unsafe {
        let mut s = load::<W, M>(sums);
        for g in 0..len / group {
            for line in ahead.next().unwrap_or(&[]).chunks(64) {
                W::Floats::prefetch(line.as_ptr());
            }
            let (x, part) = (x.add(g * group / BLOCK * M), Part::of(g * group, group));
            let q = panel.q.as_ptr().add(g * group * LANES);
            let n = W::dots::<F, M>(Unpacked(q), x, part);
            let scale = W::Floats::load(panel.scale.as_ptr().add(g * LANES));
            let min = W::Floats::load(panel.min.as_ptr().add(g * LANES));
            accumulate::<W, F, M>(&mut s, n, scale, min, x, part);
        }
        store::<W, M>(&s, sums);
    }
}

/// The functions above for one set of words, compiled for the features it needs.
macro_rules! instance {
    ($words:ty, $features:literal, $format:ident, $tile:literal) => {{
        #[target_feature(enable = $features)]
        unsafe fn direct_of<F: Interleaved, const M: usize>(
            panels: *const u8,
            stride: usize,
            blocks: usize,
            x: *const Block,
            sums: &mut [[f32; LANES]],
        ) {
            // SAFETY: the caller vouches, and the features are those of the level.
            unsafe { direct::<$words, F, M>(panels, stride, blocks, x, sums) }
        }
        #[target_feature(enable = $features)]
        unsafe fn unpack_of<F: Interleaved>(src: *const u8, blocks: usize, panel: &mut Panel) {
            // SAFETY: as above.
            unsafe { unpack::<$words, F>(src, blocks, panel) }
        }
        #[target_feature(enable = $features)]
        unsafe fn multiply_of<F: Interleaved>(
            panel: &Panel,
            len: usize,
            x: *const Block,
            sums: &mut [[f32; LANES]],
            ahead: &[u8],
        ) {
            // SAFETY: as above.
            unsafe { multiply::<$words, F, $tile>(panel, len, x, sums, ahead) }
        }
        Kernels {
            direct: [(1, direct_of::<$format, 1>), (DIRECT_MAX, direct_of::<$format, DIRECT_MAX>)],
            unpack: unpack_of::<$format>,
            multiply: ($tile, multiply_of::<$format>),
        }
    }};
}

/// The table of one format. Tile heights: what fits in the registers of the instruction set.
fn table<F: Interleaved>() -> &'static [Impl<Kernels>] {
    const {
        &[
            #[cfg(target_arch = "x86_64")]
            Impl {
                simd: Simd::Avx512,
                run: instance!(
                    crate::words::Zmm,
                    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c",
                    F,
                    12
                ),
            },
            #[cfg(target_arch = "x86_64")]
            Impl {
                simd: Simd::AvxVnni,
                run: instance!(crate::words::Ymm<crate::words::Vnni>, "avxvnni,avx2,fma,f16c", F, 4),
            },
            #[cfg(target_arch = "x86_64")]
            Impl {
                simd: Simd::Avx2,
                run: instance!(crate::words::Ymm<crate::words::Maddubs>, "avx2,fma,f16c", F, 4),
            },
            #[cfg(target_arch = "aarch64")]
            Impl {
                simd: Simd::I8mm,
                run: instance!(crate::words::Quads<crate::words::Usdot>, "neon,dotprod,i8mm", F, 4),
            },
            #[cfg(target_arch = "aarch64")]
            Impl {
                simd: Simd::Neon,
                run: instance!(crate::words::Quads<crate::words::Sdot>, "neon,dotprod", F, 4),
            },
        ]
    }
}
