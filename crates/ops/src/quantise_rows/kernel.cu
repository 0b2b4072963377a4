// Rounding activations to 8 bits per block of 32: see mod.rs. A warp per block, an element per lane.
//
// Made for the products of matmul/, which take a block of many tokens at a time: block 0 of every token, then block 1, ...,
// with `padded` tokens of 32 bytes each, of which the last may be unwritten. In these 32 bytes the words of four codes are
// interleaved (0, 4, 1, 5, 2, 6, 3, 7), so that one load gets words t and t + 4. After the codes of all blocks follow their
// sums: per block a row of `padded` words each of d, d * sum, sum, and the sum of the first sixteen codes.

#include "device.cuh"

KERNEL(256, quantise_rows)(const f32* x, u32 stride, u32 rows, u32 blocks, u32 padded, u8* out) {
    const u32 lane = threadIdx.x % 32, at = blockIdx.x * 8 + threadIdx.x / 32;
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
    i32 half = code;
    for (u32 step = 8; step; step /= 2) half += shuffle_xor(half, step);
    const i32 sum = half + shuffle_xor(half, 16);

    const u64 place = u64(block) * padded + row;
    const u32 word = lane / 4;
    out[place * 32 + 8 * (word % 4) + word / 4 * 4 + lane % 4] = static_cast<u8>(code);
    if (lane == 0) {
        u32* sums = reinterpret_cast<u32*>(out + u64(blocks) * padded * 32) + u64(block) * padded * 4 + row;
        sums[0] = as_u32(d), sums[padded] = as_u32(d * f32(sum));
        sums[2 * padded] = static_cast<u32>(sum), sums[3 * padded] = static_cast<u32>(half);
    }
}
