//! Weights as they are multiplied: panels of sixteen rows, the same unit of every row side by side.
//!
//! A panel is a sequence of interleaved blocks ([`crate::quant::Interleaved`]), of elements for plain floats, in order of
//! k. It takes the bytes of its rows, no more, and is read from one end to the other. The last panel is filled up with
//! rows of zeros.
//!
//! The memory is anonymous, in huge pages where the system has them: they save the processor most of its address
//! translation, and let its prefetcher run on where a small page would end.

use super::Weight;
use crate::device::{Cx, SharedRows};
use crate::lanes::LANES;
use crate::quant::interleaved::{deinterleave_bits, interleave_bits};
use crate::quant::{self, Format};
use memmap2::MmapMut;
use tangelo_core::DType;

/// A weight matrix in memory: `rows` outputs by `cols` inputs.
pub struct Packed {
    dtype: DType,
    rows: usize,
    cols: usize,
    /// Bytes of sixteen rows.
    panel_bytes: usize,
    memory: MmapMut,
    scale: f32,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({} x {} {})", self.rows, self.cols, self.dtype)
    }
}

impl Packed {
    /// Copies `w`, on all threads.
    ///
    /// # Errors
    /// If the system has no memory for it.
    pub fn new(cx: &Cx, w: &Weight<'_>) -> std::io::Result<Packed> {
        let panel_bytes = LANES * w.row_bytes;
        let panels = w.rows.div_ceil(LANES);
        let mut memory = MmapMut::map_anon((panels * panel_bytes).max(1))?;
        #[cfg(target_os = "linux")]
        // A kernel without huge pages refuses, and small ones serve.
        let _ = memory.advise(memmap2::Advice::HugePage);
        let spans = spans(w.dtype);
        let shared = SharedRows::new(&mut memory, panel_bytes);
        cx.run_ranges(panels, PANELS_PER_PART, &|panels| {
            for panel in panels {
                // SAFETY: a panel belongs to one part.
                let out = unsafe { shared.part(panel, 0..panel_bytes) };
                let first = panel * LANES;
                for row in first..w.rows.min(first + LANES) {
                    interleave(w.row(row), w.dtype, &spans, row - first, out);
                }
                if let Some(format) = quant::format(w.dtype) {
                    move_bit_planes(format, out, interleave_bits);
                }
            }
        });
        let Weight { dtype, rows, cols, scale, .. } = *w;
        Ok(Packed { dtype, rows, cols, panel_bytes, memory, scale })
    }

    /// Stored type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// What every element is multiplied by.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// Number of panels.
    pub(super) fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Panel `p`: rows 16p .. 16p + 16.
    pub(super) fn panel(&self, p: usize) -> &[u8] {
        &self.memory[p * self.panel_bytes..(p + 1) * self.panel_bytes]
    }

    /// The bytes of row `r` as they were stored.
    pub fn row(&self, r: usize) -> Vec<u8> {
        let mut panel = self.panel(r / LANES).to_vec();
        if let Some(format) = quant::format(self.dtype) {
            move_bit_planes(format, &mut panel, deinterleave_bits);
        }
        let mut row = vec![0; self.panel_bytes / LANES];
        let block_bytes = self.dtype.block_bytes();
        for (row, block) in row.chunks_exact_mut(block_bytes).zip(panel.chunks_exact(LANES * block_bytes)) {
            for Span { offset, unit, count } in spans(self.dtype) {
                for at in (offset..offset + unit * count).step_by(unit) {
                    row[at..at + unit].copy_from_slice(&block[at * LANES + r % LANES * unit..][..unit]);
                }
            }
        }
        row
    }
}

/// Panels packed per part.
const PANELS_PER_PART: usize = 8;

/// Units of the same size that follow each other in a block.
#[derive(Clone, Copy)]
struct Span {
    offset: usize,
    unit: usize,
    count: usize,
}

/// The units of a block in order.
fn spans(dtype: DType) -> Vec<Span> {
    let size = dtype.block_bytes();
    let Some(format) = quant::format(dtype) else {
        return vec![Span { offset: 0, unit: size, count: 1 }];
    };
    let mut spans = Vec::new();
    let mut at = 0;
    for &half in format.halves {
        spans.push(Span { offset: at, unit: 4, count: (half - at) / 4 });
        spans.push(Span { offset: half, unit: 2, count: 1 });
        at = half + 2;
    }
    spans.push(Span { offset: at, unit: 4, count: (size - at) / 4 });
    spans
}

/// Writes a row's bytes to their places in its panel, as lane `lane`.
fn interleave(row: &[u8], dtype: DType, spans: &[Span], lane: usize, panel: &mut [u8]) {
    let size = dtype.block_bytes();
    for (block, out) in row.chunks_exact(size).zip(panel.chunks_exact_mut(LANES * size)) {
        for &Span { offset, unit, count } in spans {
            let src = &block[offset..offset + unit * count];
            let out = &mut out[offset * LANES..(offset + unit * count) * LANES];
            match unit {
                4 => scatter::<4>(src, lane, out),
                2 => scatter::<2>(src, lane, out),
                _ => scatter::<1>(src, lane, out),
            }
        }
    }
}

/// Writes units of `N` bytes to lane `lane` of groups of sixteen.
#[inline]
fn scatter<const N: usize>(src: &[u8], lane: usize, out: &mut [u8]) {
    let groups = out.as_chunks_mut::<N>().0.chunks_exact_mut(LANES);
    for (unit, group) in src.as_chunks::<N>().0.iter().zip(groups) {
        group[lane] = *unit;
    }
}

/// Applies `to` to the words that hold a bit per element, in every interleaved block.
fn move_bit_planes(format: &Format, panel: &mut [u8], to: impl Fn(u32) -> u32) {
    let Some(plane) = format.bit_plane else { return };
    for block in panel.chunks_exact_mut(LANES * format.dtype.block_bytes()) {
        for word in block[plane * LANES..(plane + 4) * LANES].as_chunks_mut::<4>().0 {
            *word = to(u32::from_le_bytes(*word)).to_le_bytes();
        }
    }
}
