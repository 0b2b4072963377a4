// One thread per element; see mod.rs.

#include "device.cuh"

DEVICE u32 element() { return blockIdx.x * blockDim.x + threadIdx.x; }

KERNEL(256, relu2)(f32* x, u32 count) {
    const u32 i = element();
    if (i >= count) return;
    const f32 relu = x[i] < 0.0f ? 0.0f : x[i];
    x[i] = relu * relu;
}

KERNEL(256, add)(f32* x, const f32* y, u32 count) {
    const u32 i = element();
    if (i < count) x[i] = x[i] + y[i];
}

// A row of x and the weight of what is added to it.
struct Target {
    u32 row;
    f32 weight;
};

// blockIdx.y is a row of y. No two targets are the same row.
KERNEL(256, add_scaled_rows)(f32* x, const Target* targets, const f32* y, u32 stride, u32 cols) {
    const u32 i = element();
    if (i >= cols) return;
    const Target target = targets[blockIdx.y];
    f32* const to = x + u64(target.row) * cols + i;
    *to = fma(target.weight, y[u64(blockIdx.y) * stride + i], *to);
}

DEVICE void copy_row(const f32* x, u32 stride, u32 from, f32* out, u32 cols) {
    const u32 i = element();
    if (i < cols) out[u64(blockIdx.y) * cols + i] = x[u64(from) * stride + i];
}

// blockIdx.y is a row of out.
KERNEL(256, gather_rows)(const f32* x, u32 stride, const u32* rows, f32* out, u32 cols) {
    copy_row(x, stride, rows[blockIdx.y], out, cols);
}

// Row numbers that travel with the launch.
struct FewRows {
    u32 row[32];
};

KERNEL(256, gather_few_rows)(const f32* x, u32 stride, const FewRows rows, f32* out, u32 cols) {
    copy_row(x, stride, rows.row[blockIdx.y], out, cols);
}
