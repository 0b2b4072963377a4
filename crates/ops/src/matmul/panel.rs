//! The common shape of the fast twins: sixteen rows of W at a time, one per lane.
//!
//! A *panel* is a stretch of sixteen rows, unpacked and transposed so that what meets one step of k lies
//! together: `(k, 16)` f32 for plain floats, `(k / 4, 16, 4)` bytes and `(group, 16)` scales for block formats.
//! It is built once, in the first-level cache, and multiplied with every row of x; a kernel adds the panel's
//! share to a tile of accumulators `(m, 16)`. Unpacking therefore costs the same for one token as for hundreds.
//!
//! For a token or two the transposition of codes costs more than it saves: below [`FEW`] rows of x the codes stay
//! as unpacked, `(16, k)`, and the dot products are added across lanes instead. Integers do not mind.

use super::{Weight, dense};
use crate::device::{Cx, SharedRows, View};
use crate::dispatch::{Impl, Simd};
use crate::lanes::LANES;
use crate::quant::{self, Format};
use crate::quantise_rows::{BLOCK, HALF, QuantisedRows};
use std::ops::Range;

/// Elements of k in a panel of block formats: a multiple of every block length. Longer reads per row suit the
/// memory (decoding a 4B Q4_K_M file on two Zen 3 cores: 4.9 tokens/s with 256, 5.4 with 512, 4.6 with 1024).
pub(super) const STEP: usize = 512;
/// Elements of k in a panel of plain floats.
pub(super) const DENSE_STEP: usize = 128;
/// Groups in a panel, at the smallest group size.
pub(super) const GROUPS: usize = STEP / 16;
/// Rows of x from which codes are transposed.
const FEW: usize = 3;
/// Rows of x whose accumulators are held at once (16 KiB).
const TILE: usize = 256;
/// Panels per part at most: small enough to balance threads, large enough to amortise a claim.
const PANELS_PER_PART_MAX: usize = 8;

/// Where results go.
pub(super) struct Output<'a> {
    pub y: &'a SharedRows<'a>,
    pub scale: f32,
    pub bias: Option<&'a [f32]>,
}

impl Output<'_> {
    /// Writes outputs `r ..` of token `m`.
    ///
    /// # Safety
    /// No other thread may write the same outputs.
    pub(super) unsafe fn write(&self, m: usize, r: usize, sums: &[f32]) {
        // SAFETY: the caller vouches.
        let y = unsafe { self.y.part(m, r..r + sums.len()) };
        for (i, (y, s)) in y.iter_mut().zip(sums).enumerate() {
            let scaled = if self.scale == 1.0 { *s } else { *s * self.scale };
            *y = self.bias.map_or(scaled, |bias| scaled + bias[r + i]);
        }
    }
}

/// Sixteen rows over [`STEP`] elements of a block format.
#[repr(align(64))]
pub(super) struct Panel {
    /// (k / 4, 16, 4), or (16, k) for few rows of x.
    pub q: [u8; STEP * LANES],
    /// (group, 16).
    pub scale: [f32; GROUPS * LANES],
    /// (group, 16).
    pub min: [f32; GROUPS * LANES],
}

/// What a kernel is told about the piece of x a panel meets.
#[derive(Clone)]
pub(super) struct Piece {
    /// Rows of x.
    pub tokens: Range<usize>,
    /// First element of k.
    pub from: usize,
    /// Number of elements: a multiple of 32, at most [`STEP`].
    pub len: usize,
}

/// Adds the products of `panel` and a piece of `x` to `sums` (tokens, 16).
pub(super) type IntegerKernel =
    unsafe fn(panel: &Panel, format: &Format, x: &QuantisedRows, piece: Piece, sums: &mut [[f32; LANES]]);

/// `rows` (16, stride) to `out` (n, 16), 32-bit elements, n a multiple of 8.
type Transpose = unsafe fn(rows: *const u32, stride: usize, n: usize, out: *mut u32);

static INTEGER_KERNELS: &[Impl<IntegerKernel>] = &[
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::Avx512, run: super::avx512::integer },
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::Avx2, run: super::avx2::integer },
    Impl { simd: Simd::Reference, run: integer_plain },
];

