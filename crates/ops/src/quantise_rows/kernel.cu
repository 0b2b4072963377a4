// Rounding activations to 8 bits per block of 32: see mod.rs. A warp per block, an element per lane. Rows of codes are as
// long as those of x, their records (d, d · sum, sums of both halves) follow in a matrix of their own, 16 bytes per block.

#include "device.cuh"

struct alignas(16) Record {
    f32 d, d_sum;
    i32 sum[2];
};

KERNEL(256, quantise_rows)(const f32* x, u32 stride, u32 rows, u32 cols, i8* codes, Record* records) {
    const u32 blocks = cols / 32, lane = threadIdx.x % 32;
    const u32 at = blockIdx.x * 8 + threadIdx.x / 32;
    if (at >= rows * blocks) return;
    const u32 row = at / blocks, block = at % blocks;
    const f32 value = x[u64(row) * stride + block * 32 + lane];
    // As integers magnitudes are ordered, infinities and NaN on top.
    u32 bits = as_u32(value) & 0x7fffffffu;
    for (u32 step = 16; step; step /= 2) bits = max(bits, shuffle_xor(bits, step));
    const f32 largest = as_f32(bits);
    constexpr u32 TINY = (127 - 100) << 23, INFINITE = 0x7f800000u;
    f32 d = largest / 127.0f, inverse = 127.0f / largest;
    if (bits < TINY) d = 0, inverse = 0;
    if (bits >= INFINITE) d = as_f32(0x7fc00000u), inverse = 0;
    const i32 code = inverse == 0.0f ? 0 : i32(rintf(value * inverse));
    i32 sum = code;
    for (u32 step = 8; step; step /= 2) sum += shuffle_xor(sum, step);
    const i32 first = shuffle(sum, 0), second = shuffle(sum, 16);
    codes[u64(row) * cols + block * 32 + lane] = i8(code);
    if (lane == 0) records[at] = Record{d, d * f32(first + second), {first, second}};
}
