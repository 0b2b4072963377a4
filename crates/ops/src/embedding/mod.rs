//! Looking up rows of the embedding table: each is decoded exactly (see [`crate::quant`]) and multiplied by the
//! table's scale if it has one. There is no other arithmetic, hence no implementation to choose.

#[cfg(test)]
mod tests;

use crate::device::{Cx, Mat};
use crate::matmul::Weight;
use crate::quant;

/// The rows of `table` for `ids`.
///
/// # Shapes
/// `table` (vocabulary, d), `ids` (l), result (l, d).
///
/// # Panics
/// If an id is outside the table; callers check ids where they enter.
pub fn embed(cx: &Cx, table: &Weight<'_>, ids: &[u32]) -> Mat {
    let mut out = cx.mat(ids.len(), table.cols());
    for (at, &id) in ids.iter().enumerate() {
        let row = out.row_mut(at);
        quant::dequantize_row(cx.simd(), table.dtype(), table.row(id as usize), row)
            .expect("checked by Weight::new");
        if table.scale() != 1.0 {
            row.iter_mut().for_each(|x| *x *= table.scale());
        }
    }
    out
}
