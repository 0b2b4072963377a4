// Products with weights of BF16 and F8 on tensor cores: see mod.rs for the order of arithmetic, packed.rs for the panels:
// sixteen rows side by side, a word of two or four consecutive k each, zeros up to a whole number of steps.
//
// Weights are the A operand (sixteen rows of a panel), tokens the B operand (eight columns). x is cut into three bf16 that
// add up to it exactly, so that every product is exact in f32. Per segment of 512 k there are two accumulators: one for
// the two small parts, one for the large part, so that what the hardware cuts off below an f32 is cut off from few sums
// and never from the small parts; their sum is added to the total in order of k. Where a segment is computed does not
// matter: with few tokens the warps of a block share those of one panel, with many each warp goes through all of them.
//
// Which k of a step goes into which register of a fragment is free as long as A and B agree. Lane 4g + t takes rows 2g and
// 2g + 1 of a panel, so that a load brings two rows at once.

#include "device.cuh"
#include "dense.cuh"

namespace parts {
using namespace dense;

constexpr u32 STEP = 16, SEGMENT = 512 / STEP;

// Words of a step of one panel, and which four k lane t takes: FIRST · t, that plus one, and the same SECOND further.
struct BF16 {
    static constexpr u32 WORDS = 8 * LANES, FIRST = 2, SECOND = 8;
};
struct F8 {
    static constexpr u32 WORDS = 4 * LANES, FIRST = 4, SECOND = 2;
};

// A fragment of a step, from where it is in memory of either kind.
DEVICE void fragment(BF16, const u32* step, u32 g, u32 t, u32 (&a)[4]) {
    const u32x2 first = *reinterpret_cast<const u32x2*>(step + t * LANES + 2 * g);
    const u32x2 second = *reinterpret_cast<const u32x2*>(step + (t + 4) * LANES + 2 * g);
    a[0] = first.x, a[1] = first.y, a[2] = second.x, a[3] = second.y;
}

// Two of E4M3 from the low half of a word, as bf16: widened to f32, whose upper half has all their bits.
DEVICE u32 widened(u32 pair) {
    return as_u32(f8e4m3_to_f32(u8(pair))) >> 16 | (as_u32(f8e4m3_to_f32(u8(pair >> 8))) & 0xffff0000u);
}

DEVICE void fragment(F8, const u32* step, u32 g, u32 t, u32 (&a)[4]) {
    const u32x2 both = *reinterpret_cast<const u32x2*>(step + t * LANES + 2 * g);
    a[0] = widened(both.x), a[1] = widened(both.y), a[2] = widened(both.x >> 16), a[3] = widened(both.y >> 16);
}

// ---- x in three parts: (token, step, part, t), each the four k of a lane ----

constexpr u32 PARTS = 3;  // small, middle, large

// The upper half of a float, a bf16, holds eight of its 24 significant bits; of what is left then, the next eight.
DEVICE void split(f32 x, u32 (&parts)[PARTS]) {
    const u32 magnitude = as_u32(x) & 0x7fffffffu;
    if (magnitude >= 0x7f800000u) {  // What is not finite is its own large part.
        parts[0] = parts[1] = 0;
        parts[2] = as_u32(x) >> 16 | (magnitude > 0x7f800000u ? 0x40u : 0u);
        return;
    }
    for (u32 p = PARTS; p-- > 0;) {
        const u32 upper = as_u32(x) & 0xffff0000u;
        parts[p] = upper >> 16;
        x -= as_f32(upper);
    }
}

template <class E> DEVICE void split_rows(const f32* x, u32 stride, u32 tokens, u32 cols, u32 steps, u32x2* out) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x, t = i % 4, step = i / 4 % steps, token = i / 4 / steps;
    if (token >= tokens) return;
    u32 parts[4][PARTS];
    for (u32 j = 0; j < 4; j++) {
        const u32 k = step * STEP + t * E::FIRST + j % 2 + j / 2 * E::SECOND;
        split(k < cols ? x[u64(token) * stride + k] : 0.0f, parts[j]);
    }
    for (u32 p = 0; p < PARTS; p++) {
        out[(u64(i / 4) * PARTS + p) * 4 + t] = {parts[0][p] | parts[1][p] << 16, parts[2][p] | parts[3][p] << 16};
    }
}

