//! exp, silu, sigmoid and softplus with the same bits in every implementation.
//!
//! The largest errors are bounded by [`EXP_ULP`] and its siblings; `tests.rs` measures them against f64 on every
//! 251st f32, and on all of them if asked. One
//! ulp is the spacing of floats at the exact value (that of 2^-126 below it).
//!
//! exp(x) = 2^n · e^r with n = round(x / ln 2) and r = x − n·ln 2 (ln 2 in two pieces, both products fused). The
//! polynomial is 1 + r + r²·q(r); q, of degree 4, is the minimax fit of (e^r − 1 − r) / r² on |r| ≤ ln 2 / 2 for
//! the relative error of e^r (3.1e-9), found by Remez exchange and rounded to f32.

#[cfg(test)]
mod tests;
mod vector;

pub(crate) use vector::{dsilu_lanes, exp_lanes, silu_lanes};

/// Largest error of [`exp`] in ulp.
pub const EXP_ULP: f64 = 1.01;
/// Largest error of [`sigmoid`] in ulp.
pub const SIGMOID_ULP: f64 = 3.0;
/// Largest error of [`silu`] in ulp, or 2⁻¹⁴² where e^x is subnormal (x below −87.3).
pub const SILU_ULP: f64 = 3.5;
/// Largest error of [`softplus`] in ulp.
pub const SOFTPLUS_ULP: f64 = 3.0;

/// Below this exp rounds to zero: e^-104 is less than half the smallest subnormal.
const EXP_LOW: f32 = -104.0;
/// Above this exp is infinite: e^89 > 2^128.
const EXP_HIGH: f32 = 89.0;
const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 with its low 12 mantissa bits zero, so that n·LN2_HIGH is exact for |n| ≤ 151.
const LN2_HIGH: f32 = 0.693_145_75;
/// ln 2 − LN2_HIGH.
const LN2_LOW: f32 = 1.428_606_8e-6;
/// q(r), constant term first.
const EXP_Q: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_745, 0.001_381_454];

/// e^x. `NaN` stays `NaN`; underflow is gradual, then zero; overflow is infinite.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // The clamps keep NaN: a comparison with NaN is false.
    let x = if EXP_HIGH < x { EXP_HIGH } else { x };
    let x = if EXP_LOW > x { EXP_LOW } else { x };
    let n = (x * LOG2_E).round_ties_even();
    let r = n.mul_add(-LN2_HIGH, x);
    let r = n.mul_add(-LN2_LOW, r);
    let [q0, q1, q2, q3, q4] = EXP_Q;
    let q = q4.mul_add(r, q3).mul_add(r, q2).mul_add(r, q1).mul_add(r, q0);
    let p = (r * r).mul_add(q, r) + 1.0;
    scale_pow2(p, n)
}

/// `p * 2^n` for integral `n`, in two exact powers so that subnormal results are rounded once.
#[inline(always)]
pub(crate) fn scale_pow2(p: f32, n: f32) -> f32 {
    let n = n as i32;
    let half = n >> 1;
    let pow2 = |k: i32| f32::from_bits(((k + 127) as u32) << 23);
    (p * pow2(half)) * pow2(n - half)
}

/// x · sigmoid(x), computed as `(x < 0 ? x·e : x) / (1 + e)` with `e = exp(-|x|)`.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    let e = exp(-x.abs());
    let numerator = if x < 0.0 { x * e } else { x };
    numerator / (1.0 + e)
}

/// 1 / (1 + e^-x), computed from `e = exp(-|x|)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|).
///
/// Frameworks return x itself above 20; there the second term is below half an ulp, so this agrees.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let positive = if x < 0.0 { 0.0 } else { x };
    positive + log1p_unit(exp(-x.abs()))
}

/// ln(1 + e) for e in 0..=1: with f = e or, above √2 − 1, f = (e − 1) / 2 and ln 2 added, ln(1 + f) = 2·atanh(s),
/// s = f / (2 + f), |s| ≤ 0.172, by the odd Taylor series of atanh up to s⁹ (next term: 2e-9 relative).
#[inline(always)]
fn log1p_unit(e: f32) -> f32 {
    const SQRT2_MINUS_1: f32 = 0.414_213_57;
    let halve = e > SQRT2_MINUS_1;
    let f = if halve { (e - 1.0) * 0.5 } else { e };
    let s = f / (2.0 + f);
    let z = s * s;
    let tail = (2.0f32 / 9.0).mul_add(z, 2.0 / 7.0).mul_add(z, 2.0 / 5.0).mul_add(z, 2.0 / 3.0);
    let log = (s * z).mul_add(tail, 2.0 * s);
    if halve { log + std::f32::consts::LN_2 } else { log }
}
