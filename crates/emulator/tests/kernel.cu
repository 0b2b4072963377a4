// Kernels for the emulator's own tests: one for each thing that `device.cuh` offers, and wrong ones that it must notice.
#include "device.cuh"
#include "math.cuh"

// Four words per thread: its value exchanged in each way, for a value of 1000 + i.
KERNEL(64, test_exchange)(u32* out) {
    const u32 i = threadIdx.x;
    out[4 * i] = shuffle_xor(1000 + i, 5);
    out[4 * i + 1] = shuffle(1000 + i, 7);
    out[4 * i + 2] = as_u32(shuffle_down(as_f32(1000 + i), 3));
    out[4 * i + 3] = static_cast<u32>(fold_lanes(static_cast<f32>(i)));
}

// Reverses each block of 256 words through shared memory. Threads from `count` on leave before the barrier.
KERNEL(256, test_reverse)(const u32* in, u32* out, u32 count) {
    SHARED u32 tile[256];
    if (threadIdx.x >= count) return;
    const u32 base = blockIdx.x * count;
    tile[threadIdx.x] = in[base + threadIdx.x];
    sync_block();
    out[base + threadIdx.x] = tile[count - 1 - threadIdx.x];
}

// The same without the barrier.
KERNEL(256, test_reverse_hastily)(const u32* in, u32* out) {
    SHARED u32 tile[256];
    tile[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = tile[255 - threadIdx.x];
}

// And through dynamic shared memory.
KERNEL(1024, test_reverse_dynamically)(const u32* in, u32* out, u32 count) {
    DYNAMIC_SHARED(u32, tile);
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) tile[i] = in[i];
    sync_block();
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) out[i] = tile[count - 1 - i];
}

// c += a·bᵀ with a 16 rows, b 8 rows of 32 or 16 bytes, or 16 bf16.
#define PRODUCT(name, Sum, A, B, mma)                                                                                  \
    KERNEL(32, name)(const u32* a, const u32* b, Sum* c) {                                                            \
        const u32 g = threadIdx.x / 4, t = threadIdx.x % 4, row = 4 * (B);                                            \
        u32 a_part[A], b_part[B];                                                                                     \
        for (u32 i = 0; i < A; i++) a_part[i] = a[(g + 8 * (i % 2)) * row + 4 * (i / 2) + t];                         \
        for (u32 i = 0; i < B; i++) b_part[i] = b[g * row + 4 * i + t];                                               \
        Sum* const corners[4] = {c + g * 8 + 2 * t, c + g * 8 + 2 * t + 1, c + (g + 8) * 8 + 2 * t,                   \
                                 c + (g + 8) * 8 + 2 * t + 1};                                                        \
        Sum sums[4];                                                                                                  \
        for (u32 i = 0; i < 4; i++) sums[i] = *corners[i];                                                            \
        mma;                                                                                                          \
        for (u32 i = 0; i < 4; i++) *corners[i] = sums[i];                                                            \
    }
PRODUCT(test_mma_u8s8_k32, i32, 4, 2, mma_u8s8_k32(sums, a_part, b_part))
PRODUCT(test_mma_u8s8_k16, i32, 2, 1, mma_u8s8_k16(sums, a_part, b_part[0]))
PRODUCT(test_mma_bf16_k16, f32, 4, 2, mma_bf16_k16(sums, a_part, b_part))

// Two groups of copies of 16 bytes a thread; `kept` of them are not waited for before the first is read.
template <u32 KEPT> DEVICE void stage(const u32* in, u32* out) {
    SHARED u32 first[32 * 4], second[32 * 4];
    const u32 i = threadIdx.x;
    copy_async16(first + 4 * i, in + 4 * i);
    copy_async_commit();
    copy_async16(second + 4 * i, in + 128 + 4 * i);
    copy_async_commit();
    copy_async_wait<KEPT>();
    sync_block();
    for (u32 j = i; j < 128; j += 32) out[j] = first[j];
    sync_block();
    copy_async_wait<0>();
    sync_block();
    for (u32 j = i; j < 128; j += 32) out[128 + j] = second[j];
}
KERNEL(32, test_copy_async)(const u32* in, u32* out) { stage<1>(in, out); }
KERNEL(32, test_copy_async_hastily)(const u32* in, u32* out) { stage<2>(in, out); }

// Parameters of several kinds: out[i] = scale · in[i] + shift.
struct Line {
    f32 scale, shift;
    u64 count;
};
KERNEL(128, test_line)(const f32* in, f32* out, Line line, u32 start) {
    const u64 i = start + blockIdx.x * blockDim.x + threadIdx.x;
    if (i < line.count) out[i] = line.scale * in[i] + line.shift;
}

// Loads of every size, dots of bytes and a sum over all threads of all blocks.
KERNEL(32, test_small_things)(const u8* bytes, u32* out, u32* total) {
    const u32 i = threadIdx.x;
    const u32x4 four = load_once(reinterpret_cast<const u32x4*>(bytes) + i);
    const u32x2 two = load_once(reinterpret_cast<const u32x2*>(bytes) + i);
    const u32 one = load_once(reinterpret_cast<const u32*>(bytes) + i);
    out[6 * i] = four.x ^ four.w;
    out[6 * i + 1] = two.y;
    out[6 * i + 2] = load_once(reinterpret_cast<const u16*>(bytes) + i);
    out[6 * i + 3] = load_once(bytes + i);
    out[6 * i + 4] = static_cast<u32>(dot4_u8s8(one, four.y, -7));
    out[6 * i + 5] = static_cast<u32>(dot4_s8s8(one, four.y, -7));
    atomic_add(total, i + 1);
    fence();
}

// Functions of `math.cuh` and conversions of every bit pattern start + i · step: eight words each.
KERNEL(256, test_math)(u32* out, u32 start, u32 step, u32 count) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const u32 bits = start + i * step;
    const f32 x = as_f32(bits);
    u32* const mine = out + u64(8) * i;
    mine[0] = as_u32(math::exp(x));
    mine[1] = as_u32(math::silu(x));
    mine[2] = as_u32(math::sigmoid(x));
    mine[3] = as_u32(math::softplus(x));
    mine[4] = as_u32(half_to_f32(static_cast<u16>(bits >> 16)));
    mine[5] = as_u32(bf16_to_f32(static_cast<u16>(bits >> 16)));
    mine[6] = f32_to_half(x) | static_cast<u32>(f32_to_bf16(x)) << 16;
    mine[7] = math::round_to_f16(x);
}

// Half a warp exchanges, the other half waits for the block.
KERNEL(32, test_diverged)(u32* out) {
    if (threadIdx.x < 16) {
        out[threadIdx.x] = shuffle_xor(threadIdx.x, 1);
    } else {
        sync_block();
    }
}

// Writes one word behind the end.
KERNEL(32, test_beyond)(u32* out, u32 count) { out[count] = 0; }

// Measurements: many exchanges, many products.
KERNEL(256, test_many_exchanges)(u32* out, u32 count) {
    u32 v = threadIdx.x;
    for (u32 i = 0; i < count; i++) v += shuffle_xor(v, 1);
    out[threadIdx.x] = v;
}
KERNEL(256, test_many_products)(i32* out, u32 count) {
    i32 c[4] = {};
    const u32 a[4] = {threadIdx.x, 1, 2, 3}, b[2] = {4, 5};
    for (u32 i = 0; i < count; i++) mma_u8s8_k32(c, a, b);
    out[threadIdx.x] = c[0];
}
