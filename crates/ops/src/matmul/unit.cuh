// What the kernels for block-quantised weights share: the product of a unit (quant.cuh) of sixteen rows and eight tokens.
#pragma once

#include "device.cuh"
#include "quant.cuh"

namespace matmul {

// A sum that starts at MAGIC and ends at MAGIC + n, |n| < 2^22, has as an f32 the value 1.5 * 2^23 + n: subtracting that gives
// f32(n) without a conversion. The largest |n| is 32 * 128 * 127 (Q8_0).
constexpr i32 MAGIC = 0x4b400000;
constexpr f32 MAGIC_FLOAT = 12582912.0f;

DEVICE f32 number_of(i32 sum) { return as_f32(static_cast<u32>(sum)) - MAGIC_FLOAT; }

template <class F> constexpr u32 GROUPS = 32 / F::GROUP;
template <class F> constexpr u32 UNITS_PER_BLOCK = F::BLOCK / 32;
template <class F> constexpr u32 PANEL_BLOCK = 16 * F::BYTES;

template <class F> DEVICE typename F::Raw read(const u8* panel, u32 unit, u32 g, u32 t) {
    const u8* block = panel + u64(unit / UNITS_PER_BLOCK<F>) * PANEL_BLOCK<F>;
    return F::read(block, unit % UNITS_PER_BLOCK<F>, g, t);
}

// Of two columns (tokens) of a unit: d, and per group what its sum begins with and d times the sum of the codes.
template <class F> struct Columns {
    f32 d[2], d_sum[GROUPS<F>][2];
    i32 begin[GROUPS<F>][2];

    // From the unit's sums of `padded` tokens (quantise_rows/kernel.cu), which begin with the first of the two.
    DEVICE static Columns read(const u8* sums, u32 padded) {
        const auto pair = [&](u32 i) { return *reinterpret_cast<const u32x2*>(sums + 4 * padded * i); };
        const u32x2 d = pair(0), d_sum = pair(1), sum = pair(2), first = pair(3);
        Columns columns;
        columns.set(0, {d.x, d_sum.x, sum.x, first.x});
        columns.set(1, {d.y, d_sum.y, sum.y, first.y});
        return columns;
    }

    // From those of the only token.
    DEVICE static Columns read(const u8* sums) {
        Columns columns;
        for (u32 i = 0; i < 2; i++) columns.set(i, *reinterpret_cast<const u32x4*>(sums));
        return columns;
    }

    // d, d * sum, the sum of all codes and that of the first half.
    DEVICE void set(u32 i, u32x4 of) {
        const i32 sums[2] = {i32(GROUPS<F> == 1 ? of.z : of.w), i32(of.z - of.w)};
        d[i] = as_f32(of.x);
#pragma unroll
        for (u32 h = 0; h < GROUPS<F>; h++) {
            begin[h][i] = MAGIC - i32(F::OFFSET) * sums[h];
            d_sum[h][i] = GROUPS<F> == 1 ? as_f32(of.y) : d[i] * f32(sums[h]);
        }
    }
};

// c += the sums of group h.
template <class F> DEVICE void multiply(i32 (&c)[4], u32 h, const u32 (&a)[4], u32x2 b) {
    if constexpr (GROUPS<F> == 1) {
        mma_u8s8_k32(c, a, {b.x, b.y});
    } else {
        mma_u8s8_k16(c, {a[2 * h], a[2 * h + 1]}, h ? b.y : b.x);
    }
}

} // namespace matmul
