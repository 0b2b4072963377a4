//! Looking up rows of the table of embeddings: each is decoded exactly (see [`crate::quant`]) and multiplied by the
//! table's scale if it has one. There is no other arithmetic, hence no implementation to choose.

mod cuda;
#[cfg(test)]
mod tests;

use crate::cuda::{Buffer, GpuError};
use crate::device::{Cx, Mat, Place};
use crate::matmul::Weight;
use crate::quant;
use std::ops::Deref;
use tangelo_core::DType;

/// A row for every token of the vocabulary, as files store it: on the host the bytes it was made from (those of a mapped
/// file, of which few are ever read), on a device a copy of them.
#[derive(Debug)]
pub struct Table<B> {
    dtype: DType,
    rows: usize,
    cols: usize,
    scale: f32,
    memory: Memory<B>,
}

#[derive(Debug)]
enum Memory<B> {
    Host(B),
    Device(Buffer),
}

impl<B: Deref<Target = [u8]>> Table<B> {
    /// `rows` rows of `cols` elements in `bytes`, each multiplied by `scale`; copied to the context's GPU if that is the
    /// place.
    ///
    /// # Errors
    /// If the device has no memory for them, or has failed.
    ///
    /// # Panics
    /// If the number of bytes is not what the shape needs ([`Weight::new`] says so without panicking).
    pub fn new(
        cx: &Cx,
        dtype: DType,
        [rows, cols]: [usize; 2],
        bytes: B,
        scale: f32,
        place: Place,
    ) -> Result<Table<B>, GpuError> {
        Weight::new(dtype, rows, cols, &bytes, scale).expect("as many bytes as the shape needs");
        let memory = match place {
            Place::Host => Memory::Host(bytes),
            Place::Device => {
                let buffer = cx.the_gpu().try_buffer(bytes.len())?;
                buffer.write(0, &bytes);
                cx.check_gpu()?;
                Memory::Device(buffer)
            }
        };
        Ok(Table { dtype, rows, cols, scale, memory })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The rows for `ids`, where the table is.
    ///
    /// # Shapes
    /// Table (vocabulary, d), `ids` (l), result (l, d).
    ///
    /// # Panics
    /// If an id is outside the table; callers check ids where they enter.
    pub fn embed(&self, cx: &Cx, ids: &[u32]) -> Mat {
        assert!(ids.iter().all(|&id| (id as usize) < self.rows), "embed: ids of {} rows", self.rows);
        let bytes = match &self.memory {
            Memory::Host(bytes) => bytes,
            Memory::Device(buffer) => return cuda::embed(buffer, self.dtype, self.cols, self.scale, ids),
        };
        let table =
            Weight::new(self.dtype, self.rows, self.cols, bytes, self.scale).expect("checked when made");
        let mut out = cx.mat(ids.len(), self.cols);
        for (at, &id) in ids.iter().enumerate() {
            let row = out.row_mut(at);
            quant::dequantize_row(cx.simd(), self.dtype, table.row(id as usize), row)
                .expect("checked by Weight::new");
            if self.scale != 1.0 {
                row.iter_mut().for_each(|x| *x *= self.scale);
            }
        }
        out
    }
}

/// The gradient of [`Table::embed`]: row t of `dy` is added to row `ids[t]` of `dtable`, for t increasing.
///
/// # Shapes
/// `ids` (l), `dy` (l, d), `dtable` (vocabulary, d).
///
/// # Panics
/// If the shapes do not agree, or an id is outside the table.
pub fn embed_backward(ids: &[u32], dy: &Mat, dtable: &mut [f32]) {
    let d = dy.cols();
    assert_eq!(ids.len(), dy.rows(), "embed_backward: one id per row");
    for (t, &id) in ids.iter().enumerate() {
        let row = &mut dtable[id as usize * d..][..d];
        row.iter_mut().zip(dy.row(t)).for_each(|(sum, d)| *sum += d);
    }
}
