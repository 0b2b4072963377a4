//! Plain floats: panels widened to f32 in the first-level cache, then multiplied with every row of x.

use super::integer::{STREAMS, write};
use super::output::Output;
use super::packed::Packed;
use crate::device::{Cx, View};
use crate::dispatch::Impl;
use crate::lanes::{LANES, Lanes, over_lanes};
use crate::quant;
use std::cell::RefCell;
use std::ops::Range;
use tangelo_core::DType;

/// What a kernel is told about the piece of x a panel meets.
#[derive(Clone)]
struct Piece {
    /// Rows of x.
    tokens: Range<usize>,
    /// First element of k.
    from: usize,
    /// Number of elements.
    len: usize,
}

/// `panel` (len, 16).
type Kernel = unsafe fn(panel: &[f32], x: View<'_>, piece: Piece, sums: &mut [[f32; LANES]]);

over_lanes! {
    /// Best first.
    static KERNELS: Kernel =
        kernel(panel: &[f32], x: View<'_>, piece: Piece, sums: &mut [[f32; LANES]]), plain
}

/// Elements of k widened at a time (16 KiB).
const STEP: usize = 256;
/// Tokens whose sums are held at once (16 KiB).
const TOKENS: usize = 252;

/// What a thread computes in: a widened panel and the sums of a tile of tokens.
struct Scratch {
    wide: [f32; STEP * LANES],
    sums: [[f32; LANES]; TOKENS],
}

thread_local! {
    static SCRATCH: RefCell<Box<Scratch>> =
        RefCell::new(Box::new(Scratch { wide: [0.0; _], sums: [[0.0; _]; _] }));
}

/// See [`super::matmul`].
pub(super) fn matmul(cx: &Cx, x: View<'_>, w: &Packed, out: &Output<'_>) {
    let m = x.rows();
    if let (1, Some(direct)) = (m, direct_kernels(w.dtype())) {
        return straight(cx, x.row(0), w, cx.choose(direct), out);
    }
    let kernel = cx.choose(KERNELS);
    cx.run_ranges(w.panels(), w.grain(cx, PANELS_PER_PART), &|panels| {
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { wide, sums } = &mut **scratch;
            for p in panels {
                for first in (0..m).step_by(TOKENS) {
                    let tokens = first..m.min(first + TOKENS);
                    let sums = &mut sums[..tokens.len()];
                    sums.fill([0.0; LANES]);
                    for from in (0..w.cols()).step_by(STEP) {
                        let len = STEP.min(w.cols() - from);
                        let panel = &mut wide[..len * LANES];
                        quant::widen(cx.simd(), w.dtype(), w.piece(p, from, len), panel);
                        // SAFETY: `choose` returns what this machine can run.
                        unsafe { kernel(panel, x, Piece { tokens: tokens.clone(), from, len }, sums) };
                    }
                    // SAFETY: a panel belongs to one part.
                    unsafe { write(out, w, p, tokens, sums) };
                }
            }
        });
    });
}

/// Panels per part at most.
const PANELS_PER_PART: usize = 8;

/// For one token, which is limited by memory: elements are widened in registers.
fn straight(cx: &Cx, x: &[f32], w: &Packed, kernel: Direct, out: &Output<'_>) {
    cx.run_ranges(w.panels(), w.grain(cx, STREAMS), &|panels| {
        let mut sums = [[0.0; LANES]; STREAMS];
        let sums = &mut sums[..panels.len()];
        let first = w.panel(panels.start);
        // SAFETY: `choose` returned what this machine can run; the panels follow each other and hold a row of x each; a
        // panel belongs to one part.
        unsafe {
            kernel(first.as_ptr(), first.len(), x, sums);
            for (panel, sums) in panels.zip(sums) {
                write(out, w, panel, 0..1, std::slice::from_ref(sums));
            }
        }
    });
}

/// Adds the products of one token and some panels, `stride` bytes apart, to the sums of each.
type Direct = unsafe fn(panels: *const u8, stride: usize, x: &[f32], sums: &mut [[f32; LANES]]);

/// How sixteen elements are read.
trait Element {
    /// Bytes of one.
    const BYTES: usize;
    /// # Safety
    /// `src` must hold sixteen elements; the instruction set of `V` must be available.
    unsafe fn load<V: Lanes>(src: *const u8) -> V;
}

