//! Every function of [`Lanes`] against plain arrays, on each instruction set of the machine.

use super::*;
use crate::dispatch::Impl;
use crate::testing::{assert_same_bits, on_every_simd};

/// Applies every function to `a`, `b`, `c` and writes the results one after the other.
type Kernel = unsafe fn(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES], out: &mut Vec<f32>);

over_lanes! {
    static ALL: Kernel =
        all(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES], out: &mut Vec<f32>), plain
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn all<V: Lanes>(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES], out: &mut Vec<f32>) {
    // SAFETY: the arrays hold sixteen elements; the caller vouches for the instruction set.
    unsafe {
        let (x, y, z) = (V::load(a.as_ptr()), V::load(b.as_ptr()), V::load(c.as_ptr()));
        let results = [
            x.add(y),
            x.mul(y),
            x.div(y),
            x.fma(y, z),
            x.max(y),
            x.min(y),
            x.abs(),
            x.select_negative(y, z),
            x.round(),
            x.scale_pow2(y.round()),
            V::splat(a[3]),
        ];
        for result in results {
            let mut lanes = [0.0; LANES];
            result.store(lanes.as_mut_ptr());
            out.extend(lanes);
        }
        out.extend([x.fold_add(), x.fold_max()]);
    }
}

fn plain(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES], out: &mut Vec<f32>) {
    let each =
        |f: &dyn Fn(f32, f32, f32) -> f32| -> Vec<f32> { (0..LANES).map(|i| f(a[i], b[i], c[i])).collect() };
    let larger = |x: f32, y: f32| if x > y { x } else { y };
    let pow2 = |k: i32| f32::from_bits(((k + 127) as u32) << 23);
    out.extend(each(&|x, y, _| x + y));
    out.extend(each(&|x, y, _| x * y));
    out.extend(each(&|x, y, _| x / y));
    out.extend(each(&|x, y, z| x.mul_add(y, z)));
    out.extend(each(&|x, y, _| larger(x, y)));
    out.extend(each(&|x, y, _| if x < y { x } else { y }));
    out.extend(each(&|x, _, _| x.abs()));
    out.extend(each(&|x, y, z| if x < 0.0 { y } else { z }));
    out.extend(each(&|x, _, _| x.round_ties_even()));
    out.extend(each(&|x, y, _| {
        let n = y.round_ties_even() as i32;
        x * pow2(n >> 1) * pow2(n - (n >> 1))
    }));
    out.extend([a[3]; LANES]);
    out.extend([reference::fold(*a, |x, y| x + y), reference::fold(*a, larger)]);
}

#[test]
fn every_function_equals_the_plain_one() {
    on_every_simd(|cx, rng| {
        for round in 0..200 {
            let mut next = |scale| -> [f32; LANES] { rng.uniform(LANES, scale).try_into().expect("sixteen") };
            let (mut a, mut b, c) = (next(100.0), next(60.0), next(1.0));
            if round % 4 == 0 {
                a[..6].copy_from_slice(&[0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 0.5, 2.5]);
                a[6] = if round % 8 == 0 { f32::NAN } else { -1.5 };
                // Where maximum and minimum of an instruction set may differ from the selection they are here.
                a[8..12].copy_from_slice(&[0.0, -0.0, 7.0, f32::NAN]);
                b[8..12].copy_from_slice(&[-0.0, 0.0, f32::NAN, 7.0]);
            }
            let (mut got, mut want) = (Vec::new(), Vec::new());
            // SAFETY: `choose` returns what this machine can run.
            unsafe { cx.choose(ALL)(&a, &b, &c, &mut got) };
            plain(&a, &b, &c, &mut want);
            assert_same_bits(&got, &want, &format!("round {round} {}", cx.simd()));
        }
    });
}

type Copy = unsafe fn(src: &[f32], at: usize, dst: &mut [f32]);

over_lanes! { static COPY: Copy = copy(src: &[f32], at: usize, dst: &mut [f32]), copy_plain }

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn copy<V: Lanes>(src: &[f32], at: usize, dst: &mut [f32]) {
    // SAFETY: the caller vouches.
    unsafe { store_at(load_at::<V>(src, at).add(V::splat(1.0)), dst, at) }
}

fn copy_plain(src: &[f32], at: usize, dst: &mut [f32]) {
    for i in at..src.len().min(at + LANES) {
        dst[i] = src[i] + 1.0;
    }
}

#[test]
fn partial_loads_and_stores_touch_nothing_else() {
    on_every_simd(|cx, rng| {
        for len in 1..=2 * LANES {
            let src = rng.uniform(len, 1.0);
            for at in 0..len {
                let (mut got, mut want) = (vec![9.0; len], vec![9.0; len]);
                // SAFETY: `choose` returns what this machine can run.
                unsafe { cx.choose(COPY)(&src, at, &mut got) };
                copy_plain(&src, at, &mut want);
                assert_same_bits(&got, &want, &format!("{len} elements from {at}, {}", cx.simd()));
            }
        }
    });
}

type Widen = unsafe fn(src: &[u16; LANES], dst: &mut [f32; LANES]);

over_lanes! { static WIDEN: Widen = widen(src: &[u16; LANES], dst: &mut [f32; LANES]), widen_plain }

over_lanes! { static WIDEN_BF16: Widen = widen_bf16(src: &[u16; LANES], dst: &mut [f32; LANES]), widen_bf16_plain }

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn widen_bf16<V: Lanes>(src: &[u16; LANES], dst: &mut [f32; LANES]) {
    // SAFETY: the arrays hold sixteen elements; the caller vouches for the instruction set.
    unsafe { V::load_bf16(src.as_ptr()).store(dst.as_mut_ptr()) }
}

fn widen_bf16_plain(src: &[u16; LANES], dst: &mut [f32; LANES]) {
    *dst = src.map(tangelo_core::float::bf16_to_f32);
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn widen<V: Lanes>(src: &[u16; LANES], dst: &mut [f32; LANES]) {
    // SAFETY: the arrays hold sixteen elements; the caller vouches for the instruction set.
    unsafe { V::load_f16(src.as_ptr()).store(dst.as_mut_ptr()) }
}

fn widen_plain(src: &[u16; LANES], dst: &mut [f32; LANES]) {
    *dst = src.map(tangelo_core::float::f16_to_f32);
}

#[test]
fn every_short_float_widens_exactly() {
    on_every_simd(|cx, _| {
        for first in (0..=u16::MAX).step_by(LANES) {
            let src = std::array::from_fn(|i| first + i as u16);
            let (mut got, mut want) = ([0.0; LANES], [0.0; LANES]);
            // SAFETY: `choose` returns what this machine can run.
            unsafe { cx.choose(WIDEN)(&src, &mut got) };
            widen_plain(&src, &mut want);
            assert_same_bits(&got, &want, &format!("f16 from {first:#x}, {}", cx.simd()));
            // SAFETY: as above.
            unsafe { cx.choose(WIDEN_BF16)(&src, &mut got) };
            widen_bf16_plain(&src, &mut want);
            assert_same_bits(&got, &want, &format!("bf16 from {first:#x}, {}", cx.simd()));
        }
    });
}

#[test]
fn the_list_is_sorted_best_first_and_ends_with_the_reference() {
    let levels: Vec<_> = ALL.iter().map(|i: &Impl<Kernel>| i.simd).collect();
    assert!(levels.is_sorted_by(|a, b| a > b), "{levels:?}");
    assert_eq!(levels.last(), Some(&crate::dispatch::Simd::Reference));
}
