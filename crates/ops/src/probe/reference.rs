//! The three measured loops in plain Rust: what every level can run.

use std::hint::black_box;

use crate::lanes::LANES;

/// Sums each stream of `src` in sixteen lanes, so that the compiler may use whatever vectors the target always has.
///
/// # Safety
/// Has no obligations; it is a kernel like the others.
pub(super) unsafe fn read(src: &[f32], sum: &mut f32) {
    let (first, second) = src.split_at(src.len() / 2);
    let (a, b) = first.split_at(first.len() / 2);
    let (c, d) = second.split_at(second.len() / 2);
    let mut lanes = [0.0f32; LANES];
    let streams = [a, b, c, d].map(|stream| stream.as_chunks::<LANES>().0);
    for (((a, b), c), d) in streams[0].iter().zip(streams[1]).zip(streams[2]).zip(streams[3]) {
        for i in 0..LANES {
            lanes[i] += (a[i] + b[i]) + (c[i] + d[i]);
        }
    }
    *sum = lanes.iter().sum();
}

/// Twelve times sixteen multiply-adds per round, fused as the contracts of this crate demand; on a target without the
/// instruction this is a function call each.
///
/// # Safety
/// Has no obligations; it is a kernel like the others.
pub(super) unsafe fn fma(rounds: usize, out: &mut [f32; LANES]) {
    let (a, b) = (black_box(0.5f32), black_box(1.0f32));
    let mut chains = [[0.0f32; LANES]; super::fma::FMAS_PER_ROUND];
    for _ in 0..rounds {
        chains.as_flattened_mut().iter_mut().for_each(|x| *x = x.mul_add(a, b));
    }
    for chain in &chains {
        out.iter_mut().zip(chain).for_each(|(out, x)| *out += x);
    }
}

/// 768 products per round, each widened and added to one of sixteen sums.
///
/// # Safety
/// Has no obligations; it is a kernel like the others.
pub(super) unsafe fn int8(rounds: usize, out: &mut [i32; LANES]) {
    const PRODUCTS: usize = super::int8::OPS_PER_ROUND as usize / 2;
    let (a, b) = ([3u8; PRODUCTS], [-5i8; PRODUCTS]);
    for _ in 0..rounds {
        let (a, b) = (black_box(&a), black_box(&b));
        for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                out[i] = out[i].wrapping_add(i32::from(a[i]) * i32::from(b[i]));
            }
        }
    }
}
