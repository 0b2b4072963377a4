// RMSNorm: a block per row. y[i] = (x[i] * r) * w[i] with r = 1 / sqrt(S / d + eps), S the laned sum of squares of mod.rs.

#include "device.cuh"

KERNEL(256, rms_norm)(const f32* x, u32 stride, const f32* weight, f32* out, u32 cols, f32 eps) {
    SHARED f32 r;
    x += u64(blockIdx.x) * stride;
    out += u64(blockIdx.x) * cols;
    if (threadIdx.x < 32) {
        u32 lane = threadIdx.x % 16;  // Both halves of the warp compute the same.
        f32 squares = 0;
        for (u32 i = lane; i < cols; i += 16) squares = fma(x[i], x[i], squares);
        squares = fold_lanes(squares);
        if (threadIdx.x == 0) r = 1.0f / sqrtf(squares / f32(cols) + eps);
    }
    sync_block();
    for (u32 i = threadIdx.x; i < cols; i += blockDim.x) out[i] = x[i] * r * weight[i];
}
