//! Fitting scales to a group of numbers, and quantising those scales in turn.
//!
//! Two models: symmetric, x ≈ scale · l with l from −n to n − 1, and affine, x ≈ scale · q − min with q from
//! 0 to `q_max` and both parameters non-negative. Each starts from the extremes of the group, rounds, and
//! then takes the least-squares parameters for the codes it found; the caller rounds the parameters to what
//! its format can hold and the numbers once more against those.
//!
//! Nothing here divides zero by zero or lets a NaN through: NaN codes as 0, and parameters that overflow are
//! clipped to the largest f16 by [`clip_f16`].

use tangelo_core::float::{f16_to_f32, f32_to_f16};

/// Largest finite f16.
const F16_MAX: f32 = 65504.0;

/// Clips to the range of f16; NaN becomes 0.
#[inline]
pub(super) fn clip_f16(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(-F16_MAX, F16_MAX) }
}

/// The f16 nearest to `x`, clipped, as f32.
#[inline]
pub(super) fn round_f16(x: f32) -> f32 {
    f16_to_f32(f32_to_f16(clip_f16(x)))
}

/// 1 / d, or 0 for 0, so that a group of zeros gets the codes of zero.
#[inline]
pub(super) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// `v` rounded down and clipped to 0..=`max`; NaN gives 0. Callers add the half that makes it round to
/// nearest.
#[inline]
pub(super) fn clip_code(v: f32, max: u8) -> u8 {
    // The cast truncates and saturates at both ends.
    (v as u8).min(max)
}

/// The element of largest magnitude, with its sign; the first of equals. 0 for an empty group.
#[inline]
pub(super) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |e: f32, &x| if x.abs() > e.abs() { x } else { e })
}

/// The smallest and the largest element, NaN aside.
#[inline]
pub(super) fn range(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &x| (lo.min(x), hi.max(x)))
}

/// The scale of x ≈ scale · (q − offset), q from 0 to 2 · offset − 1. It may be negative: the sign is chosen
/// so that the element of largest magnitude falls on code 0, the longer end.
pub(super) fn symmetric(x: &[f32], offset: u8) -> f32 {
    let n = f32::from(offset);
    let start = extreme(x) / -n;
    let per = inverse(start);
    let (mut ll, mut lx) = (0f32, 0f32);
    for &x in x {
        let l = f32::from(clip_code(x * per + (n + 0.5), 2 * offset - 1)) - n;
        ll += l * l;
        lx += l * x;
    }
    let fitted = lx / ll;
    if fitted.is_finite() { fitted } else { start }
}

/// The (scale, min) of x ≈ scale · q − min, q from 0 to `q_max`; both are at least 0.
pub(super) fn affine(x: &[f32], q_max: u8) -> (f32, f32) {
    let (lo, hi) = range(x);
    // A minimum above zero cannot be expressed.
    let lo = lo.min(0.0);
    let start = ((hi - lo) / f32::from(q_max)).max(0.0);
    let per = inverse(start);
    let n = x.len() as f32;
    let (mut q1, mut qq, mut x1, mut qx) = (0f32, 0f32, 0f32, 0f32);
    for &x in x {
        let q = f32::from(clip_code((x - lo) * per + 0.5, q_max));
        q1 += q;
        qq += q * q;
        x1 += x;
        qx += q * x;
    }
    let slope = (n * qx - q1 * x1) / (n * qq - q1 * q1);
    let intercept = (x1 - slope * q1) / n;
    let (scale, min) = if intercept <= 0.0 { (slope, -intercept) } else { (qx / qq, 0.0) };
    // One code for the whole group leaves the line undetermined; huge numbers overflow the sums.
    let fitted = scale.is_finite() && min.is_finite() && scale >= 0.0;
    if fitted { (scale, min) } else { (start, -lo) }
}

/// Numbers rounded to multiples of one f16: value[g] = d · code[g].
pub(super) struct Multiples<C, const G: usize> {
    /// The unit, representable in f16.
    pub d: f32,
    /// Its multiples.
    pub code: [C; G],
}

/// Rounds non-negative numbers to multiples 0..=`code_max` of a common unit, the largest number on
/// `code_max`.
pub(super) fn unsigned_multiples<const G: usize>(values: [f32; G], code_max: u8) -> Multiples<u8, G> {
    let d = round_f16(range(&values).1 / f32::from(code_max));
    let per = inverse(d);
    Multiples { d, code: values.map(|v| clip_code(v * per + 0.5, code_max)) }
}

/// Rounds numbers to multiples −n..=n − 1 of a common unit, the one of largest magnitude on −n (n is at most
/// 128).
pub(super) fn signed_multiples<const G: usize>(values: [f32; G], n: u8) -> Multiples<i8, G> {
    let d = round_f16(extreme(&values) / -f32::from(n));
    let per = inverse(d);
    let code = values.map(|v| {
        let shifted = clip_code(v * per + (f32::from(n) + 0.5), n - 1 + n);
        (i16::from(shifted) - i16::from(n)) as i8
    });
    Multiples { d, code }
}
