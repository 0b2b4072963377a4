//! Weights as they are multiplied: panels of sixteen rows, the same unit of every row side by side.
//!
//! A panel is a sequence of interleaved blocks ([`crate::quant::Interleaved`]), of elements for plain floats, in order of
//! k. It takes the bytes of its rows, no more, and is read from one end to the other. The last panel is filled up with
//! rows of zeros.
//!
//! On the host the memory is anonymous, in huge pages where the system has them: they save the processor most of its
//! address translation, and let its prefetcher run on where a small page would end. A device gets the same panels, a piece
//! at a time, so that no weight is ever in memory twice; only plain floats lie there as words of four bytes, the same word
//! of sixteen rows side by side, with zeros up to a multiple of [`DEVICE_STEP`] elements.

use super::Weight;
use crate::cuda::{Buffer, GpuError};
use crate::device::{Cx, Place, SharedRows};
use crate::lanes::LANES;
use crate::quant;
use crate::quant::interleaved::{deinterleave_bits, interleave_bits};
use memmap2::MmapMut;
use tangelo_core::DType;

/// A weight matrix in memory: `rows` outputs by `cols` inputs.
pub struct Packed {
    dtype: DType,
    rows: usize,
    cols: usize,
    /// Bytes of sixteen rows.
    panel_bytes: usize,
    memory: Memory,
    scale: f32,
}

enum Memory {
    Host(MmapMut),
    Device(Buffer),
}

/// Why a weight could not be put where it is to be multiplied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The system has no memory for it.
    #[error(transparent)]
    Host(#[from] std::io::Error),
    /// The device has no memory for it, or has failed.
    #[error(transparent)]
    Device(#[from] GpuError),
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({} x {} {})", self.rows, self.cols, self.dtype)
    }
}