/// For panels whose codes are not transposed.
static FEW_KERNELS: &[Impl<IntegerKernel>] = &[
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::Avx512, run: super::few::vnni },
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::Avx2, run: super::few::avx2 },
    Impl { simd: Simd::Reference, run: few_plain },
];

static TRANSPOSES: &[Impl<Transpose>] = &[
    #[cfg(target_arch = "x86_64")]
    Impl { simd: Simd::Avx2, run: super::avx2::transpose },
    Impl { simd: Simd::Reference, run: transpose_plain },
];

/// Block formats.
pub(super) fn quantised(
    cx: &Cx,
    x: &QuantisedRows,
    m: usize,
    w: &Weight<'_>,
    format: &Format,
    out: &Output<'_>,
) {
    let few = m < FEW;
    let kernel = cx.choose(if few { FEW_KERNELS } else { INTEGER_KERNELS });
    let (unpack, transpose) = (cx.choose(format.unpack), cx.choose(TRANSPOSES));
    let groups = STEP / format.group;
    let stride = groups.next_multiple_of(8); // of scales as unpacked, for the transposition
    let scratch = || (Panel::zeroed(), Panel::zeroed());
    run_panels(cx, m, w.rows, out, scratch, |(unpacked, panel), row, tile, sums| {
        for from in (0..w.cols).step_by(STEP) {
            let len = STEP.min(w.cols - from);
            let (span, ahead) = (w.span(from, len), Ahead::of(w, row, from + len, STEP));
            let codes = if few { &mut panel.q } else { &mut unpacked.q };
            for r in 0..LANES.min(w.rows - row) {
                ahead.prefetch(r);
                let (scale, min) = (&mut unpacked.scale[r * stride..], &mut unpacked.min[r * stride..]);
                let (q, scale, min) =
                    (&mut codes[r * STEP..][..len], &mut scale[..groups], &mut min[..groups]);
                // SAFETY: `choose` returns what this machine can run.
                unsafe { unpack(&w.row(row + r)[span.clone()], q, scale, min) };
            }
            // SAFETY: the arrays hold sixteen rows of the given strides; `choose` as above.
            unsafe {
                if !few {
                    transpose(unpacked.q.as_ptr().cast(), STEP / 4, len / 4, panel.q.as_mut_ptr().cast());
                }
                let scales = unpacked.scale.as_ptr().cast();
                transpose(scales, stride, stride, panel.scale.as_mut_ptr().cast());
                if format.has_min {
                    transpose(unpacked.min.as_ptr().cast(), stride, stride, panel.min.as_mut_ptr().cast());
                }
                kernel(panel, format, x, Piece { tokens: tile.clone(), from, len }, sums);
            }
        }
    });
}

/// Plain floats.
pub(super) fn dense(cx: &Cx, x: View<'_>, w: &Weight<'_>, out: &Output<'_>) {
    let (kernel, transpose) = (cx.choose(dense::KERNELS), cx.choose(TRANSPOSES));
    let scratch = || ([0.0f32; DENSE_STEP * LANES], [0.0f32; DENSE_STEP * LANES]);
    run_panels(cx, x.rows(), w.rows, out, scratch, |(rows, panel), row, tile, sums| {
        for from in (0..w.cols).step_by(DENSE_STEP) {
            let len = DENSE_STEP.min(w.cols - from);
            let (span, ahead) = (w.span(from, len), Ahead::of(w, row, from + len, DENSE_STEP));
            for r in 0..LANES.min(w.rows - row) {
                ahead.prefetch(r);
                let decoded = &mut rows[r * DENSE_STEP..][..len];
                quant::widen(cx.simd(), w.dtype, &w.row(row + r)[span.clone()], decoded);
            }
            // SAFETY: the arrays hold sixteen rows of the given stride, a multiple of eight; `choose` returns
            // what this machine can run.
            unsafe {
                let n = len.next_multiple_of(8);
                transpose(rows.as_ptr().cast(), DENSE_STEP, n, panel.as_mut_ptr().cast());
                kernel(&panel[..len * LANES], x, Piece { tokens: tile.clone(), from, len }, sums);
            }
        }
    });
}

