//! The definition: every output on its own.

use super::output::Output;
use super::packed::Packed;
use crate::device::{Cx, View};
use crate::dispatch::Simd;
use crate::quant::{self, Format};
use crate::quantise_rows::{BLOCK, Part, QuantisedRows, quantise_rows};

/// Plain floats.
pub(super) fn dense(cx: &Cx, x: View<'_>, w: &Packed, out: &Output<'_>) {
    cx.run(w.rows(), &|r| {
        let mut row = vec![0.0; w.cols()];
        quant::dequantize_row(Simd::Reference, w.dtype(), &w.row(r), &mut row)
            .expect("checked by Weight::new");
        for m in 0..x.rows() {
            let s = row.iter().zip(x.row(m)).fold(0.0f32, |s, (w, x)| x.mul_add(*w, s));
            // SAFETY: each output column belongs to one part.
            unsafe { out.write(m, r, &[s]) };
        }
    });
}

/// Block formats.
pub(super) fn quantised(cx: &Cx, x: View<'_>, w: &Packed, format: &Format, out: &Output<'_>) {
    let x = quantise_rows(cx, x, 1);
    let groups = w.cols() / format.group;
    cx.run(w.rows(), &|r| {
        let (mut q, mut scale, mut min) = (vec![0; w.cols()], vec![0.0; groups], vec![0.0; groups]);
        (format.unpack)(&w.row(r), &mut q, &mut scale, &mut min);
        for m in 0..x.rows() {
            let mut s = 0.0f32;
            for g in 0..groups {
                let (n, sum) = group(format, &q, &x, m, g);
                let d = x.block(m, g * format.group / BLOCK).d;
                s = (n as f32).mul_add(scale[g] * d, s);
                if format.has_min {
                    s = min[g].mul_add(d * sum as f32, s);
                }
            }
            // SAFETY: each output column belongs to one part.
            unsafe { out.write(m, r, &[s]) };
        }
    });
}

/// Σ (qw − offset)·qx and Σ qx over group `g`.
fn group(format: &Format, q: &[u8], x: &QuantisedRows, m: usize, g: usize) -> (i32, i32) {
    let range = g * format.group..(g + 1) * format.group;
    let part = Part::of(range.start, format.group);
    let x = &x.block(m, range.start / BLOCK).q[part.first()..][..format.group];
    let product = |(w, x): (&u8, &i8)| (i32::from(*w) - i32::from(format.offset)) * i32::from(*x);
    let n = q[range].iter().zip(x).map(product).sum();
    (n, x.iter().map(|&x| i32::from(x)).sum())
}