impl Packed {
    /// Copies `w` to a place, on all threads.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(cx: &Cx, w: &Weight<'_>, place: Place) -> Result<Packed, PackError> {
        let layout = Layout::of(w.dtype, place);
        let panel_bytes = LANES * layout.row_bytes(w);
        let panels = w.rows.div_ceil(LANES);
        let memory = match place {
            Place::Host => {
                let mut memory = MmapMut::map_anon((panels * panel_bytes).max(1))?;
                #[cfg(target_os = "linux")]
                // A kernel without huge pages refuses, and small ones serve.
                let _ = memory.advise(memmap2::Advice::HugePage);
                pack(cx, w, &layout, 0, &mut memory[..panels * panel_bytes]);
                Memory::Host(memory)
            }
            Place::Device => {
                let buffer = cx.the_gpu().try_buffer(panels * panel_bytes)?;
                let per_piece = (PIECE_BYTES / panel_bytes.max(1)).max(1);
                let mut piece = vec![0; per_piece.min(panels) * panel_bytes];
                for first in (0..panels).step_by(per_piece) {
                    let piece = &mut piece[..per_piece.min(panels - first) * panel_bytes];
                    pack(cx, w, &layout, first, piece);
                    buffer.write(first * panel_bytes, piece);
                }
                cx.check_gpu()?;
                Memory::Device(buffer)
            }
        };
        let Weight { dtype, rows, cols, scale, .. } = *w;
        Ok(Packed { dtype, rows, cols, panel_bytes, memory, scale })
    }

    /// [`Packed::new`] of f32 elements on the host, row-major.
    ///
    /// # Errors
    /// If there is no memory for it.
    ///
    /// # Panics
    /// If there are not `rows * cols` elements.
    pub fn of_floats(cx: &Cx, rows: usize, cols: usize, data: &[f32]) -> Result<Packed, PackError> {
        // SAFETY: these are the bytes of the slice, and any bytes are a `u8`. Machines are little endian here, as files are.
        let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), size_of_val(data)) };
        let weight =
            Weight::new(DType::F32, rows, cols, bytes, 1.0).expect("as many elements as the shape says");
        Packed::new(cx, &weight, Place::Host)
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
        self.panels() * self.panel_bytes
    }

    /// The panels on a device, if they are on one.
    pub(super) fn buffer(&self) -> Option<&Buffer> {
        match &self.memory {
            Memory::Host(_) => None,
            Memory::Device(buffer) => Some(buffer),
        }
    }

    /// The panels on the host.
    fn host(&self) -> &[u8] {
        match &self.memory {
            Memory::Host(memory) => memory,
            Memory::Device(_) => {
                panic!("this weight is on a device, and so must be what it is multiplied with")
            }
        }
    }

    /// Number of panels.
    pub(super) fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Bytes of a panel.
    pub(super) fn panel_bytes(&self) -> usize {
        self.panel_bytes
    }

    /// Panel `p`: rows 16p .. 16p + 16.
    pub(super) fn panel(&self, p: usize) -> &[u8] {
        &self.host()[p * self.panel_bytes..(p + 1) * self.panel_bytes]
    }

    /// Elements `from .. from + len` of each row of panel `p`.
    pub(super) fn piece(&self, p: usize, from: usize, len: usize) -> &[u8] {
        let (block, bytes) = (self.dtype.block_len(), LANES * self.dtype.block_bytes());
        &self.panel(p)[from / block * bytes..(from + len) / block * bytes]
    }

    /// How many panels make a part: `most`, or fewer if threads would be left without, but not so few that claiming a
    /// part is noticeable beside it.
    pub(super) fn grain(&self, cx: &Cx, most: usize) -> usize {
        let enough = PART_BYTES.div_ceil(self.panel_bytes).min(self.panels().div_ceil(cx.threads()));
        (self.panels() / (8 * cx.threads())).clamp(1, most).max(enough.min(most))
    }

    /// The bytes of row `r` as they were stored.
    pub fn row(&self, r: usize) -> Vec<u8> {
        let (panel, lane, size) = (self.panel(r / LANES), r % LANES, self.dtype.block_bytes());
        let (spans, plane) = (spans(self.dtype), bit_plane(self.dtype));
        let mut row = vec![0; self.panel_bytes / LANES];
        for (row, block) in row.chunks_exact_mut(size).zip(panel.chunks_exact(LANES * size)) {
            for &Span { offset, unit, count } in &spans {
                for at in (offset..offset + unit * count).step_by(unit) {
                    row[at..at + unit].copy_from_slice(&block[at * LANES + lane * unit..][..unit]);
                }
            }
            if let Some(word) = plane.and_then(|at| row[at..].first_chunk_mut::<4>()) {
                *word = deinterleave_bits(u32::from_le_bytes(*word)).to_le_bytes();
            }
        }
        row
    }
}

/// Where a block holds a bit per element, if it does.
fn bit_plane(dtype: DType) -> Option<usize> {
    quant::format(dtype).and_then(|format| format.bit_plane)
}

/// Weights that are worth claiming for themselves: a microsecond or two.
const PART_BYTES: usize = 32 << 10;
/// Panels packed per part.
const PANELS_PER_PART: usize = 8;
/// Bytes on their way to a device at a time.
const PIECE_BYTES: usize = 16 << 20;

/// What lies side by side.
enum Layout {
    /// The units of whole blocks, in order.
    Blocks(Vec<Span>),
    /// Words of four bytes.
    Words,
}

/// Plain floats on a device end with a multiple of so many elements: the k of one step of its tensor cores.
pub(super) const DEVICE_STEP: usize = 16;

impl Layout {
    fn of(dtype: DType, place: Place) -> Layout {
        match (quant::format(dtype), place) {
            (None, Place::Device) => Layout::Words,
            _ => Layout::Blocks(spans(dtype)),
        }
    }

    fn row_bytes(&self, w: &Weight<'_>) -> usize {
        match self {
            Layout::Blocks(_) => w.row_bytes,
            Layout::Words => w.row_bytes.next_multiple_of(DEVICE_STEP * w.dtype.block_bytes()),
        }
    }
}