/// Calls `work(scratch, first row of the panel, tokens, zeroed accumulators)` for every panel and tile of tokens,
/// and writes the accumulators.
fn run_panels<S>(
    cx: &Cx,
    m: usize,
    rows: usize,
    out: &Output<'_>,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize, Range<usize>, &mut [[f32; LANES]]) + Sync,
) {
    let panels = rows.div_ceil(LANES);
    let grain = (panels / (8 * cx.threads())).clamp(1, PANELS_PER_PART_MAX);
    cx.run_ranges(panels, grain, &|panels| {
        let mut scratch = scratch();
        let mut sums = [[0.0f32; LANES]; TILE];
        for row in panels.map(|p| p * LANES) {
            for tile in (0..m).step_by(TILE).map(|t| t..m.min(t + TILE)) {
                let sums = &mut sums[..tile.len()];
                sums.fill([0.0; LANES]);
                work(&mut scratch, row, tile.clone(), sums);
                for (m, sums) in tile.zip(sums) {
                    // SAFETY: each panel belongs to one part.
                    unsafe { out.write(m, row, &sums[..LANES.min(rows - row)]) };
                }
            }
        }
    });
}

/// The bytes a walk over panels reads next, to be asked for ahead of time: sixteen streams are more than the
/// hardware follows.
struct Ahead<'a> {
    weight: &'a Weight<'a>,
    row: usize,
    span: Range<usize>,
}

impl<'a> Ahead<'a> {
    /// Elements `from ..` of the panel at `row`, or where its rows end the beginning of the next panel.
    fn of(weight: &'a Weight<'a>, row: usize, from: usize, len: usize) -> Ahead<'a> {
        let (row, from) = if from < weight.cols { (row, from) } else { (row + LANES, 0) };
        Ahead { weight, row, span: weight.span(from, len) }
    }

    fn prefetch(&self, r: usize) {
        #[cfg(target_arch = "x86_64")]
        if self.row + r < self.weight.rows {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let row = self.weight.row(self.row + r).as_ptr();
            for at in self.span.clone().step_by(64) {
                // SAFETY: every x86-64 has the instruction, and it has no effect a program can see.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(at).cast()) }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = r;
    }
}

impl Panel {
    fn zeroed() -> Panel {
        Panel { q: [0; _], scale: [0.0; _], min: [0.0; _] }
    }
}

/// # Safety
/// `rows` must hold 16 rows of `stride ≥ n` elements, `out` room for n · 16.
unsafe fn transpose_plain(rows: *const u32, stride: usize, n: usize, out: *mut u32) {
    for r in 0..LANES {
        for i in 0..n {
            // SAFETY: r < 16 and i < n.
            unsafe { out.add(i * LANES + r).write_unaligned(rows.add(r * stride + i).read_unaligned()) };
        }
    }
}

/// The integer kernel without vectors, on transposed codes.
fn integer_plain(panel: &Panel, format: &Format, x: &QuantisedRows, piece: Piece, sums: &mut [[f32; LANES]]) {
    plain(panel, format, x, piece, sums, |r, k| k / 4 * 4 * LANES + r * 4 + k % 4);
}

/// The integer kernel without vectors, on codes as unpacked.
fn few_plain(panel: &Panel, format: &Format, x: &QuantisedRows, piece: Piece, sums: &mut [[f32; LANES]]) {
    plain(panel, format, x, piece, sums, |r, k| r * STEP + k);
}

/// The order of arithmetic of the module above over a panel whose code of row r and element k is at `at(r, k)`.
fn plain(
    panel: &Panel,
    format: &Format,
    x: &QuantisedRows,
    piece: Piece,
    sums: &mut [[f32; LANES]],
    at: impl Fn(usize, usize) -> usize,
) {
    for (m, sums) in piece.tokens.clone().zip(sums) {
        for g in 0..piece.len / format.group {
            let from = piece.from + g * format.group;
            let d = x.d(m)[from / BLOCK];
            let sum: i32 = x.sum(m)[from / HALF..(from + format.group) / HALF].iter().sum();
            for r in 0..LANES {
                let product = |i: usize| {
                    let code = panel.q[at(r, g * format.group + i)];
                    (i32::from(code) - i32::from(format.offset)) * i32::from(x.q(m)[from + i])
                };
                let n: i32 = (0..format.group).map(product).sum();
                sums[r] = (n as f32).mul_add(panel.scale[g * LANES + r] * d, sums[r]);
                if format.has_min {
                    sums[r] = panel.min[g * LANES + r].mul_add(d * sum as f32, sums[r]);
                }
            }
        }
    }
}
