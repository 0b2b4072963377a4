//! Operations on one element at a time: no order of arithmetic to fix, so the loop is its own definition and
//! the compiler's vectors are its fast twin.

mod cuda;
#[cfg(test)]
mod tests;

use crate::device::{Cx, Mat, View};

/// Elements worth a thread of their own.
const ELEMENTS_PER_PART: usize = 1 << 15;

/// x ← relu(x)² (So et al. 2021, arXiv 2109.08668). `NaN` stays `NaN`.
pub fn relu2(cx: &Cx, x: &mut Mat) {
    if let Some(buffer) = x.buffer() {
        return cuda::relu2(buffer, x.rows() * x.cols());
    }
    for_each_part(cx, x, |_, part| {
        for v in part {
            let relu = if *v < 0.0 { 0.0 } else { *v };
            *v = relu * relu;
        }
    });
}

/// The gradient of [`relu2`]: `dy` ← dy · 2 · relu(x), with `x` as it was before.
///
/// # Panics
/// If the shapes differ.
pub fn relu2_backward(cx: &Cx, x: &Mat, dy: &mut Mat) {
    assert_eq!((x.rows(), x.cols()), (dy.rows(), dy.cols()), "relu2_backward: shapes");
    for_each_part(cx, dy, |from, part| {
        for (d, x) in part.iter_mut().zip(&x.data()[from..]) {
            *d *= 2.0 * if *x < 0.0 { 0.0 } else { *x };
        }
    });
}

/// A matrix with the same elements, on the host.
pub fn copy(cx: &Cx, x: &Mat) -> Mat {
    let mut y = cx.mat(x.rows(), x.cols());
    for_each_part(cx, &mut y, |from, part| part.copy_from_slice(&x.data()[from..][..part.len()]));
    y
}

/// x ← x + y.
///
/// # Panics
/// If the shapes differ.
pub fn add(cx: &Cx, x: &mut Mat, y: &Mat) {
    assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "add: shapes");
    if let Some(buffer) = x.buffer() {
        return cuda::add(buffer, y, x.rows() * x.cols());
    }
    for_each_part(cx, x, |from, part| {
        for (v, y) in part.iter_mut().zip(&y.data()[from..]) {
            *v += y;
        }
    });
}

/// A row, and the weight of what is added to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The row.
    pub row: usize,
    /// Multiplies what is added.
    pub weight: f32,
}

/// For every row i of `y`, with its target: row of x ← fma(weight, row i of y, row of x).
///
/// # Panics
/// If there is not a target for every row of `y`, targets are not increasing rows of `x`, or the widths differ.
pub fn add_scaled_rows(x: &mut Mat, targets: &[Target], y: View<'_>) {
    assert_eq!((targets.len(), x.cols()), (y.rows(), y.cols()), "add_scaled_rows: shapes");
    let ascending = targets.windows(2).all(|pair| pair[0].row < pair[1].row);
    assert!(ascending && targets.last().is_none_or(|t| t.row < x.rows()), "add_scaled_rows: targets");
    if let Some(y) = y.device() {
        return cuda::add_scaled_rows(x, targets, y);
    }
    for (i, target) in targets.iter().enumerate() {
        for (v, y) in x.row_mut(target.row).iter_mut().zip(y.row(i)) {
            *v = target.weight.mul_add(*y, *v);
        }
    }
}

/// Copies the given rows of `x` into a new matrix.
///
/// # Panics
/// If there is no such row.
pub fn gather_rows(cx: &Cx, x: View<'_>, rows: impl Iterator<Item = usize> + Clone) -> Mat {
    assert!(rows.clone().all(|row| row < x.rows()), "gather_rows: of {} rows", x.rows());
    if let Some(device) = x.device() {
        return cuda::gather_rows(device, x.cols(), rows);
    }
    let mut out = cx.mat(rows.clone().count(), x.cols());
    for (to, from) in rows.enumerate() {
        out.row_mut(to).copy_from_slice(x.row(from));
    }
    out
}

/// [`gather_rows`] of a matrix that is not needed any more: itself, if all of its rows are wanted in order.
pub fn take_rows(cx: &Cx, x: Mat, rows: impl Iterator<Item = usize> + Clone) -> Mat {
    if rows.clone().eq(0..x.rows()) { x } else { gather_rows(cx, x.view(), rows) }
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