/// Writes the panels of `w` from `first` on, until `out` is full.
fn pack(cx: &Cx, w: &Weight<'_>, layout: &Layout, first: usize, out: &mut [u8]) {
    let zeros = vec![0; w.row_bytes];
    let (plane, panel_bytes) = (bit_plane(w.dtype), LANES * layout.row_bytes(w));
    let panels = out.len().checked_div(panel_bytes).unwrap_or(0);
    let shared = SharedRows::new(out, panel_bytes);
    cx.run_ranges(panels, PANELS_PER_PART, &|panels| {
        for panel in panels {
            let row = |lane: usize| {
                let row = (first + panel) * LANES + lane;
                if row < w.rows { w.row(row) } else { &zeros }
            };
            let rows = std::array::from_fn(row);
            // SAFETY: a panel belongs to one part.
            let out = unsafe { shared.part(panel, 0..panel_bytes) };
            match layout {
                Layout::Words => interleave_words(rows, out),
                Layout::Blocks(spans) => {
                    interleave(rows, w.dtype.block_bytes(), spans, out);
                    interleave_bit_planes(plane, w.dtype.block_bytes(), out);
                }
            }
        }
    });
}

/// Writes the words of sixteen rows side by side, and zeros where a row has ended.
fn interleave_words(rows: [&[u8]; LANES], panel: &mut [u8]) {
    let words = panel.as_chunks_mut::<4>().0.as_chunks_mut::<LANES>().0;
    for (i, words) in words.iter_mut().enumerate() {
        for (word, row) in words.iter_mut().zip(rows) {
            let rest = row.get(4 * i..).unwrap_or_default();
            *word = rest
                .first_chunk()
                .copied()
                .unwrap_or_else(|| std::array::from_fn(|byte| rest.get(byte).copied().unwrap_or_default()));
        }
    }
}

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

/// Writes sixteen rows of whole blocks of `size` bytes side by side.
fn interleave(rows: [&[u8]; LANES], size: usize, spans: &[Span], panel: &mut [u8]) {
    for (b, out) in panel.chunks_exact_mut(LANES * size).enumerate() {
        let blocks = rows.map(|row| &row[b * size..][..size]);
        for &Span { offset, unit, count } in spans {
            let out = &mut out[offset * LANES..(offset + unit * count) * LANES];
            match unit {
                4 => gather::<4>(blocks, offset, out),
                2 => gather::<2>(blocks, offset, out),
                _ => gather::<1>(blocks, offset, out),
            }
        }
    }
}

/// Units of `N` bytes from `offset` on, sixteen by sixteen, until `out` is full.
#[inline]
fn gather<const N: usize>(blocks: [&[u8]; LANES], offset: usize, out: &mut [u8]) {
    assert!(blocks.iter().all(|block| offset + out.len() / LANES <= block.len()));
    for (i, units) in out.as_chunks_mut::<N>().0.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        for (unit, block) in units.iter_mut().zip(blocks) {
            // SAFETY: i · N is less than the length of `out` over sixteen, so that the unit ends inside the block, which
            // was checked above.
            *unit = unsafe { block.as_ptr().add(offset + i * N).cast::<[u8; N]>().read_unaligned() };
        }
    }
}

/// Moves the bits of the words that hold one per element, in every interleaved block of `size` bytes a row.
fn interleave_bit_planes(plane: Option<usize>, size: usize, panel: &mut [u8]) {
    let Some(plane) = plane else { return };
    for block in panel.chunks_exact_mut(LANES * size) {
        let words = block[plane * LANES..].as_chunks_mut::<4>().0.first_chunk_mut::<LANES>();
        for word in words.expect("a plane is a word of the block") {
            *word = interleave_bits(u32::from_le_bytes(*word)).to_le_bytes();
        }
    }
}