// ---- up to eight tokens per block, one panel: the segments shared out among its warps ----

constexpr u32 FEW = 8, FEW_WARPS = 8;
constexpr u32 ROUND = 64;  // segments whose sums are held at once

// Sums of a segment of which `step` is the first and `count` the number of steps.
template <class E> DEVICE f32x4 segment(const u32x2* x, bool has_token, const u32* weight, u32 count, u32 g, u32 t) {
    f32 small[4] = {}, large[4] = {};
#pragma unroll 4
    for (u32 s = 0; s < count; s++) {
        u32 a[4], b[PARTS][2];
        fragment(E{}, weight + s * E::WORDS, g, t, a);
        for (u32 p = 0; p < PARTS; p++) {
            const u32x2 part = has_token ? x[(s * PARTS + p) * 4 + t] : u32x2{0, 0};
            b[p][0] = part.x, b[p][1] = part.y;
        }
        mma_bf16_k16(small, a, b[0]);
        mma_bf16_k16(small, a, b[1]);
        mma_bf16_k16(large, a, b[2]);
    }
    return {large[0] + small[0], large[1] + small[1], large[2] + small[2], large[3] + small[3]};
}

template <class E> DEVICE void few(const u32x2* x, const u32* weight, u32 steps, const Output& out) {
    SHARED f32x4 sums[ROUND][32];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const u32 token = blockIdx.x * FEW + g, segments = (steps + SEGMENT - 1) / SEGMENT;
    const u32* const panel = weight + u64(blockIdx.y) * steps * E::WORDS;
    const u32x2* const x_row = x + u64(token) * steps * PARTS * 4;
    f32 total = 0;
    for (u32 first = 0; first < segments; first += ROUND) {
        const u32 end = min(segments, first + ROUND);
        for (u32 s = first + warp; s < end; s += FEW_WARPS) {
            const u32 from = s * SEGMENT, count = min(SEGMENT, steps - from);
            sums[s - first][lane] = segment<E>(x_row + from * PARTS * 4, token < out.tokens,
                                               panel + from * E::WORDS, count, g, t);
        }
        sync_block();
        if (threadIdx.x < FEW * LANES) {
            for (u32 s = first; s < end; s++) total += reinterpret_cast<const f32*>(sums[s - first])[threadIdx.x];
        }
        sync_block();
    }
    // Float i of a segment's sums is c[i % 4] of lane i / 4.
    const u32 of = threadIdx.x / 4, c = threadIdx.x % 4;
    if (threadIdx.x < FEW * LANES) {
        write(out, blockIdx.x * FEW + of % 4 * 2 + c % 2, blockIdx.y * LANES + of / 4 * 2 + c / 2, total);
    }
}

// ---- many tokens: 64 rows x 64 tokens per block, 32 x 32 per warp ----

constexpr u32 TILE = 64, TILE_THREADS = 128, TILE_PANELS = TILE / LANES;
constexpr u32 STAGE_STEPS = 2;
// Words of a token's parts in a stage. The eight words more keep the tokens of a fragment in different banks.
constexpr u32 X_WORDS = STAGE_STEPS * PARTS * 8, X_STRIDE = X_WORDS + 8;

