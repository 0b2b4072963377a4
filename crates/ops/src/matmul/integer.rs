//! The walk over panels and tokens for block formats.

use super::kernels::{DIRECT_MAX, Direct, Kernels, Panel, kernels};
use super::output::Output;
use super::packed::Packed;
use super::reference;
use crate::device::{Cx, View};
use crate::lanes::LANES;
use crate::quant::Format;
use crate::quantise_rows::{BLOCK, QuantisedRows, quantise_rows};
use std::cell::RefCell;
use std::ops::Range;

/// Elements of k unpacked at a time: a multiple of every block length.
pub(super) const STEP: usize = 512;
/// Groups of so many elements, at the smallest group size.
pub(super) const GROUPS: usize = STEP / 16;
/// Panels unpacked together: every tile of tokens, once in the first-level cache, meets all of them. 36 KiB with
/// [`STEP`] and the 5-bit formats: a little more than that cache, and still faster than less.
const TOGETHER: usize = 4;
/// Tokens whose sums are held at once (4 panels: 60 KiB): a multiple of every tile height.
const TOKENS: usize = 240;
/// Panels read side by side when they go straight from memory.
pub(super) const STREAMS: usize = 4;

/// See [`super::matmul`].
pub(super) fn matmul(cx: &Cx, x: View<'_>, w: &Packed, format: &Format, out: &Output<'_>) {
    let Some(kernels) = kernels(format.dtype).iter().find(|k| cx.simd().includes(k.simd)) else {
        return reference::quantised(cx, x, w, format, out);
    };
    let kernels = kernels.run;
    let m = x.rows();
    assert!(m > 0, "a product without tokens reads nothing");
    if let Some(&(tile, kernel)) = kernels.direct.iter().find(|(tile, _)| m <= *tile) {
        return straight(cx, &quantise_rows(cx, x, tile), w, tile, kernel, out);
    }
    let x = quantise_rows(cx, x, kernels.multiply.0);
    cx.run_ranges(w.panels(), w.grain(cx, TOGETHER), &|panels| {
        SCRATCH.with_borrow_mut(|scratch| {
            for first in (0..m).step_by(TOKENS) {
                let tokens = first..m.min(first + TOKENS);
                scratch.multiply(&kernels, format, &x, w, panels.clone(), tokens.clone());
                for (panel, sums) in panels.clone().zip(&scratch.sums) {
                    // SAFETY: a panel belongs to one part.
                    unsafe { write(out, w, panel, tokens.clone(), sums) };
                }
            }
        });
    });
}

/// For so few tokens that memory is the limit, or nearly: codes are used as they come.
fn straight(cx: &Cx, x: &QuantisedRows, w: &Packed, tile: usize, kernel: Direct, out: &Output<'_>) {
    let blocks = w.cols() / w.dtype().block_len();
    cx.run_ranges(w.panels(), w.grain(cx, STREAMS), &|panels| {
        let mut sums = [[0.0; LANES]; STREAMS * DIRECT_MAX];
        let sums = &mut sums[..panels.len() * tile];
        let first = w.panel(panels.start);
        // SAFETY: the kernel is of a level this machine has; the panels hold that many blocks each and follow each
        // other, the stream has the records of one tile, and a panel belongs to one part.
        unsafe {
            kernel(first.as_ptr(), first.len(), blocks, x.stream(0, 0).as_ptr(), sums);
            for (panel, sums) in panels.zip(sums.chunks(tile)) {
                write(out, w, panel, 0..x.rows(), sums);
            }
        }
    });
}

/// What a thread computes in.
struct Scratch {
    panels: [Panel; TOGETHER],
    /// (panel, token, row).
    sums: [[[f32; LANES]; TOKENS]; TOGETHER],
}

thread_local! {
    static SCRATCH: RefCell<Box<Scratch>> = RefCell::new(Box::new(Scratch::zeroed()));
}

impl Scratch {
    fn zeroed() -> Scratch {
        let panel = || Panel { q: [0; _], scale: [0.0; _], min: [0.0; _] };
        Scratch { panels: std::array::from_fn(|_| panel()), sums: [[[0.0; _]; _]; _] }
    }

    /// Leaves the sums of `panels` (at most [`TOGETHER`]) and `tokens` in `self.sums`.
    fn multiply(
        &mut self,
        kernels: &Kernels,
        format: &Format,
        x: &QuantisedRows,
        w: &Packed,
        panels: Range<usize>,
        tokens: Range<usize>,
    ) {
        let block_len = format.dtype.block_len();
        let padded = tokens.len().next_multiple_of(kernels.multiply.0);
        self.sums.iter_mut().for_each(|sums| sums[..padded].fill([0.0; LANES]));
        for from in (0..w.cols()).step_by(STEP) {
            let len = STEP.min(w.cols() - from);
            for (panel, p) in self.panels.iter_mut().zip(panels.clone()) {
                // SAFETY: the kernels are of a level this machine has, and the piece holds so many blocks.
                unsafe { (kernels.unpack)(w.piece(p, from, len).as_ptr(), len / block_len, panel) };
            }
            let next = from + len..w.cols().min(from + len + STEP);
            let (tile, multiply) = kernels.multiply;
            for at in tokens.clone().step_by(tile) {
                let records = x.stream(at, from / BLOCK).as_ptr();
                for ((p, panel), sums) in panels.clone().zip(&self.panels).zip(&mut self.sums) {
                    let sums = &mut sums[at - tokens.start..][..tile];
                    // The first tile has the next stretch of weights fetched meanwhile.
                    let ahead = if at == tokens.start { w.piece(p, next.start, next.len()) } else { &[] };
                    // SAFETY: as above; the stream begins with the records of the whole tile.
                    unsafe { multiply(panel, len, records, sums, ahead) };
                }
            }
        }
    }
}

/// # Safety
/// No other thread may write the same outputs.
pub(super) unsafe fn write(
    out: &Output<'_>,
    w: &Packed,
    panel: usize,
    tokens: Range<usize>,
    sums: &[[f32; LANES]],
) {
    let rows = LANES.min(w.rows() - panel * LANES);
    for (m, sums) in tokens.zip(sums) {
        // SAFETY: the caller vouches.
        unsafe { out.write(m, panel * LANES, &sums[..rows]) };
    }
}
