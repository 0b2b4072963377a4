// Where results go: the device's twin of output.rs.
#pragma once

#include "device.cuh"

namespace matmul {

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

} // namespace matmul