template <class E> DEVICE void tile(const u32x2* x, const u32* weight, u32 steps, const Output& out) {
    SHARED u32 ws[2][TILE_PANELS][STAGE_STEPS * E::WORDS];
    SHARED u32 xs[2][TILE][X_STRIDE];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const u32 own_panel = warp / 2 * 2, own_token = warp % 2 * 32;
    const u32 first_panel = blockIdx.x * TILE_PANELS, first_token = blockIdx.y * TILE;
    const u32 panels = (out.rows + LANES - 1) / LANES, stages = (steps + STAGE_STEPS - 1) / STAGE_STEPS;

    // Rows and tokens that do not exist are computed like the last ones, and not written.
    const auto fetch = [&](u32 stage) {
        const u32 step = stage * STAGE_STEPS, count = stage < stages ? min(STAGE_STEPS, steps - step) : 0;
        const u32 w_pieces = count * E::WORDS / 4, x_pieces = count * PARTS * 2;
        for (u32 i = threadIdx.x; i < TILE_PANELS * w_pieces; i += TILE_THREADS) {
            const u32 panel = i / w_pieces, at = i % w_pieces * 4;
            const u32* const from = weight + (u64(min(first_panel + panel, panels - 1)) * steps + step) * E::WORDS;
            copy_async16(&ws[stage % 2][panel][at], from + at);
        }
        for (u32 i = threadIdx.x; i < TILE * x_pieces; i += TILE_THREADS) {
            const u32 token = i / x_pieces, at = i % x_pieces * 4;
            const u64 from = (u64(min(first_token + token, out.tokens - 1)) * steps + step) * PARTS * 8;
            copy_async16(&xs[stage % 2][token][at], reinterpret_cast<const u32*>(x) + from + at);
        }
        copy_async_commit();
    };

    f32 small[2][4][4] = {}, large[2][4][4] = {}, total[2][4][4] = {};
    fetch(0);
    for (u32 stage = 0; stage < stages; stage++) {
        copy_async_wait<0>();
        sync_block();
        fetch(stage + 1);
        const u32 count = min(STAGE_STEPS, steps - stage * STAGE_STEPS);
        for (u32 s = 0; s < count; s++) {
            u32 a[2][4];
            for (u32 p = 0; p < 2; p++) {
                fragment(E{}, &ws[stage % 2][own_panel + p][s * E::WORDS], g, t, a[p]);
            }
            for (u32 n = 0; n < 4; n++) {
                const u32x2* const parts =
                    reinterpret_cast<const u32x2*>(&xs[stage % 2][own_token + n * 8 + g][s * PARTS * 8]) + t;
                for (u32 part = 0; part < PARTS; part++) {
                    const u32 b[2] = {parts[part * 4].x, parts[part * 4].y};
                    for (u32 p = 0; p < 2; p++) mma_bf16_k16(part < 2 ? small[p][n] : large[p][n], a[p], b);
                }
            }
        }
        const u32 done = stage * STAGE_STEPS + count;
        if (done % SEGMENT == 0 || done == steps) {
            for (u32 p = 0; p < 2; p++) {
                for (u32 n = 0; n < 4; n++) {
                    for (u32 c = 0; c < 4; c++) {
                        total[p][n][c] += large[p][n][c] + small[p][n][c];
                        large[p][n][c] = small[p][n][c] = 0;
                    }
                }
            }
        }
    }
    for (u32 p = 0; p < 2; p++) {
        for (u32 n = 0; n < 4; n++) {
            for (u32 c = 0; c < 4; c++) {
                const u32 row = (first_panel + own_panel + p) * LANES + g * 2 + c / 2;
                write(out, first_token + own_token + n * 8 + t * 2 + c % 2, row, total[p][n][c]);
            }
        }
    }
}

} // namespace parts

#define PRODUCTS(name, E)                                                                                              \
    KERNEL(256, dense_split_##name)(const f32* x, u32 stride, u32 tokens, u32 cols, u32 steps, u32x2* out) {           \
        parts::split_rows<parts::E>(x, stride, tokens, cols, steps, out);                                              \
    }                                                                                                                  \
    KERNEL(256, dense_few_##name)(const u32x2* x, const u32* weight, u32 steps, const dense::Output out) {             \
        parts::few<parts::E>(x, weight, steps, out);                                                                   \
    }                                                                                                                  \
    KERNEL(128, dense_tile_##name)(const u32x2* x, const u32* weight, u32 steps, const dense::Output out) {            \
        parts::tile<parts::E>(x, weight, steps, out);                                                                  \
    }

PRODUCTS(bf16, BF16)
PRODUCTS(f8, F8)
