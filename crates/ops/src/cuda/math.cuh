// exp, silu, sigmoid and softplus with the bits of `ops/src/math/mod.rs`, which is their definition and says where the
// polynomials come from; and the rounding of keys and values to f16 (`attention/cache.rs`).
//
// They live in a namespace because `exp(f32)` is the compiler's own function, with other bits: write `math::exp`.
#pragma once

#include "device.cuh"

namespace math {

// p · 2^n for integral n in -150..=128, in two exact powers so that subnormal results are rounded once.
DEVICE f32 scale_pow2(f32 p, i32 n) {
    const i32 half = n >> 1;
    const f32 low = as_f32(static_cast<u32>(half + 127) << 23);
    const f32 high = as_f32(static_cast<u32>(n - half + 127) << 23);
    return (p * low) * high;
}

// e^x. NaN stays NaN; underflow is gradual, then zero; overflow is infinite.
DEVICE f32 exp(f32 x) {
    constexpr f32 LOG2_E = 1.44269504088896340736f;
    constexpr f32 LN2_HIGH = 0.69314575f, LN2_LOW = 1.4286068e-6f;
    constexpr f32 Q0 = 0.49999994f, Q1 = 0.16666521f, Q2 = 0.04166839f, Q3 = 0.008368745f, Q4 = 0.001381454f;
    // A comparison with NaN is false, so the clamps keep it; below, the one that is NaN has n = 0.
    x = 89.0f < x ? 89.0f : x;
    x = -104.0f > x ? -104.0f : x;
    const f32 n = rintf(x * LOG2_E);
    f32 r = fma(n, -LN2_HIGH, x);
    r = fma(n, -LN2_LOW, r);
    const f32 q = fma(fma(fma(fma(Q4, r, Q3), r, Q2), r, Q1), r, Q0);
    const f32 p = fma(r * r, q, r) + 1.0f;
    return scale_pow2(p, n == n ? static_cast<i32>(n) : 0);
}

// x · sigmoid(x).
DEVICE f32 silu(f32 x) {
    const f32 e = exp(-fabsf(x));
    return (x < 0.0f ? x * e : x) / (1.0f + e);
}

// 1 / (1 + e^-x).
DEVICE f32 sigmoid(f32 x) {
    const f32 e = exp(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

// ln(1 + e) for e in 0..=1.
DEVICE f32 log1p_unit(f32 e) {
    constexpr f32 SQRT2_MINUS_1 = 0.41421357f, LN_2 = 0.693147180559945309417f;
    const bool halve = e > SQRT2_MINUS_1;
    const f32 f = halve ? (e - 1.0f) * 0.5f : e;
    const f32 s = f / (2.0f + f);
    const f32 z = s * s;
    const f32 tail = fma(fma(fma(2.0f / 9.0f, z, 2.0f / 7.0f), z, 2.0f / 5.0f), z, 2.0f / 3.0f);
    const f32 log = fma(s * z, tail, 2.0f * s);
    return halve ? log + LN_2 : log;
}

// ln(1 + e^x).
DEVICE f32 softplus(f32 x) {
    const f32 positive = x < 0.0f ? 0.0f : x;
    return positive + log1p_unit(exp(-fabsf(x)));
}

// To f16, to nearest even, the largest finite one instead of infinity; NaN stays NaN.
DEVICE u16 round_to_f16(f32 x) {
    constexpr f32 F16_MAX = 65504.0f;
    x = x > F16_MAX ? F16_MAX : x;
    x = x < -F16_MAX ? -F16_MAX : x;
    return f32_to_half(x);
}

} // namespace math