macro_rules! elements {
    ($($name:ident: $bytes:literal, $load:ident, $table:ident, $kernel:ident;)*) => {
        $(
            struct $name;

            impl Element for $name {
                const BYTES: usize = $bytes;

                #[inline(always)]
                unsafe fn load<V: Lanes>(src: *const u8) -> V {
                    // SAFETY: the caller vouches.
                    unsafe { V::$load(src.cast()) }
                }
            }

            /// # Safety
            /// As [`direct`].
            #[inline(always)]
            unsafe fn $kernel<V: Lanes>(panels: *const u8, stride: usize, x: &[f32], sums: &mut [[f32; LANES]]) {
                // SAFETY: the caller vouches.
                unsafe { direct::<V, $name>(panels, stride, x, sums) }
            }

            over_lanes! {
                static $table: Direct =
                    $kernel(panels: *const u8, stride: usize, x: &[f32], sums: &mut [[f32; LANES]]), unreached
            }
        )*

        /// The kernels of the types that widen in registers; the others go through memory.
        fn direct_kernels(dtype: DType) -> Option<&'static [Impl<Direct>]> {
            match dtype {
                $(DType::$name => Some($table),)*
                _ => None,
            }
        }
    };
}

elements! {
    F32: 4, load, F32_KERNELS, direct_f32;
    F16: 2, load_f16, F16_KERNELS, direct_f16;
    BF16: 2, load_bf16, BF16_KERNELS, direct_bf16;
}

/// The reference level goes its own way.
fn unreached(_: *const u8, _: usize, _: &[f32], _: &mut [[f32; LANES]]) {
    unreachable!("the reference of the matmul needs no kernel");
}

/// # Safety
/// The instruction set of `V` must be available; `panels` must hold a panel of `x.len()` elements per row for every sum.
#[inline(always)]
unsafe fn direct<V: Lanes, E: Element>(
    panels: *const u8,
    stride: usize,
    x: &[f32],
    sums: &mut [[f32; LANES]],
) {
    // SAFETY: the caller vouches.
    unsafe {
        match sums.len() {
            STREAMS => streams::<V, E, STREAMS>(panels, stride, x, sums),
            _ => {
                for (p, sums) in sums.iter_mut().enumerate() {
                    streams::<V, E, 1>(panels.add(p * stride), stride, x, std::slice::from_mut(sums));
                }
            }
        }
    }
}

/// # Safety
/// As [`direct`], for `P` panels.
#[inline(always)]
unsafe fn streams<V: Lanes, E: Element, const P: usize>(
    panels: *const u8,
    stride: usize,
    x: &[f32],
    sums: &mut [[f32; LANES]],
) {
    // SAFETY: element k of panel p is one of those the caller vouches for.
    unsafe {
        let mut s = [V::splat(0.0); P];
        for (k, x) in x.iter().enumerate() {
            let (x, src) = (V::splat(*x), panels.add(k * LANES * E::BYTES));
            for p in 0..P {
                s[p] = x.fma(E::load(src.add(p * stride)), s[p]);
            }
        }
        for p in 0..P {
            s[p].store(sums[p].as_mut_ptr());
        }
    }
}

/// Rows of x taken together: their accumulators hide the latency of a multiply-add and share the panel's loads.
const ROWS: usize = 6;

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn kernel<V: Lanes>(panel: &[f32], x: View<'_>, piece: Piece, sums: &mut [[f32; LANES]]) {
    let (mut m, end) = (piece.tokens.start, piece.tokens.end);
    let first = m;
    let range = piece.from..piece.from + piece.len;
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        while m + ROWS <= end {
            let x: [&[f32]; ROWS] = std::array::from_fn(|i| &x.row(m + i)[range.clone()]);
            block::<V, ROWS>(panel, x, &mut sums[m - first..]);
            m += ROWS;
        }
        while m + 2 <= end {
            let x: [&[f32]; 2] = std::array::from_fn(|i| &x.row(m + i)[range.clone()]);
            block::<V, 2>(panel, x, &mut sums[m - first..]);
            m += 2;
        }
        while m < end {
            block::<V, 1>(panel, [&x.row(m)[range.clone()]], &mut sums[m - first..]);
            m += 1;
        }
    }
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn block<V: Lanes, const M: usize>(panel: &[f32], x: [&[f32]; M], sums: &mut [[f32; LANES]]) {
    let len = panel.len() / LANES;
    assert!(x.iter().all(|x| x.len() == len) && sums.len() >= M);
    // SAFETY: the panel holds len · 16 elements and each x len (checked above); the caller vouches for the rest.
    unsafe {
        let mut s: [V; M] = std::array::from_fn(|i| V::load(sums[i].as_ptr()));
        for k in 0..len {
            let w = V::load(panel.as_ptr().add(k * LANES));
            for i in 0..M {
                s[i] = V::splat(*x[i].get_unchecked(k)).fma(w, s[i]);
            }
        }
        for i in 0..M {
            s[i].store(sums[i].as_mut_ptr());
        }
    }
}

/// The same without vectors.
fn plain(panel: &[f32], x: View<'_>, piece: Piece, sums: &mut [[f32; LANES]]) {
    for (m, sums) in piece.tokens.zip(sums) {
        for (w, x) in panel.chunks_exact(LANES).zip(&x.row(m)[piece.from..]) {
            for r in 0..LANES {
                sums[r] = x.mul_add(w[r], sums[r]);
            }
        }
    }
}
