//! C ← C + A · B on the host, for gradients: of f32 matrices that are multiplied once, so that nothing is kept in the form
//! in which it is multiplied.
//!
//! One f32 accumulator per element of C, from what C holds: `c = fma(a[i, k], b[k, j], c)`, k increasing. So a product cut
//! along k gives the same bits as the whole, and gradients do not depend on how a batch is divided.
//!
//! For each 192 of k, B is copied into panels of 32 columns; twelve by 32 elements of C stay in registers (Goto & van de Geijn
//! 2008). Rows of A are read where they lie; of a matrix that is turned, a part at a time is copied into panels of twelve rows.

use crate::device::{Cx, Mat, SharedRows, View};
use crate::lanes::{LANES, Lanes, Plain, over_lanes};
use std::cell::RefCell;
use std::ops::Range;

/// Rows of C in registers.
const ROWS: usize = 12;
/// Columns of C in registers.
const COLS: usize = 2 * LANES;
/// Elements of k that panels hold: a panel of B is 24 KiB.
const DEPTH: usize = 192;
/// Rows of A that a part packs at once (72 KiB).
const ROWS_PER_PART: usize = 8 * ROWS;
/// Columns of B that a part packs at once.
const COLS_PER_PART: usize = 8 * COLS;

/// Twelve rows of A: element (r, k) lies at `first + r · row + k · col`.
#[derive(Clone, Copy)]
struct Rows {
    first: *const f32,
    row: usize,
    col: usize,
}

/// Twelve rows of C, `stride` apart, of 32 columns.
#[derive(Clone, Copy)]
struct Tile {
    first: *mut f32,
    stride: usize,
    /// Whether it counts as zeros, whatever it holds.
    is_fresh: bool,
}

/// `a` as deep as `b`, which is (depth, 32).
type Kernel = unsafe fn(a: Rows, b: &[f32], c: Tile);

over_lanes! {
    /// Best first.
    static KERNELS: Kernel = kernel(a: Rows, b: &[f32], c: Tile), kernel::<Plain>
}

