//! Conversions between f32 and the short float formats. Widening is exact; narrowing rounds to nearest even.

/// binary16 bits to f32 (exact).
#[inline]
pub fn f16_to_f32(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32_const()
}

/// f32 to binary16 bits, nearest even.
#[inline]
pub fn f32_to_f16(x: f32) -> u16 {
    half::f16::from_f32_const(x).to_bits()
}

/// bfloat16 bits to f32 (exact).
#[inline]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// f32 to bfloat16 bits, nearest even.
#[inline]
pub fn f32_to_bf16(x: f32) -> u16 {
    half::bf16::from_f32(x).to_bits()
}

/// E4M3FN bits to f32 (exact): bias 7, subnormals below 2^-6, `S.1111.111` is NaN, no infinity.
#[inline]
pub fn f8e4m3_to_f32(bits: u8) -> f32 {
    let sign = u32::from(bits >> 7) << 31;
    let exponent = u32::from(bits >> 3) & 0xf;
    let mantissa = u32::from(bits) & 0x7;
    let magnitude = match (exponent, mantissa) {
        (0xf, 0x7) => f32::NAN.to_bits(),
        (0, m) => (m as f32 * (1.0 / 512.0)).to_bits(),
        (e, m) => ((e + 127 - 7) << 23) | (m << 20),
    };
    f32::from_bits(sign | magnitude)
}

/// f32 to E4M3FN bits, nearest even; magnitudes above 448 saturate, NaN stays NaN.
pub fn f32_to_f8e4m3(x: f32) -> u8 {
    let sign = ((x.to_bits() >> 31) as u8) << 7;
    let a = x.abs();
    if a.is_nan() {
        return sign | 0x7f;
    }
    if a >= 448.0 {
        return sign | 0x7e;
    }
    // The candidates are sorted by bit pattern: find the last one not above `a`, then round.
    let mut low = 0u8;
    let mut high = 0x7eu8;
    while low < high {
        let mid = low + (high - low).div_ceil(2);
        if f8e4m3_to_f32(mid) <= a { low = mid } else { high = mid - 1 }
    }
    let (below, above) = (f8e4m3_to_f32(low), f8e4m3_to_f32(low + 1));
    let (to_below, to_above) = (a - below, above - a);
    let up = to_above < to_below || (to_above == to_below && low & 1 == 1);
    sign | (low + u8::from(up))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f8_round_trips_and_known_values() {
        for bits in 0..=255u8 {
            let x = f8e4m3_to_f32(bits);
            if x.is_nan() {
                assert_eq!(bits & 0x7f, 0x7f);
            } else {
                assert_eq!(f32_to_f8e4m3(x), bits, "{bits:#x} = {x}");
            }
        }
        assert_eq!(f8e4m3_to_f32(0x7e), 448.0);
        assert_eq!(f8e4m3_to_f32(0x01), 2f32.powi(-9));
        assert_eq!(f8e4m3_to_f32(0x38), 1.0);
        assert_eq!(f32_to_f8e4m3(1e9), 0x7e);
        assert_eq!(f32_to_f8e4m3(1.0625), 0x38, "tie goes to even");
        assert_eq!(f32_to_f8e4m3(1.1875), 0x3a, "tie goes to even");
    }

    #[test]
    fn halves_round_trip() {
        for bits in 0..=u16::MAX {
            let x = f16_to_f32(bits);
            if !x.is_nan() {
                assert_eq!(f32_to_f16(x), bits);
            }
            let y = bf16_to_f32(bits);
            if !y.is_nan() {
                assert_eq!(f32_to_bf16(y), bits);
            }
        }
    }
}
