//! Operations on one element at a time: no order of arithmetic to fix, so the loop is its own definition and
//! the compiler's vectors are its fast twin.

#[cfg(test)]
mod tests;

use crate::device::{Cx, Mat, View};

/// Elements worth a thread of their own.
const ELEMENTS_PER_PART: usize = 1 << 15;

/// x ← relu(x)² (So et al. 2021, arXiv 2109.08668). `NaN` stays `NaN`.
pub fn relu2(cx: &Cx, x: &mut Mat) {
    for_each_part(cx, x, |_, part| {
        for v in part {
            let relu = if *v < 0.0 { 0.0 } else { *v };
            *v = relu * relu;
        }
    });
}

/// x ← x + y.
///
/// # Panics
/// If the shapes differ.
pub fn add(cx: &Cx, x: &mut Mat, y: &Mat) {
    assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "add: shapes");
    for_each_part(cx, x, |from, part| {
        for (v, y) in part.iter_mut().zip(&y.data()[from..]) {
            *v += y;
        }
    });
}

/// Row r of x ← fma(w, y, row r of x).
///
/// # Panics
/// If `y` is not as long as a row of `x`.
pub fn add_scaled_row(x: &mut Mat, r: usize, w: f32, y: &[f32]) {
    let row = x.row_mut(r);
    assert_eq!(row.len(), y.len(), "add_scaled_row: widths");
    for (v, y) in row.iter_mut().zip(y) {
        *v = w.mul_add(*y, *v);
    }
}

/// Copies the given rows of `x` into a new matrix.
pub fn gather_rows(cx: &Cx, x: View<'_>, rows: impl Iterator<Item = usize> + Clone) -> Mat {
    let mut out = cx.mat(rows.clone().count(), x.cols());
    for (to, from) in rows.enumerate() {
        out.row_mut(to).copy_from_slice(x.row(from));
    }
    out
}

fn for_each_part(cx: &Cx, x: &mut Mat, work: impl Fn(usize, &mut [f32]) + Sync) {
    let len = x.data().len();
    let mut view = crate::device::ViewMut::from_slice(x.data_mut(), 1, len);
    let shared = view.share();
    cx.run_ranges(len, ELEMENTS_PER_PART, &|range| {
        // SAFETY: the ranges are disjoint.
        work(range.start, unsafe { shared.part(0, range) });
    });
}