/// A matrix as a factor: element (i, k) lies at `i · row_stride + k · col_stride`.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Factor<'a> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// If `data.len() != rows * cols`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Factor<'a> {
        assert_eq!(data.len(), rows * cols, "{rows} x {cols} matrix");
        Factor { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same matrix the other way round.
    pub fn transposed(self) -> Factor<'a> {
        let Factor { data, rows, cols, row_stride, col_stride } = self;
        Factor { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    #[inline(always)]
    fn at(&self, i: usize, k: usize) -> f32 {
        self.data[i * self.row_stride + k * self.col_stride]
    }

    /// Twelve rows from `i` on, from column `from` on, where they lie.
    fn rows_of(&self, i: usize, from: usize, depth: usize) -> Rows {
        assert!(i + ROWS <= self.rows && from + depth <= self.cols, "rows beyond the factor");
        let (row, col) = (self.row_stride, self.col_stride);
        Rows { first: self.data[i * row + from * col..].as_ptr(), row, col }
    }
}

/// All of a matrix on the host.
impl<'a> From<&'a Mat> for Factor<'a> {
    fn from(mat: &'a Mat) -> Factor<'a> {
        Factor::new(mat.data(), mat.rows(), mat.cols())
    }
}

thread_local! {
    static PANELS_OF_A: RefCell<Vec<f32>> = RefCell::new(vec![0.0; ROWS_PER_PART * DEPTH]);
}

/// C ← C + A · B.
///
/// # Shapes
/// `a` (m, k), `b` (k, n), `c` (m, n), row-major.
///
/// # Panics
/// If the shapes do not agree.
pub fn add_product(cx: &Cx, a: Factor<'_>, b: Factor<'_>, c: &mut [f32]) {
    accumulate(cx, a, b, c, false);
}

/// A · B: [`add_product`] to zeros.
///
/// # Panics
/// As there.
pub fn product(cx: &Cx, a: Factor<'_>, b: Factor<'_>) -> Mat {
    let mut c = cx.mat(a.rows, b.cols);
    accumulate(cx, a, b, c.data_mut(), true);
    c
}

/// `is_fresh`: whether C counts as zeros, whatever it holds.
fn accumulate(cx: &Cx, a: Factor<'_>, b: Factor<'_>, c: &mut [f32], is_fresh: bool) {
    let (m, n) = (a.rows, b.cols);
    assert_eq!(a.cols, b.rows, "add_product: inner sizes");
    assert_eq!(c.len(), m * n, "add_product: C is {m} x {n}");
    if is_fresh && a.cols == 0 {
        return c.fill(0.0);
    }
    if m == 0 || n == 0 {
        return;
    }
    let kernel = cx.choose(KERNELS);
    let shared = SharedRows::new(c, n);
    let panels = n.div_ceil(COLS);
    let mut packed = cx.mat(panels, DEPTH * COLS);
    // A few rows or panels are divided among all threads, too.
    let rows_per_part = m.div_ceil(2 * cx.threads()).next_multiple_of(ROWS).min(ROWS_PER_PART);
    let panels_per_part = panels.div_ceil(2 * cx.threads()).min(COLS_PER_PART / COLS);
    for from in (0..a.cols).step_by(DEPTH) {
        let depth = DEPTH.min(a.cols - from);
        let mut view = packed.view_mut();
        let out = view.share();
        cx.run_ranges(panels, panels_per_part, &|range| {
            for panel in range {
                // SAFETY: a panel belongs to one part.
                let out = unsafe { out.part(panel, 0..depth * COLS) };
                pack_b(&b, from, panel * COLS, out);
            }
        });
        let packed = packed.view();
        cx.run_ranges(m, rows_per_part, &|rows| {
            add_rows(kernel, (&a, rows, from), &packed, (&shared, is_fresh && from == 0));
        });
    }
}

/// Adds to some rows of C what some of k, from `from` on, contribute.
fn add_rows(
    kernel: Kernel,
    (a, rows, from): (&Factor<'_>, Range<usize>, usize),
    packed: &View<'_>,
    (c, is_fresh): (&SharedRows<'_>, bool),
) {
    let n = c.stride();
    let depth = DEPTH.min(a.cols - from);
    let starts = || rows.clone().step_by(ROWS);
    PANELS_OF_A.with_borrow_mut(|panels| {
        // Whole rows that lie in a row are read from where they are.
        let lies_well = |start: usize| a.col_stride == 1 && start + ROWS <= rows.end;
        match a.row_stride == 1 {
            true => pack_turned(a, rows.clone(), from, depth, panels),
            false => {
                for (start, panel) in starts().zip(panels.chunks_exact_mut(depth * ROWS)) {
                    if !lies_well(start) {
                        pack_rows(a, start..rows.end.min(start + ROWS), from, panel);
                    }
                }
            }
        }
        for (p, j) in (0..n).step_by(COLS).enumerate() {
            let b = &packed.row(p)[..depth * COLS];
            for (start, panel) in starts().zip(panels.chunks_exact(depth * ROWS)) {
                let a = match lies_well(start) && a.row_stride != 1 {
                    true => a.rows_of(start, from, depth),
                    false => Rows { first: panel.as_ptr(), row: 1, col: ROWS },
                };
                let (to, width) = (rows.end.min(start + ROWS), COLS.min(n - j));
                // SAFETY: these rows of C belong to this part; `a` has as many columns as `b` has rows; `choose` returns
                // what this machine can run.
                unsafe { tile(kernel, a, b, (c, is_fresh), start..to, j..j + width) }
            }
        }
    });
}

/// One tile of C, through a copy where it does not fill the registers.
///
/// # Safety
/// No other thread may use these elements of C; `a` must be as deep as `b`; `kernel` must be one that this machine can run.
unsafe fn tile(
    kernel: Kernel,
    a: Rows,
    b: &[f32],
    (c, is_fresh): (&SharedRows<'_>, bool),
    rows: Range<usize>,
    cols: Range<usize>,
) {
    // SAFETY: the caller vouches; the kernel is given 12 rows of 32 elements of C, or those of the copy.
    unsafe {
        if rows.len() == ROWS && cols.len() == COLS {
            return kernel(a, b, Tile { first: c.rectangle(rows, cols), stride: c.stride(), is_fresh });
        }
        let mut copy = [0.0; ROWS * COLS];
        if !is_fresh {
            for (row, copy) in rows.clone().zip(copy.chunks_exact_mut(COLS)) {
                copy[..cols.len()].copy_from_slice(c.part(row, cols.clone()));
            }
        }
        kernel(a, b, Tile { first: copy.as_mut_ptr(), stride: COLS, is_fresh: false });
        for (row, copy) in rows.zip(copy.chunks_exact(COLS)) {
            c.part(row, cols.clone()).copy_from_slice(&copy[..cols.len()]);
        }
    }
}

/// Columns `j ..` of B, zeros behind its end: (depth, 32).
fn pack_b(b: &Factor<'_>, from: usize, j: usize, out: &mut [f32]) {
    let width = COLS.min(b.cols - j);
    if b.col_stride == 1 && width == COLS {
        return copy_blocks::<COLS>(&b.data[from * b.row_stride + j..], b.row_stride, out);
    }
    for (k, out) in (from..).zip(out.chunks_exact_mut(COLS)) {
        let (of_b, rest) = out.split_at_mut(width);
        if b.col_stride == 1 {
            let at = k * b.row_stride + j;
            of_b.copy_from_slice(&b.data[at..at + width]);
        } else {
            of_b.iter_mut().enumerate().for_each(|(i, x)| *x = b.at(k, j + i));
        }
        rest.fill(0.0);
    }
}

/// `N` elements for every `N` of `out`, `stride` apart.
fn copy_blocks<const N: usize>(data: &[f32], stride: usize, out: &mut [f32]) {
    // As arrays, so that each is a few registers and not a call.
    for (k, out) in out.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        *out = *data[k * stride..].first_chunk().expect("a block within the factor");
    }
}

/// Rows of A whose columns lie in rows, as panels (depth, 12), zeros behind their end.
fn pack_turned(a: &Factor<'_>, rows: Range<usize>, from: usize, depth: usize, out: &mut [f32]) {
    for k in 0..depth {
        let (whole, rest) = a.data[(from + k) * a.col_stride..][rows.clone()].as_chunks::<ROWS>();
        for (panel, block) in whole.iter().enumerate() {
            // As arrays, so that each is a few registers and not a call.
            *out[(panel * depth + k) * ROWS..].first_chunk_mut().expect("a panel per part") = *block;
        }
        if !rest.is_empty() {
            let out = &mut out[(whole.len() * depth + k) * ROWS..][..ROWS];
            out[..rest.len()].copy_from_slice(rest);
            out[rest.len()..].fill(0.0);
        }
    }
}

/// Up to twelve rows of A as a panel (depth, 12), zeros behind their end.
fn pack_rows(a: &Factor<'_>, rows: Range<usize>, from: usize, out: &mut [f32]) {
    for r in 0..ROWS {
        let column = out[r..].iter_mut().step_by(ROWS).enumerate();
        column.for_each(|(k, x)| *x = if r < rows.len() { a.at(rows.start + r, from + k) } else { 0.0 });
    }
}

/// # Safety
/// The instruction set of `V` must be available; `a` and `c` must be as [`Kernel`] says.
#[inline(always)]
unsafe fn kernel<V: Lanes>(a: Rows, b: &[f32], c: Tile) {
    // SAFETY: the caller vouches; every block lies in the tile.
    unsafe {
        if V::IS_WIDE {
            return block::<V, ROWS, 2>(a, b, c);
        }
        for row in (0..ROWS).step_by(ROWS / 2) {
            for col in (0..COLS).step_by(LANES) {
                let a = Rows { first: a.first.add(row * a.row), ..a };
                let c = Tile { first: c.first.add(row * c.stride + col), ..c };
                block::<V, { ROWS / 2 }, 1>(a, &b[col..], c);
            }
        }
    }
}

/// The first `R` rows, a multiple of three, and `P` times sixteen columns of what is given.
///
/// # Safety
/// As [`kernel`].
#[inline(always)]
unsafe fn block<V: Lanes, const R: usize, const P: usize>(a: Rows, b: &[f32], c: Tile) {
    let depth = b.len().div_ceil(COLS);
    // SAFETY: the caller vouches that A is as deep as B and that C is there; of B, these are the first columns.
    unsafe {
        let of_c = |r: usize, p: usize| c.first.add(r * c.stride + p * LANES);
        let zeros = [[V::splat(0.0); P]; R];
        let mut s: [[V; P]; R] = match c.is_fresh {
            true => zeros,
            false => std::array::from_fn(|r| std::array::from_fn(|p| V::load(of_c(r, p)))),
        };
        let b = b.as_ptr();
        for k in 0..depth {
            let b: [V; P] = std::array::from_fn(|p| V::load(b.add(k * COLS + p * LANES)));
            let of_k = a.first.add(k * a.col);
            for r in 0..R {
                // From every third row on, so that few addresses are kept.
                let a = V::splat(*of_k.add(r / 3 * 3 * a.row).add(r % 3 * a.row));
                for p in 0..P {
                    s[r][p] = a.fma(b[p], s[r][p]);
                }
            }
        }
        for r in 0..R {
            for p in 0..P {
                s[r][p].store(of_c(r, p));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_bits, on_every_simd};

    fn expected(a: Factor<'_>, b: Factor<'_>, c: &[f32]) -> Vec<f32> {
        let element = |at: usize| {
            let (i, j) = (at / b.cols, at % b.cols);
            (0..a.cols).fold(c[at], |c, k| a.at(i, k).mul_add(b.at(k, j), c))
        };
        (0..c.len()).map(element).collect()
    }

    #[test]
    fn every_level_and_shape_has_the_order_of_the_contract() {
        on_every_simd(|cx, rng| {
            for (m, k, n) in [
                (1, 1, 1),
                (13, 1, 33),
                (24, 1, 64),
                (12, 256, 32),
                (13, 257, 33),
                (97, 300, 40),
                (5, 700, 70),
                (30, 0, 9),
            ] {
                let (a, b) = (rng.uniform(m * k, 1.0), rng.uniform(k * n, 1.0));
                let start = rng.uniform(m * n, 1.0);
                for turned in 0..4 {
                    let a = if turned % 2 == 0 {
                        Factor::new(&a, m, k)
                    } else {
                        Factor::new(&a, k, m).transposed()
                    };
                    let b = if turned / 2 == 0 {
                        Factor::new(&b, k, n)
                    } else {
                        Factor::new(&b, n, k).transposed()
                    };
                    let mut c = start.clone();
                    add_product(cx, a, b, &mut c);
                    assert_same_bits(&c, &expected(a, b, &start), &format!("{m} x {k} x {n}, {}", cx.simd()));
                    let (fresh, zeros) = (product(cx, a, b), vec![0.0; m * n]);
                    assert_same_bits(fresh.data(), &expected(a, b, &zeros), &format!("{m} x {k} x {n}"));
                }
            }
        });
    }

    #[test]
    fn a_product_in_two_pieces_has_the_bits_of_the_whole() {
        on_every_simd(|cx, rng| {
            let (m, k, n) = (20, 400, 50);
            let (a, b) = (rng.uniform(k * m, 1.0), rng.uniform(k * n, 1.0));
            let mut whole = vec![0.0; m * n];
            add_product(cx, Factor::new(&a, k, m).transposed(), Factor::new(&b, k, n), &mut whole);
            let mut pieces = vec![0.0; m * n];
            for rows in [0..123, 123..k] {
                let (a, b) = (&a[rows.start * m..rows.end * m], &b[rows.start * n..rows.end * n]);
                add_product(
                    cx,
                    Factor::new(a, rows.len(), m).transposed(),
                    Factor::new(b, rows.len(), n),
                    &mut pieces,
                );
            }
            assert_same_bits(&pieces, &whole, "pieces");
        });
    }
}
