//! e^x for the weights of a distribution: f64, from additions and multiplications only.
//!
//! The exponential of the kernels is made of fused multiply-adds, which a processor has or a library imitates slowly; that
//! of the standard library is the system's, and differs in the last bit from one to the next. This one is fast without
//! any instruction set, the compiler can put it into vectors, and it gives the same bits everywhere:
//!
//! ```text
//! e^x = 2^n · e^r,  n = round(x / ln 2),  r = x − n·ln 2,  |r| ≤ 0.347,  e^r = Σ r^k / k!  for k ≤ 11
//! ```
//!
//! The first term left out is below 7e-15 of the sum.

/// Adding it to |t| < 2^51 rounds t to an integer, which is then in the low bits of the sum.
const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2^52
/// ln 2, its low 21 bits zero, so that n·LN2_HIGH is exact.
const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
/// ln 2 − LN2_HIGH.
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// Below this the result is taken as zero: it is less than 1e-304.
const LOWEST: f64 = -700.0;
/// 1 / k! for k from 11 down to 0.
const TAYLOR: [f64; 12] = [
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// e^x for x ≤ 0.
#[inline(always)] // A call is not put into vectors.
pub fn exp(x: f64) -> f64 {
    let clamped = x.max(LOWEST);
    let t = clamped * std::f64::consts::LOG2_E + ROUND;
    let n = t - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let sum = TAYLOR.iter().fold(0.0, |sum, term| sum * r + term);
    let pow2 = f64::from_bits(t.to_bits().wrapping_add(1023) << 52);
    if x < LOWEST { 0.0 } else { sum * pow2 }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn it_is_the_exponential() {
        for i in 0..=200_000 {
            let x = f64::from(i) * -0.003_5;
            assert!((exp(x) - x.exp()).abs() <= 4e-14 * x.exp(), "{x}: {} is not {}", exp(x), x.exp());
        }
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
        assert_eq!((exp(f64::NEG_INFINITY), exp(-701.0), exp(f64::from(f32::MIN))), (0.0, 0.0, 0.0));
    }
}
