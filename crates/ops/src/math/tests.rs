//! Errors in ulp against f64, and vectors against scalars.
//!
//! `TANGELO_EXHAUSTIVE=1` visits every f32; otherwise every 251st bit pattern is visited (17 million).

use super::*;
use crate::lanes::{LANES, Lanes, load_at, over_lanes, store_at};
use crate::testing::{assert_same_bits, on_every_simd};

/// The distance of `got` from `want` in units of the float spacing at `want`.
fn error_ulp(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got == rounded || (got.is_nan() && rounded.is_nan()) {
        return 0.0;
    }
    if rounded.is_infinite() {
        // Between the largest float and the point that rounds to infinity.
        return if got == f32::MAX { 1.0 } else { f64::INFINITY };
    }
    let exponent = (want.abs().log2().floor() as i32).max(-126);
    (f64::from(got) - want).abs() / 2f64.powi(exponent - 23)
}

/// The largest error of `f` over the visited floats, and where. Differences up to `negligible` do not count.
fn largest_error(f: fn(f32) -> f32, exact: fn(f64) -> f64, negligible: f64) -> (f64, f32) {
    let step = if std::env::var_os("TANGELO_EXHAUSTIVE").is_some() { 1 } else { 251 };
    let scan = |from: u64, to: u64| {
        let mut worst = (0.0, 0.0);
        for bits in (from..to).step_by(step) {
            let x = f32::from_bits(bits as u32);
            let (got, want) = (f(x), exact(f64::from(x)));
            let error = error_ulp(got, want);
            if error > worst.0 && (f64::from(got) - want).abs() > negligible {
                worst = (error, x);
            }
        }
        worst
    };
    let half = 1u64 << 31;
    let (a, b) = std::thread::scope(|scope| {
        let upper = scope.spawn(|| scan(half, 2 * half));
        (scan(0, half), upper.join().expect("no panic"))
    });
    if a.0 > b.0 { a } else { b }
}

/// Name, function, the exact one, and the largest error stated.
type Case = (&'static str, fn(f32) -> f32, fn(f64) -> f64, f64);

#[test]
fn errors_are_as_stated() {
    let sigmoid_exact = |x: f64| 1.0 / (1.0 + (-x).exp());
    let silu_exact = |x: f64| if x == f64::NEG_INFINITY { f64::NAN } else { x * (1.0 / (1.0 + (-x).exp())) };
    let softplus_exact = |x: f64| if x > 40.0 { x } else { x.exp().ln_1p() };
    let cases: [Case; 4] = [
        ("exp", exp, f64::exp, EXP_ULP),
        ("sigmoid", sigmoid, sigmoid_exact, SIGMOID_ULP),
        ("silu", silu, silu_exact, SILU_ULP),
        ("softplus", softplus, softplus_exact, SOFTPLUS_ULP),
    ];
    for (name, f, exact, stated) in cases {
        let negligible = if name == "silu" { 2f64.powi(-142) } else { 0.0 };
        let (error, at) = largest_error(f, exact, negligible);
        println!("{name}: {error:.3} ulp at {at:e}");
        assert!(error <= stated, "{name}: {error} ulp at {at:e}, stated {stated}");
    }
}

type Unary = unsafe fn(x: &[f32], out: &mut [f32]);

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn exp_all<V: Lanes>(x: &[f32], out: &mut [f32]) {
    for at in (0..x.len()).step_by(LANES) {
        // SAFETY: the caller vouches.
        unsafe { store_at(exp_lanes(load_at::<V>(x, at)), out, at) };
    }
}

/// # Safety
/// The instruction set of `V` must be available.
#[inline(always)]
unsafe fn silu_all<V: Lanes>(x: &[f32], out: &mut [f32]) {
    for at in (0..x.len()).step_by(LANES) {
        // SAFETY: the caller vouches.
        unsafe { store_at(silu_lanes(load_at::<V>(x, at)), out, at) };
    }
}

fn exp_each(x: &[f32], out: &mut [f32]) {
    x.iter().zip(out).for_each(|(x, y)| *y = exp(*x));
}

fn silu_each(x: &[f32], out: &mut [f32]) {
    x.iter().zip(out).for_each(|(x, y)| *y = silu(*x));
}

over_lanes! { static EXP: Unary = exp_all(x: &[f32], out: &mut [f32]), exp_each }
over_lanes! { static SILU: Unary = silu_all(x: &[f32], out: &mut [f32]), silu_each }

#[test]
fn vectors_equal_scalars_on_all_kinds_of_numbers() {
    on_every_simd(|cx, rng| {
        let mut x: Vec<f32> = (0..200_003).map(|_| f32::from_bits(rng.next() as u32)).collect();
        x.extend(rng.uniform(50_000, 110.0));
        x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 88.8, -103.9, -87.4, 1e-45]);
        for (impls, each) in [(EXP, exp_each as fn(&[f32], &mut [f32])), (SILU, silu_each)] {
            let (mut got, mut want) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            // SAFETY: `choose` returns what this machine can run.
            unsafe { cx.choose(impls)(&x, &mut got) };
            each(&x, &mut want);
            assert_same_bits(&got, &want, &format!("{}", cx.simd()));
        }
    });
}
