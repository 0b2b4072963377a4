// The gated norm: a block per row and group, see `normalise`.

#include "mamba.cuh"

KERNEL(256, rms_norm_gated)(const f32* y, u32 y_stride, const f32* z, u32 z_stride, const f32* weight, f32* out,
                            u32 width, u32 groups, f32 eps) {
    SHARED Group group;
    const u32 row = blockIdx.x / groups, from = blockIdx.x % groups * width;
    y += u64(row) * y_stride + from;
    z += u64(row) * z_stride + from;
    const auto gated = [=](u32 i) { return y[i] * math::silu(z[i]); };
    normalise(width, gated, weight + from, eps, out + u64(row) * width * groups + from, group);
}
