// Products with weights of F32 and F16: see mod.rs for the order of arithmetic, packed.rs for the panels: sixteen rows side
// by side, a word of one or two consecutive k each.
//
// A sum is one chain of multiply-adds, as on the host, so a thread owns an output and there is nothing to do in parallel
// along k. For few tokens a chain (4 cycles a step) takes about as long as its weights take to come from memory, if no
// step waits for them: a block per panel lets asynchronous copies run five stages (20 KiB) ahead. For many tokens 64 x 64
// outputs share what is brought to shared memory.

#include "device.cuh"
#include "dense.cuh"

namespace chains {
using namespace dense;

// Types of weights, and how many k a word holds.
struct F32 {
    static constexpr u32 PER_WORD = 1;
};
struct F16 {
    static constexpr u32 PER_WORD = 2;
};

DEVICE f32 element(F32, u32 word, u32) { return as_f32(word); }
DEVICE f32 element(F16, u32 word, u32 i) { return half_to_f32(u16(word >> 16 * i)); }

// ---- up to eight tokens: a block per panel, a thread per output ----

constexpr u32 FEW = 8, FEW_THREADS = FEW * LANES;
constexpr u32 STAGES = 6, STAGE_WORDS = 64;

template <class E> DEVICE void few(const f32* x, u32 stride, const u32* weight, u32 cols, u32 words, const Output& out) {
    constexpr u32 STEP = STAGE_WORDS * E::PER_WORD;
    SHARED u32 ring[STAGES][STAGE_WORDS * LANES];
    SHARED f32 xs[2][FEW][STEP];
    const u32 row = threadIdx.x % LANES, own = threadIdx.x / LANES, token = blockIdx.x * FEW + own;
    const u32* const panel = weight + u64(blockIdx.y) * words * LANES;
    const f32* const x_row = x + u64(token) * stride;
    const u32 stages = (words + STAGE_WORDS - 1) / STAGE_WORDS;

    const auto fetch = [&](u32 s) {
        const u32 first = s * STAGE_WORDS * LANES, end = min(first + STAGE_WORDS * LANES, words * LANES);
        for (u32 i = first + threadIdx.x * 4; i < end; i += FEW_THREADS * 4) {
            copy_async16(&ring[s % STAGES][i - first], panel + i);
        }
        copy_async_commit();
    };
    f32 next[STEP / LANES];  // x of the stage to come, on its way
    const auto load = [&](u32 s) {
        for (u32 i = 0; i < STEP / LANES; i++) {
            const u32 k = s * STEP + i * LANES + row;
            next[i] = token < out.tokens && k < cols ? x_row[k] : 0.0f;
        }
    };

    for (u32 s = 0; s < STAGES - 1; s++) fetch(s);
    load(0);
    f32 sum = 0;
    for (u32 s = 0; s < stages; s++) {
        f32* const xs_row = xs[s % 2][own];
        for (u32 i = 0; i < STEP / LANES; i++) xs_row[i * LANES + row] = next[i];
        copy_async_wait<STAGES - 2>();
        sync_block();
        fetch(s + STAGES - 1);
        load(s + 1);
        const u32* const stage = ring[s % STAGES] + row;
        const u32 len = min(STEP, cols - s * STEP);
        if (len == STEP) {
#pragma unroll 8
            for (u32 k = 0; k < STEP; k += 4) {
                const f32x4 four = *reinterpret_cast<const f32x4*>(xs_row + k);
                const f32 values[4] = {four.x, four.y, four.z, four.w};
                for (u32 i = 0; i < 4; i++) {
                    const u32 word = stage[(k + i) / E::PER_WORD * LANES];
                    sum = fma(values[i], element(E{}, word, i % E::PER_WORD), sum);
                }
            }
        } else {
            for (u32 k = 0; k < len; k++) {
                sum = fma(xs_row[k], element(E{}, stage[k / E::PER_WORD * LANES], k % E::PER_WORD), sum);
            }
        }
    }
    write(out, token, blockIdx.y * LANES + row, sum);
}

// ---- many tokens: 64 rows x 64 tokens per block, 8 x 4 per thread ----

constexpr u32 TILE = 64, TILE_K = 16, TILE_THREADS = 128;

template <class E> DEVICE void tile(const f32* x, u32 stride, const u32* weight, u32 cols, u32 words, const Output& out) {
    constexpr u32 WORDS = TILE_K * TILE / E::PER_WORD / TILE_THREADS, FLOATS = TILE_K * TILE / TILE_THREADS;
    SHARED f32 ws[TILE_K][TILE];
    SHARED f32 xs[TILE_K][TILE + 4];
    const u32 first_row = blockIdx.x * TILE, first_token = blockIdx.y * TILE;
    const u32 panels = (out.rows + LANES - 1) / LANES;
    const u32 rows = threadIdx.x % 8 * 4, tokens = threadIdx.x / 8 * 4;

    // Of both operands what the next step takes, on its way. Panels are filled up to whole steps.
    u32 w_next[WORDS];
    f32 x_next[FLOATS];
    const auto load = [&](u32 k) {
        for (u32 i = 0; i < WORDS; i++) {
            const u32 n = threadIdx.x + i * TILE_THREADS, panel = first_row / LANES + n / LANES % 4;
            const u64 word = u64(panel) * words + k / E::PER_WORD + n / TILE;
            w_next[i] = panel < panels && k < cols ? weight[word * LANES + n % LANES] : 0;
        }
        for (u32 i = 0; i < FLOATS; i++) {
            const u32 n = threadIdx.x + i * TILE_THREADS, at = k + n % TILE_K, token = first_token + n / TILE_K;
            x_next[i] = token < out.tokens && at < cols ? x[u64(token) * stride + at] : 0.0f;
        }
    };

    f32 sums[8][4] = {};
    const auto multiply = [&](u32 k) {
        const f32x4 low = *reinterpret_cast<const f32x4*>(&ws[k][rows]);
        const f32x4 high = *reinterpret_cast<const f32x4*>(&ws[k][TILE / 2 + rows]);
        const f32x4 four = *reinterpret_cast<const f32x4*>(&xs[k][tokens]);
        const f32 w[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        const f32 values[4] = {four.x, four.y, four.z, four.w};
        for (u32 r = 0; r < 8; r++) {
            for (u32 t = 0; t < 4; t++) sums[r][t] = fma(values[t], w[r], sums[r][t]);
        }
    };

    load(0);
    for (u32 k = 0; k < cols; k += TILE_K) {
        for (u32 i = 0; i < WORDS; i++) {
            const u32 n = threadIdx.x + i * TILE_THREADS, at = n / TILE * E::PER_WORD;
            for (u32 e = 0; e < E::PER_WORD; e++) ws[at + e][n % TILE] = element(E{}, w_next[i], e);
        }
        for (u32 i = 0; i < FLOATS; i++) {
            const u32 n = threadIdx.x + i * TILE_THREADS;
            xs[n % TILE_K][n / TILE_K] = x_next[i];
        }
        sync_block();
        load(k + TILE_K);
        if (cols - k >= TILE_K) {
#pragma unroll
            for (u32 i = 0; i < TILE_K; i++) multiply(i);
        } else {
            for (u32 i = 0; i < cols - k; i++) multiply(i);
        }
        sync_block();
    }
    for (u32 t = 0; t < 4; t++) {
        for (u32 r = 0; r < 8; r++) {
            write(out, first_token + tokens + t, first_row + r / 4 * (TILE / 2) + rows + r % 4, sums[r][t]);
        }
    }
}

} // namespace chains

#define CHAINS(name, E)                                                                                                \
    KERNEL(128, dense_few_##name)                                                                                      \
    (const f32* x, u32 stride, const u32* weight, u32 cols, u32 words, const dense::Output out) {                     \
        chains::few<chains::E>(x, stride, weight, cols, words, out);                                                   \
    }                                                                                                                  \
    KERNEL(128, dense_tile_##name)                                                                                     \
    (const f32* x, u32 stride, const u32* weight, u32 cols, u32 words, const dense::Output out) {                     \
        chains::tile<chains::E>(x, stride, weight, cols, words, out);                                                  \
    }

CHAINS(f32, F32)
CHAINS(f16, F16)
