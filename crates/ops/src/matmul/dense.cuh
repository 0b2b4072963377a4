// What both kinds of kernels for plain floats share: where results go.
#pragma once

#include "device.cuh"

namespace dense {

constexpr u32 LANES = 16;

// (tokens, rows); bias may be null.
struct Output {
    f32* y;
    const f32* bias;
    u32 tokens, rows;
    f32 scale;
    u32 unused;
};

DEVICE void write(const Output& out, u32 token, u32 row, f32 sum) {
    if (token >= out.tokens || row >= out.rows) return;
    const f32 scaled = sum * out.scale;
    out.y[u64(token) * out.rows + row] = out.bias ? scaled + out.bias[row] : scaled;
}

} // namespace dense
