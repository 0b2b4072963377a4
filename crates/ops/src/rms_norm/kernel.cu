// RMSNorm: a block per row. y[i] = (x[i] * r) * w[i] with r = 1 / sqrt(S / d + eps), S the laned sum of squares of mod.rs.
//
// The sum is sixteen chains of d / 16 dependent multiply-adds, which cannot be cut; so that they never wait for memory, the
// block brings the row to shared memory first, a stretch at a time.

#include "device.cuh"

constexpr u32 STRETCH = 4096;

// r of row x. With y, x + y takes the place of x before; then x is written.
template <bool ADDS> DEVICE f32 inverse_rms(f32* x, const f32* y, u32 cols, f32 eps) {
    SHARED f32 stretch[STRETCH];
    SHARED f32 r;
    const u32 lane = threadIdx.x % 16;  // Both halves of the first warp compute the same.
    f32 squares = 0;
    for (u32 from = 0; from < cols; from += STRETCH) {
        const u32 len = min(STRETCH, cols - from);
        for (u32 i = threadIdx.x; i < len; i += blockDim.x) {
            f32 value = x[from + i];
            if (ADDS) x[from + i] = value = value + y[from + i];
            stretch[i] = value;
        }
        sync_block();
        if (threadIdx.x < 32) {
#pragma unroll 8
            for (u32 i = lane; i < len; i += 16) squares = fma(stretch[i], stretch[i], squares);
        }
        sync_block();
    }
    if (threadIdx.x < 32) {
        squares = fold_lanes(squares);
        if (threadIdx.x == 0) r = 1.0f / sqrtf(squares / f32(cols) + eps);
    }
    sync_block();
    return r;
}

KERNEL(256, rms_norm)(f32* x, u32 stride, const f32* weight, f32* out, u32 cols, f32 eps) {
    x += u64(blockIdx.x) * stride;
    out += u64(blockIdx.x) * cols;
    const f32 r = inverse_rms<false>(x, nullptr, cols, eps);
    for (u32 i = threadIdx.x; i < cols; i += blockDim.x) out[i] = x[i] * r * weight[i];
}

// x is x + y before it is normalised. A thread reads back what it wrote itself.
KERNEL(256, add_rms_norm)(f32* x, const f32* y, const f32* weight, f32* out, u32 cols, f32 eps) {
    const u64 row = u64(blockIdx.x) * cols;
    const f32 r = inverse_rms<true>(x + row, y + row, cols, eps);
    for (u32 i = threadIdx.x; i < cols; i += blockDim.x) out[row + i] = x[row + i] * r * weight[i];
}
